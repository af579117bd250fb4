"""What a firmware will take, modelled: code bytes, instructions, cycles and stack of a scheduled program.

Constants and the parameters of the calls are counted as the linker lays them out, generated assembly instruction by
instruction (`thumb_sizes`). What a compiler makes of C is not known without one: with an anchor, a firmware that was
built and run for the same core, it is what the anchor had; without one it is characters of C times `CALIBRATION`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeprune.codegen.firmware import read_runtime
from edgeprune.codegen.kernel import Assembly
from edgeprune.codegen.schedule import Schedule
from edgeprune.measure.cortex_m import FirmwareSizes
from edgeprune.stages.thumb_sizes import count_thumb_bytes
from edgeprune.target import Target

STREAM_RUNTIME = "ep_stream.c"


@dataclass(frozen=True)
class LayerCost:
    """A layer of a schedule: its kernel and the cycles it was chosen by; measured figures where it was run."""

    name: str
    kernel: str
    estimated_cycles: int
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
class Calibration:
    """Of cores with the same instruction set, means over the reference nets.

    code_per_character: bytes of code for a character of the runtime's C. call_bytes, streamed_call_bytes: code of a
    call in the model's own function. stack_bytes: deepest stack. instructions, cycles: for one cycle of the estimate
    that kernels are chosen by; cycles 0 where there is no cycle model.
    """

    code_per_character: float
    call_bytes: float
    streamed_call_bytes: float
    stack_bytes: int
    instructions: float
    cycles: float


# tools/bench_plan.py --calibrate prints these, from firmware of the reference nets
CALIBRATION: Mapping[str, Calibration] = {
    "cortex-m0plus": Calibration(0.20, 30, 95, 640, 1.45, 2.2),
    "cortex-m3": Calibration(0.20, 30, 95, 640, 1.3, 1.6),
    "cortex-m4": Calibration(0.20, 30, 95, 480, 0.80, 1.0),
    "cortex-m7": Calibration(0.20, 30, 95, 480, 0.80, 0.7),
    "cortex-m33": Calibration(0.20, 30, 95, 480, 0.80, 0.93),
    "cortex-m55": Calibration(0.20, 30, 95, 560, 1.22, 0.0),
}
_LAYER_BYTES = 14  # of the function that stands for a layer


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
    changed = _count_characters(sources - known) - _count_characters(known - sources)
    moved = per_character * changed + calls - _count_call_bytes(anchor.schedule, calibration)
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


def predict_costs(schedule: Schedule, layers: Iterable[LayerCost], target: Target, anchor: Anchor | None) -> Costs:
    """Instructions and cycles: of each layer as the anchor's layer had them for a cycle of the estimate."""
    calibration = CALIBRATION[target.core]
    streamed = schedule.cycles  # with what streaming adds to the kernels' own cycles
    if anchor is None:
        cycles = round(streamed * calibration.cycles) if calibration.cycles else None
        return Costs(round(streamed * calibration.instructions), cycles)
    layers = list(layers)
    own = sum(layer.estimated_cycles for layer in layers)
    theirs = sum(layer.estimated_cycles for layer in anchor.layers.values())
    overhead = (streamed / max(own, 1)) / (anchor.schedule.cycles / max(theirs, 1))
    ratios = _Ratios(anchor)
    rest = anchor.instructions - sum(layer.instructions or 0 for layer in anchor.layers.values())
    instructions = sum(ratios.find(layer).instructions * layer.estimated_cycles for layer in layers)
    cycles = None
    if anchor.cycles is not None:
        outside = anchor.cycles - sum(layer.cycles or 0 for layer in anchor.layers.values())
        cycles = round(sum(ratios.find(layer).cycles * layer.estimated_cycles for layer in layers) * overhead + outside)
    return Costs(round(instructions * overhead + rest), cycles)


@dataclass(frozen=True)
class _Ratio:
    instructions: float
    cycles: float


class _Ratios:
    """Measured figures for an estimated cycle: of the layer, else of all layers of its kernel, else of the program."""

    def __init__(self, anchor: Anchor) -> None:
        self._layers = anchor.layers

    def find(self, layer: LayerCost) -> _Ratio:
        same = self._layers.get(layer.name)
        if same is not None and same.kernel == layer.kernel and same.estimated_cycles:
            return _divide([same])
        alike = [other for other in self._layers.values() if other.kernel == layer.kernel and other.estimated_cycles]
        return _divide(alike or list(self._layers.values()))


def _divide(layers: list[LayerCost]) -> _Ratio:
    estimated = max(1, sum(layer.estimated_cycles for layer in layers))
    return _Ratio(
        sum(layer.instructions or 0 for layer in layers) / estimated,
        sum(layer.cycles or 0 for layer in layers) / estimated,
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
    return sum(len(read_runtime(source)) for source in sources)


def _count_call_bytes(schedule: Schedule, calibration: Calibration) -> float:
    """The model's own functions: a small one for each layer, and the one that calls them."""
    total = 0.0
    for unit in schedule.units:
        each = calibration.call_bytes if unit.segment is None else calibration.streamed_call_bytes
        total += (unit.last - unit.first + 1) * (each + _LAYER_BYTES)
    return total
