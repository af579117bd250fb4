"""Single calls of Helium kernels in QEMU's Cortex-M55: many cases in one firmware.

A case is a program of one op, values, and how it is called: strides wider than the channels, rows in slices with only
the rows of the input in memory that a slice needs. The input ends where the memory ends, so that reading on is a fault;
outputs lie between bytes that must stay as they were, and so do the bytes after scratch and state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeprune.codegen.kernel import Call, Kernel, Lowered, find_area
from edgeprune.codegen.render import list_headers, render_lowered
from edgeprune.codegen.rows import find_row_window, is_row_reduction
from edgeprune.errors import EdgepruneError
from edgeprune.graph import Graph
from edgeprune.measure.cortex_m.qemu_runner import find_qemu, run_qemu
from edgeprune.measure.cortex_m.toolchain import build_elf, find_toolchain
from edgeprune.reference import run_graph
from edgeprune.target import load_target

M55 = load_target("cortex-m55")
RUNTIME = Path(__file__).parents[2] / "edgeprune/codegen/runtime"
GUARD = 16  # bytes around an output
PAINT = -0x5B  # 0xA5: what run_qemu fills outputs with

MODEL_H = """#include <stdint.h>
#define EDGEPRUNE_MODEL_INPUT_BYTES 1
#define EDGEPRUNE_MODEL_OUTPUT_BYTES {output_bytes}
#define EDGEPRUNE_MODEL_ARENA_BYTES 65536
int32_t edgeprune_model_run(const int8_t *input, int8_t *output, void *arena);
"""


@dataclass(frozen=True, eq=False)
class MveCase:
    """One lowered op: values of its activations laid out with their strides, (pixels, stride), and of its output.

    rows: the rows of each call; all at once where None.
    """

    call: Call
    lowered: Lowered
    values: tuple[np.ndarray, ...]
    expected: np.ndarray
    rows: int | None

    @property
    def is_reduction(self) -> bool:
        return is_row_reduction(self.call.graph, self.call.op)


def make_case(
    kernel: Kernel,
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    *,
    gaps: tuple[int, int] = (0, 0),
    rows: int | None = None,
) -> MveCase | None:
    """None where the kernel declines. gaps: bytes between pixels of inputs and output. rows: as in MveCase."""
    op = graph.ops[0]
    names = [name for name in op.inputs if not graph.tensors[name].is_constant]
    areas = [find_area(graph.tensors[name].shape) for name in names]
    output = run_graph(graph, {name: inputs[name][:1] for name in names})[op.outputs[0]]
    y = find_area(output.shape)
    if is_row_reduction(graph, op):
        gaps = (gaps[0], 0)
    total = areas[0].rows if is_row_reduction(graph, op) else y.rows
    strides = tuple(area.channels + gaps[0] for area in areas)
    call = Call("layer", op, graph, M55, strides, y.channels + gaps[1], min(rows or total, total))
    lowered = kernel.lower(call)
    if lowered is None:
        return None
    values = tuple(
        _spread(inputs[name][:1], area.channels, stride, 99)
        for name, area, stride in zip(names, areas, strides, strict=True)
    )
    return MveCase(call, lowered, values, _spread(output, y.channels, call.y_stride, PAINT), rows)


def _spread(values: np.ndarray, channels: int, stride: int, fill: int) -> np.ndarray:
    """(pixels, stride): pixels of `channels` values, `stride` bytes apart."""
    pixels = values.reshape(-1, channels)
    spread = np.full((len(pixels), stride), fill, np.int8)
    spread[:, :channels] = pixels
    return spread


def find_missing_tools(toolchain: str) -> str | None:
    """Why the cases cannot run here; None where they can."""
    try:
        find_qemu()
        find_toolchain(toolchain)
    except EdgepruneError as error:
        return str(error)
    return None


def run_cases(cases: Sequence[MveCase], toolchain: str, optimize: str = "-O2") -> list[int]:
    """How many bytes of each case's output (and of what lies around it) differ from what they should be."""
    names = {name for case in cases for source in case.lowered.sources for name in (source, *_find_headers(source))}
    sources: dict[str, str | bytes] = {name: (RUNTIME / name).read_text() for name in {*names, "ep.h"}}
    assembly = {item.name: item.text for case in cases for item in case.lowered.assembly}
    expected = [np.pad(case.expected.ravel(), GUARD, constant_values=PAINT) for case in cases]
    sources |= {
        "model.h": MODEL_H.format(output_bytes=sum(map(len, expected))),
        "model.c": _render(cases),
        "cases.S": "\n".join(assembly.values()) + "\n",
    }
    built = build_elf(sources, M55, toolchain=toolchain, optimize=optimize)
    inputs = np.array([[0], [1]], np.int8)  # the first run, which is traced, does nothing; the second all cases
    outputs = run_qemu(built, M55, inputs).outputs[1]
    ends = np.cumsum([len(values) for values in expected])[:-1]
    return [int((found != wanted).sum()) for found, wanted in zip(np.split(outputs, ends), expected, strict=True)]


