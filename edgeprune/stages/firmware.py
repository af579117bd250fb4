"""The firmware of a microcontroller: generated, built, run on the test samples by an emulator, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeprune.cache import Files, pack_array, pack_json, unpack_array, unpack_json
from edgeprune.codegen import Firmware, generate_firmware, render_readme
from edgeprune.doctor import describe_rig
from edgeprune.errors import InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.graph import Graph
from edgeprune.layout import arrange_samples
from edgeprune.measure.cortex_m import FirmwareMeasurement, measure_firmware
from edgeprune.parity import count_affordable_samples
from edgeprune.reference import run_joined
from edgeprune.reference.values import quantize_values
from edgeprune.report import CompileRecord, to_plain
from edgeprune.stages.build import Exported, Programs, quantize_network
from edgeprune.stages.firmware_section import describe_firmware, describe_for_readme
from edgeprune.stages.prepare import Job
from edgeprune.target import describe_target

FOLDER = "firmware"
ELF = "firmware.elf"
GOLDEN_SAMPLES = 2
# of the test samples, as many as an emulator runs in half a minute or so
EMULATED_MACS = 2_000_000_000
# in a cache entry: the report's section and the outputs; the files lie in a folder of their own
_SECTION, _OUTPUTS, _FILES = "section.json", "outputs.npy", "files/"


@dataclass(frozen=True, eq=False)
class FirmwareResult:
    """A firmware and what was seen of it.

    section: of the report; its `measured` is None where the firmware could not be built or run, with the `reason`.
    outputs: int8 (n, output bytes), of the first n test samples. files: path in the output folder -> content.
    """

    section: Mapping[str, Any]
    outputs: np.ndarray
    files: Mapping[str, bytes]

    @property
    def measured(self) -> Mapping[str, Any] | None:
        """What the built firmware takes; figures of a run are None where it was not run."""
        measured: Mapping[str, Any] | None = self.section["measured"]
        return measured

    @property
    def is_run(self) -> bool:
        """Whether an emulator ran it."""
        return self.measured is not None and self.measured["emulator"] is not None


def make_firmware(job: Job, programs: Programs) -> FirmwareResult | None:
    """Generate, build and run the firmware; None for a target that is no microcontroller.

    Raises UnsupportedModelError with layer and way out. A missing compiler or emulator is not raised: it is the reason
    why nothing was measured.
    """
    if not job.target.is_microcontroller:
        return None
    result = _make(job, programs.int8_graph, programs.int8_tflite, quantize_samples(job, programs.int8_graph))
    if result.section["reason"]:
        job.notes.append(f"the firmware was written but NOT run: {result.section['reason']}")
    dead = result.section["dead_channels"]
    if dead:
        job.notes.append(
            f"the firmware leaves out {sum(dead.values()):,} output channels of {len(dead)} layers: what they add "
            "is the same for every input and was folded into the layers that read them; no result changes"
        )
    return result


def measure_base(job: Job, base: Exported | None, programs: Programs) -> Mapping[str, Any] | None:
    """The section of the firmware that the model would have been, as it was given: to compare with.

    None where nothing was pruned, or where there is no firmware. A base that cannot be built is no fault of the
    compile: the section then holds the reason alone.
    """
    if not job.target.is_microcontroller or base is None or base.model == programs.float32_onnx:
        return None
    graph, tflite = quantize_network(job, base, programs.calibration_nhwc)
    try:
        return _make(job, graph, tflite, quantize_samples(job, graph)[:1], title="firmware of the base").section
    except UnsupportedModelError as error:
        return {"measured": None, "layers": [], "reason": str(error)}


def _make(job: Job, graph: Graph, tflite: bytes, samples: np.ndarray, title: str = "firmware") -> FirmwareResult:
    settings = job.settings
    class_names = job.data.class_names if job.is_scored else ()

    def make() -> Files:
        with job.progress.step(title, total=3) as step:
            firmware = generate_firmware(
                graph,
                job.target,
                memory=settings.memory,
                normalization=job.normalization,
                class_names=class_names,
                golden_inputs=samples[:GOLDEN_SAMPLES],
            )
            step.advance()
            expected = run_joined(graph, samples)
            step.advance()
            result = _measure(job, firmware, samples, expected)
            step.advance()
        files = {f"{_FILES}{name}": content for name, content in result.files.items()}
        return {**files, _SECTION: pack_json(to_plain(result.section)), _OUTPUTS: pack_array(result.outputs)}

    inputs = {
        "program": tflite,
        "names": [op.name for op in graph.ops],
        "target": to_plain(describe_target(job.target)),
        "memory": settings.memory,
        "normalization": asdict(job.normalization),
        "class_names": class_names,
        "samples": samples,
        **describe_rig(settings.toolchain, settings.emulator),
    }
    kept = job.cache.reuse("firmware", inputs, make, keeps=lambda files: not unpack_json(files[_SECTION])["reason"])
    return FirmwareResult(
        unpack_json(kept[_SECTION]),
        unpack_array(kept[_OUTPUTS]),
        {name.removeprefix(_FILES): content for name, content in kept.items() if name.startswith(_FILES)},
    )


def _measure(job: Job, firmware: Firmware, samples: np.ndarray, expected: np.ndarray) -> FirmwareResult:
    """Build and run; what is missing for it becomes the section's reason."""
    files = {f"{FOLDER}/{name}": text.encode() for name, text in sorted(firmware.files.items())}
    measurement: FirmwareMeasurement | None = None
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
        reason = str(error)
    else:
        reason = measurement.unavailable
    outputs = expected[:0]
    if measurement is not None and measurement.outputs is not None:
        outputs = measurement.outputs
        files[f"{FOLDER}/README.md"] = render_readme(
            firmware.content, describe_for_readme(firmware, measurement)
        ).encode()
        files[ELF] = measurement.built.elf
    different = int((outputs != expected[: len(outputs)]).sum())
    return FirmwareResult(describe_firmware(firmware, measurement, reason, different), outputs, files)


def quantize_samples(job: Job, graph: Graph) -> np.ndarray:
    """The first test samples as the program's C takes them, int8 (n, H, W, C): half a minute of emulation."""
    count = count_affordable_samples(graph, len(job.data.x_test), EMULATED_MACS)
    tensor = graph.tensors[graph.inputs[0]]
    assert tensor.quant is not None  # an int8 program
    return quantize_values(arrange_samples(job.data.x_test[:count], tensor.shape), tensor.quant)


def check_firmware(result: FirmwareResult, samples: str) -> Mapping[str, Any]:
    """The firmware's row of the parity table. samples: what the inputs are called."""
    measured = result.measured
    assert measured is not None
    different = measured["different"]
    return {
        "name": f"firmware on an emulated {measured['core']} ({measured['emulator']})",
        "what": f"{len(result.outputs)} {samples}",
        "difference": "0 LSB" if different == 0 else f"{different:,} output values differ",
        "limit": "0 LSB",
        "passed": different == 0,
    }


def record_firmware(
    record: CompileRecord, job: Job, result: FirmwareResult | None, base: Mapping[str, Any] | None
) -> None:
    """Note the firmware and the base's, and hold what it computed against the reference among the parity checks."""
    if result is None:
        return
    record.firmware = result.section if base is None else {**result.section, "base": base}
    if result.is_run:
        check = check_firmware(result, job.tested_on)
        passed = bool(record.parity["passed"] and check["passed"])
        record.parity = {**record.parity, "passed": passed, "checks": [*record.parity["checks"], check]}
