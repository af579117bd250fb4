"""The compiled model on an ARM Linux device over ssh: times with the method `device`, and what it computed there.

What the device computes is held against this host: the static program against the int8 reference (equal, as firmware
must be), ONNX Runtime and LiteRT int8 against it too (in LSB, reported), their float32 forms against the same runtime
here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import MeasurementUnavailableError
from edgeprune.executors import LiteRTExecutor, OnnxExecutor
from edgeprune.graph import Tensor
from edgeprune.layout import arrange_samples
from edgeprune.measure.linux.device import FORMS, STATIC, DeviceMeasurement, DeviceRun, measure_on_device
from edgeprune.measure.linux.device_address import DeviceAddress
from edgeprune.measure.linux.executable import Executable
from edgeprune.parity import FLOAT_TOLERANCE
from edgeprune.reference.values import quantize_values
from edgeprune.stages.build import Programs
from edgeprune.stages.prepare import Job

FILES = ("model_float32.onnx", "model_int8.onnx", "model_float32.tflite", "model_int8.tflite")
MOST_INPUT_BYTES = 16 * 2**20  # of float32: seconds on a slow network


@dataclass(frozen=True, eq=False)
class DeviceResult:
    """What was measured on the device.

    section: for the report's `device`. latency: rows of the latency table. checks: rows of the parity table.
    latency_us: the median of the static program, which is the `latency` of an ARM Linux target; None where the device
    could not be measured, for the `reason`.
    """

    section: Mapping[str, Any]
    latency: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    latency_us: float | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check["passed"] for check in self.checks)


def measure_device(
    job: Job,
    programs: Programs,
    executables: Mapping[str, Executable],
    expected_outputs: np.ndarray,
    *,
    address: DeviceAddress,
    warmup: int = 20,
    runs: int = 200,
) -> DeviceResult:
    """Run every form on the device, on the first test samples.

    executables: by architecture; the device's own is taken. expected_outputs: int8 (n, output bytes), the reference's
    for the first n test samples, as `run_graph` gives them, outputs side by side.
    Raises MeasurementUnavailableError: device not reached, of another architecture, full, or lost on the way.
    """
    if not executables:
        raise MeasurementUnavailableError(
            f"{address}: no program for the device could be built, so nothing was run there"
        )
    count = min(len(expected_outputs), max(1, MOST_INPUT_BYTES // job.data.x_test[0].nbytes))
    floats = np.ascontiguousarray(job.data.x_test[:count], np.float32)
    expected = np.ascontiguousarray(expected_outputs[:count])
    quant = programs.int8_graph.tensors[programs.int8_graph.inputs[0]].quant
    assert quant is not None  # an int8 program
    inputs = quantize_values(arrange_samples(floats, programs.input_shape), quant)
    files = {name: programs.files[name][1] for name in FILES if name in programs.files}
    measurement = measure_on_device(
        address,
        {name: executable.content for name, executable in executables.items()},
        inputs.reshape(count, -1),
        files,
        float_inputs=floats,
        warmup=warmup,
        runs=runs,
        requires={name: executable.requires for name, executable in executables.items()},
        progress=job.progress,
    )
    static = measurement.static
    assert static.p50_us is not None  # it ran, or there is no measurement
    return DeviceResult(
        section=_describe(job, measurement, count),
        latency=[_describe_row(run, measurement) for run in measurement.runs],
        checks=list(_check_outputs(job, programs, measurement, floats, expected)),
        latency_us=static.p50_us,
    )


def describe_failure(address: DeviceAddress, error: MeasurementUnavailableError) -> DeviceResult:
    """What the report says of a device that could not be measured; its host and user are left out.

    Everything else that was built stays: exit code 6 is the error's, and the caller's to give.
    """
    reason = str(error).removeprefix(f"{address}: ")
    for name in (str(address), address.by_hand, f"{address.user}@{address.host}", address.host):
        reason = reason.replace(name, "the device")
    row = {"name": "static C on the device", "method": "unavailable", "reason": reason}
    return DeviceResult({"kind": "ssh", "reason": reason}, [row], [], None, reason)


def _describe(job: Job, measurement: DeviceMeasurement, samples: int) -> Mapping[str, Any]:
    """The report's section: all but the outputs. It names neither the host nor the user of the device."""
    names = [item.name for item in dataclasses.fields(measurement) if item.name != "outputs"]
    plain = dataclasses.asdict(dataclasses.replace(measurement, outputs={}))
    notes = [*measurement.notes, *_compare_cores(job, measurement)]
    return {**{name: plain[name] for name in names}, "kind": "ssh", "samples": samples, "notes": notes}


def _compare_cores(job: Job, measurement: DeviceMeasurement) -> Iterator[str]:
    """Whether the device is the target that was compiled for."""
    cpu = measurement.facts.cpu or "an unknown core"
    if job.target.family == "cortex-a" and job.target.core not in cpu.lower():
        yield f"the device has {cpu}, the target is {job.target.core}: the times are the device's"


