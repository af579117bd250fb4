"""The firmware of a microcontroller: generated, built, run on the test samples by an emulator, measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.codegen import Firmware, MeasuredSizes, generate_firmware, render_readme
from edgeprune.errors import InputError, MeasurementUnavailableError
from edgeprune.layout import arrange_samples
from edgeprune.measure.cortex_m import FirmwareMeasurement, measure_firmware
from edgeprune.parity import count_affordable_samples
from edgeprune.reference import run_graph
from edgeprune.reference.values import quantize_values
from edgeprune.report import CompileRecord
from edgeprune.stages.build import Programs
from edgeprune.stages.prepare import Job

FOLDER = "firmware"
ELF = "firmware.elf"
GOLDEN_SAMPLES = 2
# of the test samples, as many as an emulator runs in half a minute or so
EMULATED_MACS = 2_000_000_000


@dataclass(frozen=True, eq=False)
class FirmwareResult:
    """A firmware and what was seen of it.

    measurement: None where it could not be built, without a run where it could not be run, with the `reason`.
    outputs: int8 (n, output bytes), of the first n test samples. different: how many of them are not the reference's.
    """

    firmware: Firmware
    measurement: FirmwareMeasurement | None
    reason: str
    outputs: np.ndarray
    different: int

    @property
    def files(self) -> dict[str, tuple[str, bytes]]:
        """Path in the output folder -> (what it is, content)."""
        files = {f"{FOLDER}/{name}": ("firmware", text.encode()) for name, text in sorted(self.firmware.files.items())}
        if self.measurement is not None and self.measurement.run is not None:
            readme = render_readme(self.firmware.content, _describe_for_readme(self))
            files[f"{FOLDER}/README.md"] = ("firmware", readme.encode())
            files[ELF] = ("firmware as it was run in the emulator (ELF)", self.measurement.built.elf)
        return files


def make_firmware(job: Job, programs: Programs) -> FirmwareResult | None:
    """Generate, build and run the firmware; None for a target that is no microcontroller.

    Raises UnsupportedModelError with layer and way out. A missing compiler or emulator is not raised: it is the reason
    why nothing was measured.
    """
    if not job.target.is_microcontroller:
        return None
    graph = programs.int8_graph
    samples = _quantize_samples(job, programs)
    with job.progress.step("firmware", total=3) as step:
        firmware = generate_firmware(
            graph,
            job.target,
            memory=job.settings.memory,
            normalization=job.normalization,
            class_names=job.data.class_names if job.is_scored else (),
            golden_inputs=samples[:GOLDEN_SAMPLES],
        )
        step.advance()
        expected = _run_reference(programs, samples)
        step.advance()
        result = _measure(job, firmware, samples, expected)
        step.advance()
    if result.reason:
        job.notes.append(f"the firmware was written but NOT run: {result.reason}")
    if firmware.dead_channels:
        count = sum(firmware.dead_channels.values())
        job.notes.append(
            f"the firmware leaves out {count:,} output channels of {len(firmware.dead_channels)} layers: what they add "
            "is the same for every input and was folded into the layers that read them; no result changes"
        )
    return result


def _measure(job: Job, firmware: Firmware, samples: np.ndarray, expected: np.ndarray) -> FirmwareResult:
    """Build and run; what is missing for it becomes the result's reason."""
    try:
        measurement = measure_firmware(
            firmware.compiled_files,
            job.target,
            samples.reshape(len(samples), -1),
            layers=[layer.function for layer in firmware.layers],
            toolchain=job.settings.toolchain,
            emulator=job.settings.emulator,
        )
    except (InputError, MeasurementUnavailableError) as error:  # no compiler, or no package for it
        return FirmwareResult(firmware, None, str(error), expected[:0], 0)
    if measurement.outputs is None:
        return FirmwareResult(firmware, measurement, measurement.unavailable, expected[:0], 0)
    different = int((measurement.outputs != expected).sum())
    return FirmwareResult(firmware, measurement, "", measurement.outputs, different)


def _quantize_samples(job: Job, programs: Programs) -> np.ndarray:
    """The first test samples as the firmware takes them, int8 (n, H, W, C)."""
    graph = programs.int8_graph
    count = count_affordable_samples(graph, len(job.data.x_test), EMULATED_MACS)
    quant = graph.tensors[graph.inputs[0]].quant
    assert quant is not None  # an int8 program
    return quantize_values(arrange_samples(job.data.x_test[:count], programs.input_shape), quant)


