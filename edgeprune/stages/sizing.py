"""What an int8 program takes on a microcontroller: built and run, or predicted from generated code alone.

    graph = quantize_for_sizing(module, input_shape, samples)
    built = measure_sizing(graph, target, samples)               # compiler and emulator: a second or so
    guess = predict_sizing(narrower, target, anchor=built)       # neither: a tenth of a second

A prediction is made of what is known exactly (constants, the arena) and of what is modelled: code bytes, instructions,
stack. With an anchor, a build of a similar program for the same core, the modelled parts are the anchor's, moved by
what the code generator says has changed; without one they come from `CALIBRATION`, which is coarser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import fx

from edgeprune.codegen.dead_channels import remove_dead_channels
from edgeprune.codegen.emit import LAYER_PREFIX
from edgeprune.codegen.firmware import assemble_files
from edgeprune.codegen.program import INPUT, OUTPUT, make_program
from edgeprune.codegen.schedule import Schedule, Scheduler, make_schedule
from edgeprune.codegen.upright import stand_up
from edgeprune.errors import InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.export import export_onnx, read_onnx
from edgeprune.graph import Graph
from edgeprune.layout import arrange_samples, to_nhwc
from edgeprune.lower import check_supported, legalize
from edgeprune.measure.cortex_m import FirmwareMeasurement, build_elf, measure_firmware, read_elf
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import quantize_values
from edgeprune.stages.sizing_model import Anchor, LayerCost, list_layers, predict_code, predict_costs, predict_stack
from edgeprune.stages.sizing_search import search_alike
from edgeprune.target import Target

# not one of the methods of report.json: a prediction never stands in a report
PREDICTED = "predicted"
FIGURES = ("flash_bytes", "ram_bytes", "instructions", "cycles", "latency_us")
SHORT_PROGRAM = 20  # steps: the whole search for what to stream takes 2 seconds at most
MEASURED: Mapping[str, str] = {
    "flash_bytes": "static",
    "ram_bytes": "emulated_instructions",
    "instructions": "emulated_instructions",
    "cycles": "modelled_cycles",
    "latency_us": "modelled_cycles",
}


@dataclass(frozen=True, eq=False)
class Sizing:
    """What a program takes; a figure that cannot be had is None.

    methods: of each figure that is not None: 'static' (linked file), 'emulated_instructions', 'modelled_cycles' or
        'predicted'. cycles, latency_us: modelled; None for a core without a cycle model, a target without a clock.
    constant_bytes, arena_bytes: exact in both cases. streams: whether maps are computed a few rows at a time.
    anchor: of a measured sizing, what predictions of similar programs start from.
    reason: why a figure is missing.
    """

    flash_bytes: int | None
    ram_bytes: int | None
    instructions: int | None
    cycles: int | None
    latency_us: float | None
    methods: Mapping[str, str]
    constant_bytes: int
    arena_bytes: int
    streams: bool = False
    anchor: Anchor | None = field(default=None, repr=False)
    reason: str = ""


def quantize_for_sizing(module: fx.GraphModule, input_shape: Sequence[int], samples: np.ndarray) -> Graph:
    """A network's int8 program, calibrated on few samples: as large and as fast as the one of a whole calibration.

    input_shape: of one sample, (C, T) or (C, H, W). samples: (N, C, ...), as they go into the network, N >= 1.
    Raises UnsupportedModelError where the network cannot be exported or read.
    """
    return quantize_float_graph(export_float_graph(module, input_shape), samples)


def export_float_graph(module: fx.GraphModule, input_shape: Sequence[int]) -> Graph:
    """A network's float program, as every compile makes it. Raises UnsupportedModelError."""
    return legalize(read_onnx(export_onnx(module, input_shape), input_shape=tuple(input_shape)))


def quantize_float_graph(graph: Graph, samples: np.ndarray) -> Graph:
    """The int8 program of a float one; samples: (N, C, ...), as they go into the network."""
    return quantize_graph(graph, calibrate(graph, to_nhwc(samples)))


def require_supported(graph: Graph, target: Target) -> None:
    """Raise UnsupportedModelError, with layer and way out, for what the target cannot run."""
    violations = check_supported(graph, target)
    if violations:
        raise UnsupportedModelError("; ".join(violation.message for violation in violations))


