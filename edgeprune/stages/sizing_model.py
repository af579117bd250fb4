"""What a firmware will take, modelled: code bytes, instructions, cycles and stack of a scheduled program.

Constants and the parameters of the calls are counted as the linker lays them out, generated assembly instruction by
instruction (`thumb_sizes`). What a compiler makes of C is not known without one: with an anchor, a firmware that was
built and run for the same core, it is what the anchor had; without one it is characters of C times `CALIBRATION`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from edgeprune.codegen.firmware import read_runtime
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.schedule import Schedule
from edgeprune.graph import count_op_macs
from edgeprune.measure.cortex_m import FirmwareSizes
from edgeprune.stages.sizing_calibration import CALIBRATION, Calibration
from edgeprune.stages.thumb_sizes import count_thumb_bytes
from edgeprune.target import Target

STREAM_RUNTIME = "ep_stream.c"
_CALL_INSTRUCTIONS = 12  # of a whole-map call, outside of the layer


@dataclass(frozen=True)
class LayerCost:
    """A layer of a schedule: kind of op, kernel and the cycles it was chosen by; measured figures where it was run.

    outputs: values it computes. positions: pixels of its output.
    """

    name: str
    kind: str
    kernel: str
    estimated_cycles: int
    macs: int
    outputs: int
    positions: int
    instructions: int | None = None
    cycles: int | None = None


@dataclass(frozen=True, eq=False)
class Anchor:
    """A firmware that was built and run: what predictions of similar programs start from.

    layers: by step name. instructions, cycles: of one inference, what runs outside of layers too.
    """

    core: str
    schedule: Schedule
    sizes: FirmwareSizes
    stack_bytes: int
    layers: Mapping[str, LayerCost]
    instructions: int
    cycles: int | None


@dataclass(frozen=True)
class CodeSizes:
    """Bytes of flash: code, and constants with parameters."""

    text: int
    rodata: int

    @property
    def flash_bytes(self) -> int:
        return self.text + self.rodata


@dataclass(frozen=True)
class Costs:
    """Of one inference."""

    instructions: int
    cycles: int | None


def predict_code(schedule: Schedule, target: Target, anchor: Anchor | None) -> CodeSizes:
    """What the linked firmware will have in flash."""
    calibration = CALIBRATION[target.core]
    per_character = calibration.code_per_character
    generated, rodata = _list_assembly(schedule), count_rodata(schedule)
    sources, calls = _list_sources(schedule), _count_call_bytes(schedule, calibration)
    if anchor is None:
        text = sum(count_thumb_bytes(item.text) for item in generated.values())
        return CodeSizes(round(text + per_character * _count_characters(sources) + calls), rodata)
    before = _list_assembly(anchor.schedule)
    built = {symbol.name: symbol.size for symbol in anchor.sizes.symbols if symbol.is_function}
    text = anchor.sizes.text - sum(built.get(name, 0) for name in before)
    text += sum(built.get(name) or count_thumb_bytes(item.text) for name, item in generated.items())
    known = _list_sources(anchor.schedule)
    gone = {name for source in known - sources for name in _list_functions(source)}
    text -= sum(size for name, size in built.items() if name in gone)
    added = per_character * _count_characters(sources - known)
    moved = added + calls - _count_call_bytes(anchor.schedule, calibration)
    return CodeSizes(round(text + moved), anchor.sizes.rodata + rodata - count_rodata(anchor.schedule))


def count_rodata(schedule: Schedule) -> int:
    """Constants, equal ones once, each where its alignment lets it begin; and a word for each parameter of a call."""
    stored: dict[tuple[str, int, bytes], int] = {}
    total = 0
    for item in schedule.lowered.values():
        for constant in item.constants:
            key = constant.c_type, constant.alignment, constant.values.tobytes()
            stored[key] = -(-constant.values.nbytes // max(constant.alignment, 4)) * max(constant.alignment, 4)
        total += 4 * len(item.fields)
    return total + sum(stored.values())


def list_layers(schedule: Schedule) -> tuple[LayerCost, ...]:
    """The layers of a schedule, in order of execution."""
    graph, layers = schedule.program.graph, []
    for step in schedule.program.steps:
        lowered, shape = schedule.lowered[step.name], graph.tensors[step.output].shape
        outputs = graph.tensors[step.output].element_count
        macs = count_op_macs(graph, step.op)
        layers.append(
            LayerCost(step.name, step.op.kind, lowered.kernel, lowered.cycles, macs, outputs, outputs // shape[-1])
        )
    return tuple(layers)


def expect_instructions(layer: LayerCost, core: str) -> float:
    """Of a layer, by its kernel's estimated cycles and the core's calibration."""
    calibration = CALIBRATION[core]
    if layer.kind in ("conv_2d", "fully_connected") and calibration.convolution is not None:
        each = calibration.convolution
        estimated, macs = each.estimated * layer.estimated_cycles, each.macs * layer.macs
        return estimated + macs + each.outputs * layer.outputs + each.positions * layer.positions
    name = f"{layer.kernel} {layer.kind}" if layer.kernel == "portable" else layer.kernel
    return calibration.kernels.get(name, calibration.instructions) * layer.estimated_cycles


def predict_costs(schedule: Schedule, layers: Sequence[LayerCost], target: Target, anchor: Anchor | None) -> Costs:
    """Instructions and cycles: what is expected of each layer, as far off as it was for the anchor's layer."""
    expected = {layer.name: expect_instructions(layer, target.core) for layer in layers}
    calibration = CALIBRATION[target.core]
    if anchor is None:
        own = sum(layer.estimated_cycles for layer in layers)
        instructions = schedule.cycles / max(1, own) * sum(expected.values())
        per_instruction = calibration.convolution is not None
        modelled = calibration.cycles * (instructions if per_instruction else schedule.cycles)
        return Costs(round(instructions), round(modelled) if calibration.cycles else None)
    ratios = {layer.name: _find_ratio(layer, anchor) for layer in layers}
    known = anchor.layers.values()
    outside = anchor.instructions - sum(layer.instructions or 0 for layer in known)
    instructions = sum(ratios[name].instructions * count for name, count in expected.items())
    instructions += _move_outside(outside, schedule, layers, anchor, calibration.instructions)
    if anchor.cycles is None:
        return Costs(round(instructions), None)
    outside = anchor.cycles - sum(layer.cycles or 0 for layer in known)
    cycles = sum(ratios[name].cycles * count for name, count in expected.items())
    each = calibration.cycles * (calibration.instructions if calibration.convolution is not None else 1.0)
    return Costs(round(instructions), round(cycles + _move_outside(outside, schedule, layers, anchor, each)))