def _find_headers(source: str) -> set[str]:
    """All headers that a source includes, and those that they include."""
    found: set[str] = set()
    wanted = [source, source.replace(".c", ".h")]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += re.findall(r'#include "([^"]+)"', (RUNTIME / name).read_text())
    return found


def _render(cases: Sequence[MveCase]) -> str:
    headers = sorted({header for case in cases for header in list_headers(case.lowered)})
    parts = ['#include "model.h"\n#include "ep.h"\n' + "".join(f'#include "{header}"\n' for header in headers)]
    parts.append((Path(__file__).with_name("mve_rig.c")).read_text())
    prototypes: set[str] = set()
    rows = []
    offset = GUARD
    for number, case in enumerate(cases):
        lowered = _rename(case.lowered, number)
        kept = tuple(item for item in lowered.assembly if item.name not in prototypes)
        prototypes |= {item.name for item in kept}
        parts.append(render_lowered(f"op_{number}", replace(lowered, assembly=kept)))
        for operand, values in enumerate(case.values):
            text = ",".join(map(str, values.ravel().tolist()))
            parts.append(f"static const int8_t x_{number}_{operand}[] = {{{text}}};\n")
        rows.append(_render_row(case, number, offset))
        offset += case.expected.size + 2 * GUARD
    parts.append("static const test_case cases[] = {\n" + "".join(rows) + "};\n")
    parts.append("int32_t edgeprune_model_run(const int8_t *input, int8_t *output, void *arena)\n{\n")
    parts.append(f"    return *input ? run_cases(cases, {len(cases)}, output, arena) : 0;\n}}\n")
    return "\n".join(parts)


def _rename(lowered: Lowered, number: int) -> Lowered:
    """Constants under names that no other case has."""
    names = {constant.name: f"case_{number}_{constant.name}" for constant in lowered.constants}
    fields = {
        key: names.get(value, value) if isinstance(value, str) else value for key, value in lowered.fields.items()
    }
    constants = tuple(replace(constant, name=names[constant.name]) for constant in lowered.constants)
    return replace(lowered, fields=fields, constants=constants)


def _render_row(case: MveCase, number: int, offset: int) -> str:
    graph, op = case.call.graph, case.call.op
    areas = [find_area(tensor.shape) for tensor in case.call.inputs if not tensor.is_constant]
    window = find_row_window(graph, op)
    if window is None or case.rows is None:
        stride, before, size = 0, 0, areas[0].rows
    else:
        stride, before, size = window.stride, window.before, window.size
    total = areas[0].rows if case.is_reduction else case.call.y.rows
    fields = {
        "op": f"&op_{number}",
        "x": f"x_{number}_0",
        "x2": f"x_{number}_1" if len(case.values) > 1 else 0,
        "x_row": areas[0].columns * case.call.x_strides[0],
        "x_rows": areas[0].rows,
        "x2_row": areas[-1].columns * case.call.x_strides[-1],
        "y_offset": offset,
        "y_row": 0 if case.is_reduction else case.call.y.columns * case.call.y_stride,
        "rows": total,
        "rows_per_call": min(case.rows or total, total),
        "window_stride": stride,
        "window_before": before,
        "window_size": size,
        "scratch_bytes": case.lowered.scratch_bytes,
        "state_bytes": case.lowered.state_bytes,
    }
    values = ", ".join(f".{name} = {value}" for name, value in fields.items())
    return f"    {{.function = (kernel_function){case.lowered.function}, {values}}},\n"
