"""Single calls of portable kernels on this machine: many cases in one C program, under AddressSanitizer and UBSan.

A `KernelCase` is a program of one op, values, and how it is called: strides wider than the channels, rows in slices
with only the rows of the input in memory that a slice needs, unaligned buffers, in place. Each buffer is an allocation
of its exact size. What a kernel writes beside its output's channels is found too: the gaps hold random bytes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.codegen.kernel import Call, Lowered, find_area
from edgeprune.codegen.kernels import lower_call
from edgeprune.codegen.render import list_headers, render_lowered
from edgeprune.codegen.rows import find_row_window, is_row_reduction
from edgeprune.codegen.upright import stand_up
from edgeprune.graph import Graph
from edgeprune.reference import run_graph
from edgeprune.target import load_target

RUNTIME = Path(__file__).parents[2] / "edgeprune/codegen/runtime"
FLAGS = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
STRIDED = frozenset(  # kinds whose operands may be a part of wider maps (codegen/program.py)
    (
        *("conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d", "mean", "add", "sub", "mul", "concat"),
        *("relu", "relu6", "relu_n1_to_1", "leaky_relu", "prelu", "logistic", "tanh", "elu", "hard_swish", "quantize"),
        *("pad", "transpose", "strided_slice", "softmax"),
    )
)


TARGET = load_target("cortex-m0plus")


@dataclass(frozen=True, eq=False)
class KernelCase:
    """One lowered op and the values of one sample.

    slices: the rows of each call. in_place: 0, or which of x (1) and x2 (2) is the output's memory too. shift: bytes
    off alignment.
    """

    call: Call
    lowered: Lowered
    values: tuple[np.ndarray, ...]
    expected: np.ndarray
    slices: tuple[int, ...]
    in_place: int
    shift: int


def make_cases(graph: Graph, inputs: Mapping[str, np.ndarray], seed: int, name: str) -> list[KernelCase]:
    """The program of one op as a case for each of its calls (a concat has several), everything else drawn."""
    rng = np.random.default_rng(seed)
    upright = stand_up(graph) if rng.random() < 0.8 else graph  # kernels take both
    op = upright.ops[0]
    values = {key: value[:1].reshape(upright.tensors[key].shape) for key, value in inputs.items()}
    output = run_graph(upright, values)[op.outputs[0]]
    activations = [key for key in op.inputs if not upright.tensors[key].is_constant]
    parts = [[key] for key in activations] if op.kind == "concat" else [activations]
    gaps = rng.integers(0, 4, 3) if op.kind in STRIDED and rng.random() < 0.4 else [0, 0, 0]
    if rng.random() < 0.5:
        gaps = [gaps[0]] * 3
    cases = []
    for part, operands in enumerate(parts):
        areas = [find_area(upright.tensors[key].shape) for key in (*operands, op.outputs[0])]
        strides = [area.channels + int(gap) for area, gap in zip(areas, gaps, strict=False)]
        slices = _draw_slices(rng, upright)
        call = Call(f"{name}_{part}", op, upright, TARGET, tuple(strides[:-1]), strides[-1], max(slices), part)
        lowered = lower_call(call, portable=True)
        allowed = [
            index + 1 for index in lowered.in_place if (areas[index], strides[index]) == (areas[-1], strides[-1])
        ]
        in_place = 0
        if allowed and len(slices) == 1 and len(set(operands)) == len(operands) and rng.random() < 0.5:
            in_place = int(rng.choice(allowed))
        own = tuple(values[key] for key in operands)
        cases.append(KernelCase(call, lowered, own, output, slices, in_place, int(rng.integers(0, 4))))
    return cases


def _draw_slices(rng: np.random.Generator, graph: Graph) -> tuple[int, ...]:
    """Rows of each call: all at once, or a few at a time where the op can be streamed."""
    op = graph.ops[0]
    reduces = is_row_reduction(graph, op)
    rows = find_area(graph.tensors[op.inputs[0] if reduces else op.outputs[0]].shape).rows
    if find_row_window(graph, op) is None or rng.random() < 0.4:
        return (rows,)
    slices = []
    while rows > 0:
        slices.append(int(rng.integers(1, min(rows, 5) + 1)))
        rows -= slices[-1]
    return tuple(slices)


@dataclass(frozen=True, eq=False)
class _Order:
    """One call as the C program reads it, and the bytes that y must hold afterwards."""

    header: tuple[int, ...]
    content: bytes
    expected: np.ndarray


def _list_orders(case: KernelCase, number: int, rng: np.random.Generator) -> Iterator[_Order]:
    """The calls of a case, one per slice."""
    graph, op = case.call.graph, case.call.op
    reduces = is_row_reduction(graph, op)
    window = find_row_window(graph, op)
    maps = [_spread(value, stride, rng) for value, stride in zip(case.values, case.call.x_strides, strict=True)]
    y_map = _spread(case.expected, case.call.y_stride, rng)
    first = 0
    for rows in case.slices:
        low, high = 0, len(maps[0])
        if window is not None:
            low, high = window.first_needed(first), window.rows_needed(first + rows, high)
            low = min(low, high)
        x = _cut(maps[0][low:high], case.values[0])
        x2 = np.zeros(0, np.int8)
        if len(maps) > 1:
            whole = len(maps[1]) == 1 or window is None
            x2 = _cut(maps[1] if whole else maps[1][first : first + rows], case.values[1])
        y, expected = _expect(case, y_map, first, rows, reduces, rng)
        if case.in_place == 1:
            y = x
        elif case.in_place == 2:
            y = x2
        if case.in_place:  # gaps keep what the input had there
            mask = _mask_gaps(case, len(expected))
            expected = np.where(mask, y, expected)
        lowered = case.lowered
        sizes = (len(x), len(x2), len(y), lowered.scratch_bytes, lowered.state_bytes)
        header = (number, *sizes, low, first, rows, case.in_place, case.shift)
        yield _Order(header, x.tobytes() + x2.tobytes() + y.tobytes(), expected)
        first += rows


def _spread(values: np.ndarray, stride: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, columns, stride): a map with random bytes in the gaps between its pixels."""
    area = find_area(values.shape)
    wide = rng.integers(-128, 128, (area.rows, area.columns, stride)).astype(np.int8)
    wide[:, :, : area.channels] = values.reshape(area.rows, area.columns, area.channels)
    return wide