def _move_outside(
    outside: int, schedule: Schedule, layers: Sequence[LayerCost], anchor: Anchor, for_a_cycle: float
) -> float:
    """What runs outside of layers, from the anchor's: calls, and rows of streamed maps that move."""
    streaming = _count_streaming(schedule, layers)
    before = _count_streaming(anchor.schedule, list(anchor.layers.values()))
    if before > 0 and streaming > 0:
        return outside * streaming / before
    return outside + for_a_cycle * streaming if before == 0 else _CALL_INSTRUCTIONS * len(layers)


def _count_streaming(schedule: Schedule, layers: Sequence[LayerCost]) -> int:
    """Estimated cycles of streaming, beside the kernels' own."""
    return max(0, schedule.cycles - sum(layer.estimated_cycles for layer in layers)) if schedule.is_streaming else 0


@dataclass(frozen=True)
class _Ratio:
    """Measured for one expected instruction."""

    instructions: float
    cycles: float


def _find_ratio(layer: LayerCost, anchor: Anchor) -> _Ratio:
    """Of the anchor's layer; where it had another kernel, of all its layers with this one, else of the program."""
    same = anchor.layers.get(layer.name)
    if same is not None and same.kernel == layer.kernel and same.estimated_cycles:
        return _divide([same], anchor.core)
    alike = [other for other in anchor.layers.values() if (other.kind, other.kernel) == (layer.kind, layer.kernel)]
    return _divide(alike or list(anchor.layers.values()), anchor.core)


def _divide(layers: Sequence[LayerCost], core: str) -> _Ratio:
    expected = max(1.0, sum(expect_instructions(layer, core) for layer in layers))
    return _Ratio(
        sum(layer.instructions or 0 for layer in layers) / expected,
        sum(layer.cycles or 0 for layer in layers) / expected,
    )


def predict_stack(target: Target, anchor: Anchor | None) -> int:
    """Bytes of the deepest stack: that of the kernels, whatever the width of the layers."""
    return CALIBRATION[target.core].stack_bytes if anchor is None else anchor.stack_bytes


def _list_assembly(schedule: Schedule) -> dict[str, Assembly]:
    return {item.name: item for lowered in schedule.lowered.values() for item in lowered.assembly}


def _list_sources(schedule: Schedule) -> frozenset[str]:
    named = {source for item in schedule.lowered.values() for source in item.sources if source.endswith(".c")}
    return frozenset({*named, STREAM_RUNTIME} if schedule.is_streaming else named)


def _count_characters(sources: Iterable[str]) -> int:
    return sum(map(_count_source_characters, sources))


@cache
def _list_functions(source: str) -> frozenset[str]:
    """The names of the functions that a file of the runtime defines."""
    return frozenset(re.findall(r"^[a-z].*?\b(\w+)\([^;]*$", read_runtime(source), flags=re.MULTILINE))


@cache
def _count_source_characters(source: str) -> int:
    """Of C that a microcontroller's compiler sees: no comments, nothing for the vectors of Cortex-A."""
    text = re.sub(r"/\*.*?\*/", "", read_runtime(source), flags=re.DOTALL)
    count, skipped = 0, 0  # how many #if deep what is left out is
    for line in text.splitlines():
        word = line.split()[0] if line.split() else ""
        if skipped:
            skipped += (word in ("#if", "#ifdef", "#ifndef")) - (word == "#endif")
            if word == "#else" and skipped == 1:
                skipped = 0
        elif word in ("#if", "#ifdef") and "NEON" in line:
            skipped = 1
        else:
            count += len(line)
    return count


def _count_call_bytes(schedule: Schedule, calibration: Calibration) -> float:
    """The model's own functions: a small one for each layer, and the one that calls them."""
    total = 0.0
    for unit in schedule.units:
        each = calibration.call_bytes if unit.segment is None else calibration.streamed_call_bytes
        total += (unit.last - unit.first + 1) * (each + calibration.layer_bytes)
    return total
