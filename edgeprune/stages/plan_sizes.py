"""What programs take on microcontrollers, many at once: shared where cores are alike, built while others are searched.

    programs x cores --schedule--> kernels and memory --build, emulate--> figures     what is quick to emulate
                                                      --build, predict--> figures     what is not, from what was

Kernels and memory depend on a core's instruction sets alone, so Cortex-M4, M7 and M33 with DSP share one search; a
build depends on core and FPU, so boards with one chip share it. Only the whole width is searched in full; the others
stream what it streams (`sizing_search`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from threading import Lock
from typing import Any

import numpy as np

from edgeprune.cache import Cache, Files, pack_json, unpack_json
from edgeprune.doctor import describe_rig
from edgeprune.errors import UnsupportedModelError
from edgeprune.graph import Graph
from edgeprune.lower import write_tflite
from edgeprune.measure.cortex_m.unicorn_runner import CPU_MODELS
from edgeprune.progress import Progress
from edgeprune.stages.sizing import (
    Scheduled,
    Sizing,
    build_scheduled,
    measure_scheduled,
    predict_scheduled,
    quantize_sample,
    schedule_program,
)
from edgeprune.stages.sizing_model import expect_instructions
from edgeprune.target import Target

# Instructions of one inference that are emulated: 1 to 3 seconds. QEMU traces each block to count.
MOST_INSTRUCTIONS: Mapping[str, float] = {"unicorn": 60e6, "qemu": 3e6}
_PATIENCE = 4  # times as many where nothing else is quick: something should have been run
_WORKERS = 2
_FILE = "sizing.json"


@dataclass(frozen=True)
class SizingOptions:
    """memory, toolchain, emulator: as in compile."""

    memory: str = "auto"
    toolchain: str = "zig"
    emulator: str = "auto"


def find_core_key(target: Target) -> tuple[Any, ...]:
    """What a linked file depends on: equal for boards with the same core and options."""
    return target.core, target.architecture, target.dsp, target.mve, target.fpu


def find_kernel_key(target: Target) -> tuple[Any, ...]:
    """What the choice of kernels and memory depends on: DSP, Helium, and whether unaligned words can be loaded."""
    return target.dsp, target.mve, target.architecture == "Armv6-M"


def set_clock(sizing: Sizing, target: Target) -> Sizing:
    """The same core's figures on a board with another clock, or none."""
    if sizing.cycles is None or target.clock_hz is None:
        methods = {name: method for name, method in sizing.methods.items() if name != "latency_us"}
        return replace(sizing, latency_us=None, methods=methods)
    methods = {**sizing.methods, "latency_us": sizing.methods["cycles"]}
    return replace(sizing, latency_us=sizing.cycles / target.clock_hz * 1e6, methods=methods)


def size_programs(
    programs: Mapping[int, Graph],
    targets: Sequence[Target],
    samples: np.ndarray,
    options: SizingOptions,
    cache: Cache,
    progress: Progress,
) -> dict[tuple[Any, ...], dict[int, Sizing] | UnsupportedModelError]:
    """Of each core (`find_core_key`) the sizing of each program, by width; or why the core cannot run them.

    programs: by width, the widest first. targets: microcontrollers. samples: (N, C, ...), as they go into the network.
    Latencies are for the clock of one target of each core; `set_clock` makes them another's.
    """
    cores: dict[tuple[Any, ...], Target] = {}
    for target in targets:
        cores.setdefault(find_core_key(target), target)
    content = {str(width): write_tflite(graph) for width, graph in programs.items()}
    schedules = _Schedules(programs, options.memory)

    def size(key: tuple[Any, ...]) -> dict[int, Sizing] | UnsupportedModelError:
        inputs = {
            "programs": content,
            "core": list(key),
            "options": asdict(options),
            **describe_rig(options.toolchain, options.emulator),
            "sample": samples[:1],
        }
        try:
            made = cache.reuse(
                "plan-sizing",
                inputs,
                lambda: _pack(_size_core(programs, cores[key], schedules, samples, options)),
                keeps=_is_complete,
            )
        except UnsupportedModelError as error:
            return error
        finally:
            step.advance()
        return _unpack(made)

    with progress.step("sizing", total=len(cores)) as step, ThreadPoolExecutor(_WORKERS) as pool:
        return dict(zip(cores, pool.map(size, cores), strict=True))