def _run_reference(programs: Programs, samples: np.ndarray) -> np.ndarray:
    graph = programs.int8_graph
    results = run_graph(graph, samples)
    return np.concatenate([results[name].reshape(len(samples), -1) for name in dict.fromkeys(graph.outputs)], axis=1)


def check_firmware(result: FirmwareResult, samples: str) -> Mapping[str, Any]:
    """The firmware's row of the parity table. samples: what the inputs are called."""
    assert result.measurement is not None and result.measurement.run is not None  # noqa: PT018  both or neither
    return {
        "name": f"firmware on an emulated {result.measurement.core} ({result.measurement.run.emulator})",
        "what": f"{len(result.outputs)} {samples}",
        "difference": "0 LSB" if result.different == 0 else f"{result.different:,} output values differ",
        "limit": "0 LSB",
        "passed": result.different == 0,
    }


def record_firmware(record: CompileRecord, job: Job, result: FirmwareResult | None) -> None:
    """Note the firmware, and hold what it computed against the reference among the parity checks."""
    if result is None:
        return
    record.firmware = describe_firmware(result)
    if result.measurement is not None and result.measurement.run is not None:
        check = check_firmware(result, job.tested_on)
        passed = bool(record.parity["passed"] and check["passed"])
        record.parity = {**record.parity, "passed": passed, "checks": [*record.parity["checks"], check]}


def describe_firmware(result: FirmwareResult) -> Mapping[str, Any]:
    """The report's section on the firmware."""
    firmware, measurement = result.firmware, result.measurement
    costs = {} if measurement is None else {cost.name: cost for cost in measurement.layers}
    layers = []
    for layer in firmware.layers:
        cost = costs.get(layer.function)
        layers.append(
            {
                **dataclasses.asdict(layer),
                "instructions": None if cost is None else cost.instructions,
                "cycles": None if cost is None else cost.cycles,
            }
        )
    return {
        "mode": firmware.mode,
        "streams": next(choice.streams for choice in firmware.choices if choice.mode == firmware.mode),
        "arena_bytes": firmware.arena_bytes,
        "constant_bytes": firmware.constant_bytes,
        "choices": [dataclasses.asdict(choice) for choice in firmware.choices],
        "dead_channels": dict(firmware.dead_channels),
        "layers": layers,
        "measured": None if measurement is None else _describe_measurement(result, measurement),
        "reason": result.reason,
    }


def _describe_measurement(result: FirmwareResult, measurement: FirmwareMeasurement) -> Mapping[str, Any]:
    """Figures of the built firmware; those of a run are None where there was none."""
    sizes, run, error = measurement.sizes, measurement.run, measurement.cycle_error
    return {
        "core": measurement.core,
        "toolchain": measurement.built.toolchain,
        "flags": list(measurement.built.flags),
        "emulator": None if run is None else run.emulator,
        "samples": len(result.outputs),
        "different": result.different,
        "flash_bytes": measurement.flash_bytes,
        "text": sizes.text,
        "rodata": sizes.rodata,
        "data": sizes.data,
        "bss": sizes.bss,
        "ram_bytes": measurement.ram_bytes,
        "peak_stack_bytes": None if run is None else run.peak_stack_bytes,
        "input_bytes": measurement.buffers.input,
        "output_bytes": measurement.buffers.output,
        "instructions": measurement.instructions,
        "cycles": measurement.cycles,
        "cycle_model": {"status": error.status, "note": error.note},
        "latency_ms": measurement.latency_ms,
    }


def _describe_for_readme(result: FirmwareResult) -> MeasuredSizes:
    measurement = result.measurement
    assert measurement is not None and measurement.run is not None  # noqa: PT018  both or neither
    sizes = measurement.sizes
    rows: list[tuple[str, str]] = [
        ("flash", f"{measurement.flash_bytes:,} bytes"),
        ("RAM", f"{measurement.ram_bytes:,} bytes"),
        ("of it arena", f"{result.firmware.arena_bytes:,} bytes"),
        ("of it peak stack", f"{measurement.run.peak_stack_bytes:,} bytes"),
        ("instructions of one inference", f"{measurement.instructions:,}"),
    ]
    if measurement.cycles is not None:
        rows.append(("modelled cycles", f"{measurement.cycles:,} ({measurement.cycle_error.status})"))
    method = (
        f"Built with {measurement.built.toolchain}, counted in {measurement.run.emulator} on {len(result.outputs)} "
        "inputs. Nothing here was measured on silicon."
    )
    sections = ", ".join(f"{name} {getattr(sizes, name):,}" for name in ("text", "rodata", "data"))
    return MeasuredSizes(method, tuple(rows), sections)
