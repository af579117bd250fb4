"""How long one inference takes on this machine, in ONNX Runtime or LiteRT.

The method of these figures is "host": they say how the forms compare with each other, and nothing of a microcontroller.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgeprune.errors import InputError, MeasurementUnavailableError
from edgeprune.executors import LiteRTExecutor, OnnxExecutor
from edgeprune.layout import arrange_samples
from edgeprune.lower.tflite_schema import FILE_IDENTIFIER
from edgeprune.reference import quantize_values


@dataclass(frozen=True)
class Latency:
    """Times of single inferences, batch 1, inputs already in place, outputs left there.

    method: always "host" here. n: measured runs. *_us: microseconds. runtime: library and version. cpu: the model.
    """

    name: str
    method: str
    n: int
    p50_us: float
    p90_us: float
    min_us: float
    threads: int
    runtime: str
    cpu: str


def measure_host_latency(
    name: str,
    model: bytes,
    sample: np.ndarray,
    *,
    threads: int = 1,
    runs: int = 200,
    warmup: int = 20,
    most_seconds: float = 1.0,
) -> Latency:
    """Time a .tflite (LiteRT with XNNPACK, as on a Cortex-A) or an .onnx file (ONNX Runtime, CPU) on one sample.

    sample: float32 in PyTorch's layout, (C, T) or (C, H, W). runs, warmup: how many, as long as `most_seconds` last; a
    fifth of the time may go to warming up, at least one run of each kind is made.
    Raises InputError or UnsupportedModelError for a model or sample that does not fit.
    """
    if runs < 1 or warmup < 0 or threads < 1:
        raise InputError(f"runs {runs}, warmup {warmup}, threads {threads}: allowed are 1, 0 and 1 at least")
    run, runtime = _prepare(model, np.asarray(sample, np.float32)[None], threads)
    was_collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a run is not the model's time
    try:
        run()  # the first run also plans memory and packs weights
        _time_runs(run, warmup, most_seconds / 5)
        times = np.array(_time_runs(run, runs, most_seconds) or _time_runs(run, 1, np.inf)) / 1e3
    finally:
        if was_collecting:
            gc.enable()
    return Latency(
        name=name,
        method="host",
        n=len(times),
        p50_us=float(np.percentile(times, 50)),
        p90_us=float(np.percentile(times, 90)),
        min_us=float(times.min()),
        threads=threads,
        runtime=runtime,
        cpu=name_cpu(),
    )


def _prepare(model: bytes, batch: np.ndarray, threads: int) -> tuple[Callable[[], object], str]:
    """A call that runs the model once on inputs already in place, and what runs it."""
    if model[4:8] == FILE_IDENTIFIER:
        litert = LiteRTExecutor(model, "xnnpack", threads)
        quant = litert.input_quant[0]
        nhwc = arrange_samples(batch, litert.input_shapes[0])
        call = litert.prepare(nhwc if quant is None else quantize_values(nhwc, quant))
        return call, f"LiteRT {_version('ai-edge-litert')}, XNNPACK"
    return OnnxExecutor(model, threads).prepare(batch), f"ONNX Runtime {_version('onnxruntime')}"


def _time_runs(run: Callable[[], object], count: int, most_seconds: float) -> list[int]:
    """Nanoseconds of `count` runs, of fewer when time is up."""
    times: list[int] = []
    end = time.perf_counter_ns() + most_seconds * 1e9
    while len(times) < count and time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return times


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise MeasurementUnavailableError(f"{package} is not installed: pip install {package}") from error


def name_cpu() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
