"""A model's firmware built, run and measured: one call for the pipeline and the bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.errors import InputError, MeasurementUnavailableError
from edgeprune.measure.cortex_m.costs import Cost
from edgeprune.measure.cortex_m.cycle_validation import CYCLE_MODEL_ERROR, CycleModelError
from edgeprune.measure.cortex_m.elf import FirmwareSizes, read_elf
from edgeprune.measure.cortex_m.emulated import BufferSizes, EmulatedRun, read_buffer_sizes
from edgeprune.measure.cortex_m.qemu_runner import run_qemu
from edgeprune.measure.cortex_m.toolchain import BuiltFirmware, build_elf
from edgeprune.measure.cortex_m.unicorn_runner import CPU_MODELS, run_unicorn
from edgeprune.target import Target

EMULATORS = ("auto", "unicorn", "qemu")
METHOD = "modelled_cycles"


@dataclass(frozen=True, eq=False)
class FirmwareMeasurement:
    """What a firmware takes and what it answers.

    sizes: the model's code and constants in flash, its variables. buffers: input, output, arena.
    run: what the emulator saw; None where it could not run, and then `unavailable` says why.
    latency_ms: modelled cycles at the target's clock; None without a clock or a cycle model. cycle_error: how far the
    model is from silicon.
    """

    target: str
    core: str
    built: BuiltFirmware
    sizes: FirmwareSizes
    buffers: BufferSizes
    run: EmulatedRun | None
    latency_ms: float | None
    cycle_error: CycleModelError
    method: str = METHOD
    unavailable: str = ""

    @property
    def flash_bytes(self) -> int:
        return self.sizes.flash_bytes

    @property
    def ram_bytes(self) -> int | None:
        """Arena, variables, the deepest stack, input and output."""
        if self.run is None:
            return None
        buffers = self.buffers.arena + self.buffers.input + self.buffers.output
        return buffers + self.sizes.data + self.sizes.bss + self.run.peak_stack_bytes

    @property
    def instructions(self) -> int | None:
        """Of the first inference, exact."""
        return None if self.run is None else self.run.costs.instructions

    @property
    def cycles(self) -> int | None:
        """Modelled, of the first inference."""
        return None if self.run is None else self.run.costs.cycles

    @property
    def layers(self) -> tuple[Cost, ...]:
        return () if self.run is None else self.run.costs.layers

    @property
    def outputs(self) -> np.ndarray | None:
        """int8 (n, output_bytes)."""
        return None if self.run is None else self.run.outputs


def measure_firmware(
    sources: Mapping[str, str | bytes],
    target: Target,
    inputs: np.ndarray,
    *,
    layers: Sequence[str] = (),
    toolchain: str = "zig",
    emulator: str = "auto",
    optimize: str = "-Os",
) -> FirmwareMeasurement:
    """Build a firmware, run it on all inputs and measure it.

    sources: see `build_elf`. inputs: int8 (n, ...), n >= 1. layers: the C functions that stand for a layer.
    emulator: 'unicorn', 'qemu', or 'auto': Unicorn, and QEMU for cores that it lacks (Cortex-M55).
    A missing emulator is no error: `run` is None then and `unavailable` says what to install.
    Raises what `build_elf` raises, and EdgepruneError where the firmware misbehaves.
    """
    if emulator not in EMULATORS:
        raise InputError(f"emulator {emulator!r} is not known; allowed: {', '.join(EMULATORS)}")
    built = build_elf(sources, target, toolchain=toolchain, optimize=optimize)
    image = read_elf(built.elf)
    run: EmulatedRun | None = None
    unavailable = ""
    use_unicorn = emulator == "unicorn" or (emulator == "auto" and target.core in CPU_MODELS)
    try:
        runner = run_unicorn if use_unicorn else run_qemu
        run = runner(built, target, inputs, layers=layers)
    except MeasurementUnavailableError as error:
        unavailable = str(error)
    cycles = None if run is None else run.costs.cycles
    return FirmwareMeasurement(
        target=target.name,
        core=target.core,
        built=built,
        sizes=image.sizes,
        buffers=read_buffer_sizes(image),
        run=run,
        latency_ms=None if cycles is None or target.clock_hz is None else cycles / target.clock_hz * 1e3,
        cycle_error=CYCLE_MODEL_ERROR[target.core],
        unavailable=unavailable,
    )