class _Schedules:
    """Kernels and memory of the programs, made once for cores that share them."""

    def __init__(self, programs: Mapping[int, Graph], memory: str) -> None:
        self._programs, self._memory = programs, memory
        self._locks: dict[tuple[Any, ...], Lock] = defaultdict(Lock)
        self._made: dict[tuple[Any, ...], dict[int, Scheduled]] = {}

    def get(self, target: Target) -> dict[int, Scheduled]:
        """By width. Raises UnsupportedModelError where an op has no kernel."""
        key = find_kernel_key(target)
        with self._locks[key]:
            if key not in self._made:
                made: dict[int, Scheduled] = {}
                for width, graph in self._programs.items():
                    like = next(iter(made.values())).schedule if made else None
                    made[width] = schedule_program(graph, target, self._memory, like)
                self._made[key] = made
            return self._made[key]


def _size_core(
    programs: Mapping[int, Graph],
    target: Target,
    schedules: _Schedules,
    samples: np.ndarray,
    options: SizingOptions,
) -> dict[int, Sizing]:
    scheduled = schedules.get(target)
    quick = _find_quick(scheduled, target, options)

    def measure(width: int) -> Sizing:
        if width in quick:
            sample = quantize_sample(programs[width], samples)
            return measure_scheduled(scheduled[width], target, sample, options.toolchain, options.emulator)
        return build_scheduled(scheduled[width], target, options.toolchain)

    with ThreadPoolExecutor(_WORKERS) as pool:
        measured = dict(zip(programs, pool.map(measure, programs), strict=True))
    anchors = [width for width, sizing in measured.items() if sizing.anchor is not None]
    return {
        width: sizing
        if sizing.instructions is not None
        else _complete(sizing, scheduled[width], target, _find_nearest(width, anchors, measured))
        for width, sizing in measured.items()
    }


def _find_quick(scheduled: Mapping[int, Scheduled], target: Target, options: SizingOptions) -> set[int]:
    """The widths to emulate; of a large net the narrowest, from which the others are predicted."""
    uses_qemu = options.emulator == "qemu" or (options.emulator == "auto" and target.core not in CPU_MODELS)
    most = MOST_INSTRUCTIONS["qemu" if uses_qemu else "unicorn"]
    expected = {
        width: sum(expect_instructions(layer, target.core) for layer in item.layers)
        for width, item in scheduled.items()
    }
    quick = {width for width, count in expected.items() if count <= most}
    narrowest = min(expected)
    return quick or ({narrowest} if expected[narrowest] <= _PATIENCE * most else set())


def _find_nearest(width: int, anchors: Sequence[int], measured: Mapping[int, Sizing]) -> Sizing | None:
    nearest = min(anchors, key=lambda anchor: abs(anchor - width), default=None)
    return None if nearest is None else measured[nearest]


def _complete(sizing: Sizing, scheduled: Scheduled, target: Target, anchor: Sizing | None) -> Sizing:
    """Predictions in place of what was not run."""
    predicted = predict_scheduled(scheduled, target, anchor, sizing.flash_bytes)
    return replace(predicted, reason=sizing.reason)


def _is_complete(files: Files) -> bool:
    """Whether no tool was missing: tomorrow it may be there."""
    return not any(row["reason"] for row in unpack_json(files[_FILE]).values())


def _pack(sizings: Mapping[int, Sizing]) -> dict[str, bytes]:
    rows = {
        str(width): {item.name: getattr(sizing, item.name) for item in fields(Sizing) if item.name != "anchor"}
        for width, sizing in sizings.items()
    }
    return {_FILE: pack_json(rows)}


def _unpack(files: Files) -> dict[int, Sizing]:
    return {int(width): Sizing(**row) for width, row in unpack_json(files[_FILE]).items()}