def _cut(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The bytes of some rows of a map, without the gap after the last pixel."""
    gap = rows.shape[2] - find_area(values.shape).channels
    flat = rows.reshape(-1)
    return flat[: len(flat) - gap] if len(flat) else flat


def _mask_gaps(case: KernelCase, count: int) -> np.ndarray:
    return np.arange(count) % case.call.y_stride >= find_area(case.expected.shape).channels


def _expect(
    case: KernelCase, y_map: np.ndarray, first: int, rows: int, reduces: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What y holds before and after a call."""
    after = y_map if reduces or len(case.slices) == 1 else y_map[first : first + rows]
    channels = find_area(case.expected.shape).channels
    before = after.copy()
    part: tuple[slice, ...] = (slice(None), slice(None), slice(0, channels))
    offset = 0
    if case.call.op.kind == "concat":
        part, offset = _find_part(case)
    if not reduces or first + rows == sum(case.slices):
        before[part] = rng.integers(-128, 128, before[part].shape).astype(np.int8)
    return _cut(before, case.expected)[offset:], _cut(after, case.expected)[offset:]


def _find_part(case: KernelCase) -> tuple[tuple[slice, ...], int]:
    """Where a concat's operand lies in the output's map; bytes from the map's start to its first value."""
    graph, op = case.call.graph, case.call.op
    shape = case.expected.shape
    axis = {4: (0, 0, 1, 2), 3: (0, 0, 2), 2: (0, 2)}[len(shape)][op.attrs["axis"]]
    sizes = [graph.tensors[name].shape[op.attrs["axis"]] for name in op.inputs]
    begin = sum(sizes[: case.call.part])
    part = [slice(None), slice(None), slice(0, find_area(shape).channels)]
    part[axis] = slice(begin, begin + sizes[case.call.part])
    steps = (find_area(shape).columns * case.call.y_stride, case.call.y_stride, 1)
    return tuple(part), begin * steps[axis]


@dataclass(frozen=True)
class KernelRig:
    """gcc with sanitizers; the runtime is compiled once."""

    folder: Path
    flags: tuple[str, ...] = ()

    def check(self, cases: Sequence[KernelCase], seed: int = 0) -> None:
        """Raise AssertionError where a kernel's bytes differ from the reference's, naming the first such case."""
        rng = np.random.default_rng(seed)
        orders = [order for number, case in enumerate(cases) for order in _list_orders(case, number, rng)]
        program = self._build(cases)
        content = b"".join(np.array(order.header, np.int32).tobytes() + order.content for order in orders)
        done = subprocess.run([str(program)], input=content, capture_output=True, check=False, timeout=120)
        found = np.frombuffer(done.stdout, np.int8)
        position = 0
        for order in orders:
            case = cases[order.header[0]]
            values = found[position : position + len(order.expected)]
            position += len(order.expected)
            assert np.array_equal(values, order.expected), (
                f"{_describe(case)}, order {order.header}: {values[:40]} instead of {order.expected[:40]}; "
                f"{done.stderr.decode()[:3000]}"
            )
        assert done.returncode == 0, done.stderr.decode()[:3000]

    def _build(self, cases: Sequence[KernelCase]) -> Path:
        number = len(list(self.folder.glob("program*")))
        own = self.folder / f"program{number}"
        own.mkdir()
        headers = dict.fromkeys(header for case in cases for header in list_headers(case.lowered))
        lines = ['#include "ep.h"\n', *(f'#include "{header}"\n' for header in headers)]
        for case in cases:
            name = case.call.name
            lines.append(render_lowered(f"op_{name}", case.lowered))
            lines.append(
                f"static void run_{name}(const ep_call *call) {{ {case.lowered.function}(&op_{name}, call); }}\n"
            )
        lines.append("static void (*const run[])(const ep_call *) = {\n")
        lines += [f"    run_{case.call.name},\n" for case in cases]
        (own / "cases.h").write_text("".join([*lines, "};\n"]))
        sources = dict.fromkeys(source for case in cases for source in case.lowered.sources)
        objects = [self._compile(RUNTIME / source, self.folder) for source in sources]
        objects.append(self._compile(Path(__file__).with_suffix(".c"), own, "-O0"))
        program = own / "program"
        self._run_gcc(*map(str, objects), "-o", str(program))
        return program

    def _compile(self, source: Path, folder: Path, *flags: str) -> Path:
        target = folder / f"{source.stem}.o"
        if not target.exists():
            self._run_gcc(*flags, "-I", str(RUNTIME), "-I", str(folder), "-c", str(source), "-o", str(target))
        return target

    def _run_gcc(self, *arguments: str) -> None:
        done = subprocess.run(["gcc", *FLAGS, *self.flags, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _describe(case: KernelCase) -> str:
    shapes = [tensor.shape for tensor in case.call.inputs]
    return (
        f"{case.call.op.kind} {shapes} -> {case.expected.shape}, {dict(case.call.op.attrs)}, "
        f"strides {case.call.x_strides} {case.call.y_stride}, fields {dict(case.lowered.fields)}"
    )