def _describe_row(run: DeviceRun, measurement: DeviceMeasurement) -> Mapping[str, Any]:
    """A row of the latency table, with the keys of `stages.measure`."""
    several = f", {run.threads} threads" if run.threads not in (None, 1) else ""
    name = f"{run.name} on the device{several}"  # of its own: reports are compared row by row
    if run.n is None:
        return {"name": name, "method": "unavailable", "reason": run.reason}
    return {
        **dataclasses.asdict(run),
        "name": name,
        "method": "device",
        "cpu": measurement.facts.cpu or measurement.facts.machine,
        "reason": f"{run.runtime}{several or ', 1 thread'}, {measurement.facts.cpu or measurement.facts.machine}",
    }


def _check_outputs(
    job: Job, programs: Programs, measurement: DeviceMeasurement, floats: np.ndarray, expected: np.ndarray
) -> Iterator[Mapping[str, Any]]:
    """A row of the parity table for each form that ran."""
    what = f"{len(floats)} {job.tested_on}"
    for name, outputs in measurement.outputs.items():
        if name == STATIC:
            yield _check_static(outputs[0], expected, what)
        elif name in ("model_int8.tflite", "model_int8.onnx"):
            yield _check_int8(FORMS[name].name, programs, outputs, expected, what)
        else:
            here = _run_here(programs, name, floats)
            yield _check_float(FORMS[name].name, outputs, here, what)


def _check_static(found: np.ndarray, expected: np.ndarray, what: str) -> Mapping[str, Any]:
    """The same C as a firmware's: every byte must be the reference's."""
    stored = expected.reshape(len(expected), -1).view(np.int8)
    same = found.shape == stored.shape
    different = int((found != stored).sum()) if same else stored.size
    return {
        "name": "static C on the device",
        "what": what,
        "difference": "0 LSB" if different == 0 else f"{different:,} output values differ",
        "limit": "0 LSB",
        "passed": different == 0,
    }


def _check_int8(
    name: str, programs: Programs, outputs: tuple[np.ndarray, ...], expected: np.ndarray, what: str
) -> Mapping[str, Any]:
    """A runtime's own int8 kernels round otherwise than the reference: the difference is reported, as on the host."""
    graph = programs.int8_graph
    count, offset = len(expected), 0
    references: dict[str, np.ndarray] = {}
    for output in dict.fromkeys(graph.outputs):
        size = graph.tensors[output].element_count
        references[output] = expected[:, offset : offset + size]
        offset += size
    largest = different = elements = 0
    for output, found in zip(graph.outputs, outputs, strict=True):
        stored = _to_stored(graph.tensors[output], found).reshape(count, -1)
        distance = np.abs(stored.astype(np.float64) - references[output].astype(np.float64))
        largest = max(largest, int(np.ceil(distance.max(initial=0))))
        different += int((distance > 0).sum())
        elements += distance.size
    share = f", {100 * different / max(elements, 1):.1f} % of outputs" if largest else ""
    return {
        "name": f"{name} on the device",
        "what": what,
        "difference": f"{largest} LSB{share}",
        "limit": "reported",
        "passed": True,
    }


def _to_stored(tensor: Tensor, found: np.ndarray) -> np.ndarray:
    """An output in the program's own type and layout; ONNX has real values, channels first."""
    if found.dtype != np.float32 or tensor.quant is None or tensor.dtype != "int8":
        return found
    if len(tensor.shape) == 4:
        found = np.moveaxis(found, 1, -1).reshape(len(found), *tensor.shape[1:])
    return quantize_values(found, tensor.quant)


def _run_here(programs: Programs, name: str, floats: np.ndarray) -> tuple[np.ndarray, ...]:
    """A float32 form on this host, in the same runtime."""
    content = programs.files[name][1]
    if name.endswith(".onnx"):
        return OnnxExecutor(content).run(floats)
    executor = LiteRTExecutor(content, "xnnpack")
    return executor.run(arrange_samples(floats, executor.input_shapes[0]))


def _check_float(
    name: str, found: tuple[np.ndarray, ...], here: tuple[np.ndarray, ...], what: str
) -> Mapping[str, Any]:
    pairs = [(mine.reshape(other.shape), other) for mine, other in zip(found, here, strict=True)]
    error = max(float(np.abs(mine - other).max()) for mine, other in pairs)
    # float32 sums in another order, as between PyTorch and ONNX Runtime
    limit = FLOAT_TOLERANCE * max(1.0, *(float(np.abs(other).max()) for _, other in pairs))
    return {
        "name": f"{name} on the device, against this host",
        "what": what,
        "difference": f"{error:.1e}",
        "limit": f"{limit:.1e}",
        "passed": error <= limit,  # so that a NaN fails
    }