@dataclass(frozen=True, eq=False)
class Scheduled:
    """A program scheduled for a core, before any C is written."""

    schedule: Schedule
    layers: tuple[LayerCost, ...]
    input_bytes: int
    output_bytes: int

    @property
    def constant_bytes(self) -> int:
        return sum(item.constant_bytes for item in self.schedule.lowered.values())


def schedule_program(graph: Graph, target: Target, memory: str = "auto", like: Schedule | None = None) -> Scheduled:
    """Kernels and memory of an int8 program, as `generate_firmware` chooses them.

    like: of a similar program, such as the same net at another width: for a long program what it streams is tried here
    too, and the search for what to stream, which takes seconds, is left out (`sizing_search`).
    Raises UnsupportedModelError where an op has no kernel.
    """
    program = make_program(stand_up(remove_dead_channels(graph)[0]))
    scheduler = Scheduler(program, target)
    is_long = len(program.steps) > SHORT_PROGRAM
    schedule = search_alike(scheduler, memory, like) if like is not None and is_long else None
    schedule = schedule or make_schedule(scheduler, memory)
    layers = list_layers(schedule)
    return Scheduled(schedule, layers, program.buffer_bytes[INPUT], program.buffer_bytes[OUTPUT])


def predict_sizing(graph: Graph, target: Target, *, memory: str = "auto", anchor: Sizing | None = None) -> Sizing:
    """What a program will take, from generated code alone: no compiler, no emulator.

    anchor: a measured sizing of a similar program (the same net at another width) for the same core and memory mode.
    Without one the search for what to stream may take some seconds, and figures are coarser.
    Raises UnsupportedModelError where an op has no kernel.
    """
    like = None if anchor is None or anchor.anchor is None else anchor.anchor.schedule
    return predict_scheduled(schedule_program(graph, target, memory, like), target, anchor)


def predict_scheduled(
    scheduled: Scheduled, target: Target, anchor: Sizing | None = None, flash_bytes: int | None = None
) -> Sizing:
    """As `predict_sizing`, of a scheduled program. flash_bytes: of its linked file, where it was built."""
    known = None if anchor is None else anchor.anchor
    costs = predict_costs(scheduled.schedule, scheduled.layers, target, known)
    buffers = scheduled.schedule.arena.byte_count + scheduled.input_bytes + scheduled.output_bytes
    methods = dict.fromkeys(FIGURES, PREDICTED)
    if flash_bytes is None:
        flash_bytes = predict_code(scheduled.schedule, target, known).flash_bytes
    else:
        methods["flash_bytes"] = "static"
    return _make_sizing(
        scheduled,
        target,
        flash_bytes=flash_bytes,
        ram_bytes=buffers + predict_stack(target, known),
        instructions=costs.instructions,
        cycles=costs.cycles,
        methods=methods,
    )


def measure_sizing(
    graph: Graph,
    target: Target,
    samples: np.ndarray | None = None,
    *,
    memory: str = "auto",
    toolchain: str = "zig",
    emulator: str = "auto",
) -> Sizing:
    """What a program takes: built, and run on one sample.

    samples: (N, C, ...), as they go into the network, of which the first is run; None: zeros (instructions depend on
    values by a few in a thousand). A missing compiler or emulator is no error: figures are None then, with the reason.
    Raises UnsupportedModelError where an op has no kernel, EdgepruneError where the firmware misbehaves.
    """
    sample = None if samples is None else quantize_sample(graph, samples)
    return measure_scheduled(schedule_program(graph, target, memory), target, sample, toolchain, emulator)


def measure_scheduled(
    scheduled: Scheduled,
    target: Target,
    sample: np.ndarray | None = None,
    toolchain: str = "zig",
    emulator: str = "auto",
) -> Sizing:
    """As `measure_sizing`, of a scheduled program; sample: int8 (1, bytes), as `quantize_sample` has it."""
    sample = np.zeros((1, scheduled.input_bytes), np.int8) if sample is None else sample
    names = [LAYER_PREFIX + layer.name for layer in scheduled.layers]
    try:
        measurement = measure_firmware(
            list_files(scheduled), target, sample, layers=names, toolchain=toolchain, emulator=emulator
        )
    except (InputError, MeasurementUnavailableError) as error:  # no compiler, or no package for it
        return _make_sizing(scheduled, target, reason=str(error))
    return _make_sizing(
        scheduled,
        target,
        flash_bytes=measurement.flash_bytes,
        ram_bytes=measurement.ram_bytes,
        instructions=measurement.instructions,
        cycles=measurement.cycles,
        methods=MEASURED,
        anchor=_make_anchor(scheduled, measurement),
        reason=measurement.unavailable,
    )


