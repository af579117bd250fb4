"""Runs on the device: a model in ONNX Runtime or LiteRT there, its outputs, and its times by number of threads.

Copied there by device.py and run by the device's Python, which may be old (3.7) and have nothing installed: it is a
script on its own, imports edgeprune nowhere, and installs nothing.

    remote_runtimes.py versions
    remote_runtimes.py run MODEL INPUTS.npy OUTPUTS.npz THREADS WARMUP RUNS SECONDS      THREADS: 1,2,4

`versions` imports no runtime: a wheel built for newer cores dies of an illegal instruction on import, and should do so
in a process of its own. Every line on stdout that begins with '{' is JSON; {"problem": ...} says why there is no more.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
from typing import Any

ONNX_PACKAGES = ("onnxruntime",)
TFLITE_PACKAGES = ("ai_edge_litert", "tflite_runtime")  # the first that is there; the second is LiteRT's old name
_TFLITE_IDENTIFIER = b"TFL3"


class RunError(Exception):
    """Why a model cannot be run here; the text goes into the report."""


def describe_versions() -> dict[str, Any]:
    """The Python and what it has: package -> version, None where it is missing."""
    packages = ("numpy", *ONNX_PACKAGES, *TFLITE_PACKAGES)
    versions = {name: find_version(name) for name in packages}
    return {"python": ".".join(str(part) for part in sys.version_info[:3]), "packages": versions}


def find_version(package: str) -> str | None:
    """The version of a package without importing it; 'unknown' where it does not say."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        from importlib import metadata

        return metadata.version(package.replace("_", "-"))
    except Exception:  # noqa: BLE001  Python 3.7 has no importlib.metadata; a package built by hand says nothing
        return "unknown"


class OnnxModel:
    """An .onnx file in ONNX Runtime's CPU provider."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        self.runtime = "ONNX Runtime " + onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # exact int8 kernels on an x86 without VNNI, as edgeprune.executors asks for on the host; no meaning on Arm
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def run(self, sample: Any) -> list[Any]:
        return self._session.run(None, {self._name: sample})

    def prepare(self, sample: Any) -> Any:
        """A call that runs the model on this sample, already in place."""
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._name, sample)
        for output in self._session.get_outputs():
            binding.bind_output(output.name)
        return lambda: self._session.run_with_iobinding(binding)


class TfliteModel:
    """A .tflite file in LiteRT with its default delegate, XNNPACK."""

    def __init__(self, path: str, threads: int) -> None:
        package = next((name for name in TFLITE_PACKAGES if find_version(name) is not None), None)
        if package is None:
            raise RunError("neither ai_edge_litert nor tflite_runtime is installed")
        interpreter = importlib.import_module(package + ".interpreter").Interpreter
        label = "LiteRT" if package == "ai_edge_litert" else "TFLite"
        self.runtime = f"{label} {find_version(package)}, XNNPACK"
        self._interpreter = interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def run(self, sample: Any) -> list[Any]:
        self._set(sample)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]

    def prepare(self, sample: Any) -> Any:
        """A call that runs the model on this sample, already in place."""
        self._set(sample)
        return self._interpreter.invoke

    def _set(self, sample: Any) -> None:
        # the values stand in the model's order; programs that others made may have axes of size 1 elsewhere
        self._interpreter.set_tensor(self._input["index"], sample.reshape(self._input["shape"]))


def open_model(path: str, threads: int) -> Any:
    """The model in its runtime; the file's content says which."""
    with open(path, "rb") as stream:
        is_tflite = stream.read(8)[4:] == _TFLITE_IDENTIFIER
    return (TfliteModel if is_tflite else OnnxModel)(path, threads)


def run_model(words: list[str]) -> None:
    """Outputs of all samples with one thread, then times for each number of threads; a line of JSON for each."""
    import numpy as np

    path, inputs_path, outputs_path = words[:3]
    threads = [int(word) for word in words[3].split(",")]
    warmup, runs, seconds = int(words[4]), int(words[5]), float(words[6])
    inputs = np.load(inputs_path)
    model = open_model(path, 1)
    rows = [[np.array(output) for output in model.run(inputs[at : at + 1])] for at in range(len(inputs))]
    np.savez(outputs_path, *[np.concatenate(column) for column in zip(*rows)])  # noqa: B905  Python 3.7 has no strict
    tell({"runtime": model.runtime})
    gc.disable()
    for count in threads:
        call = open_model(path, count).prepare(inputs[:1])
        warmed = time_runs(call, warmup, seconds / 5)
        tell({"threads": count, "warmup": len(warmed), "ns": time_runs(call, runs, seconds)})


def time_runs(call: Any, count: int, seconds: float) -> list[int]:
    """Nanoseconds of `count` runs, of fewer (one at least, if any are wanted) when time is up."""
    times: list[int] = []
    end = time.perf_counter() + seconds
    while len(times) < count and (not times or time.perf_counter() < end):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return times


def tell(line: dict[str, Any]) -> None:
    """One line of JSON, at once: what comes after may end the process."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(words: list[str]) -> int:
    """0, or 1 after a line that names the problem."""
    try:
        if words[:1] == ["versions"]:
            tell(describe_versions())
        elif words[:1] == ["run"] and len(words) == 8:
            run_model(words[1:])
        else:
            raise RunError("versions, or run with seven words, is expected")
    except Exception as error:  # noqa: BLE001  whatever a runtime raises is the answer, and goes into the report
        text = (str(error).strip().splitlines() or [""])[0].replace(os.getcwd(), "")
        tell({"problem": text if isinstance(error, RunError) else f"{type(error).__name__}: {text}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