def build_scheduled(scheduled: Scheduled, target: Target, toolchain: str = "zig") -> Sizing:
    """What is known of a program that was built and not run: flash. A missing compiler is the reason why it is None."""
    try:
        sizes = read_elf(build_elf(list_files(scheduled), target, toolchain=toolchain).elf).sizes
    except (InputError, MeasurementUnavailableError) as error:
        return _make_sizing(scheduled, target, reason=str(error))
    return _make_sizing(scheduled, target, flash_bytes=sizes.flash_bytes, methods=MEASURED)


def quantize_sample(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """The first of samples (N, C, ...) as the firmware takes it: int8 (1, bytes)."""
    tensor = graph.tensors[graph.inputs[0]]
    assert tensor.quant is not None  # an int8 program
    return quantize_values(arrange_samples(samples[:1], tensor.shape), tensor.quant).reshape(1, -1)


def list_files(scheduled: Scheduled) -> dict[str, str]:
    """The firmware's sources, with a header that has what the emulation rig needs; the rest of it takes no memory."""
    arena_bytes = scheduled.schedule.arena.byte_count
    sizes = {"INPUT": scheduled.input_bytes, "OUTPUT": scheduled.output_bytes, "ARENA": arena_bytes}
    defines = "".join(f"#define EDGEPRUNE_MODEL_{name}_BYTES {value}\n" for name, value in sizes.items())
    declaration = "int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena);\n"
    header = f"#ifndef MODEL_H\n#define MODEL_H\n#include <stdint.h>\n{defines}{declaration}#endif\n"
    return {**assemble_files(scheduled.schedule, ""), "model.h": header}


def _make_sizing(
    scheduled: Scheduled,
    target: Target,
    *,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
    instructions: int | None = None,
    cycles: int | None = None,
    methods: Mapping[str, str] | None = None,
    anchor: Anchor | None = None,
    reason: str = "",
) -> Sizing:
    latency_us = None if cycles is None or target.clock_hz is None else cycles / target.clock_hz * 1e6
    figures = (flash_bytes, ram_bytes, instructions, cycles, latency_us)
    known = {name for name, value in zip(FIGURES, figures, strict=True) if value is not None}
    return Sizing(
        flash_bytes=flash_bytes,
        ram_bytes=ram_bytes,
        instructions=instructions,
        cycles=cycles,
        latency_us=latency_us,
        methods={name: method for name, method in (methods or {}).items() if name in known},
        constant_bytes=scheduled.constant_bytes,
        arena_bytes=scheduled.schedule.arena.byte_count,
        streams=scheduled.schedule.is_streaming,
        anchor=anchor,
        reason=reason,
    )


def _make_anchor(scheduled: Scheduled, measurement: FirmwareMeasurement) -> Anchor | None:
    """What predictions start from; None where nothing was run."""
    if measurement.run is None:
        return None
    costs = {cost.name.removeprefix(LAYER_PREFIX): cost for cost in measurement.layers}
    return Anchor(
        core=measurement.core,
        schedule=scheduled.schedule,
        sizes=measurement.sizes,
        stack_bytes=measurement.run.peak_stack_bytes,
        layers={
            layer.name: replace(layer, instructions=costs[layer.name].instructions, cycles=costs[layer.name].cycles)
            for layer in scheduled.layers
        },
        instructions=measurement.run.costs.instructions,
        cycles=measurement.run.costs.cycles,
    )


__all__ = [
    "FIGURES",
    "MEASURED",
    "PREDICTED",
    "Scheduled",
    "Sizing",
    "build_scheduled",
    "export_float_graph",
    "list_files",
    "measure_scheduled",
    "measure_sizing",
    "predict_scheduled",
    "predict_sizing",
    "quantize_float_graph",
    "quantize_for_sizing",
    "quantize_sample",
    "require_supported",
    "schedule_program",
]
