"""From the final network to all its forms: ONNX, our float and int8 programs, TFLite, QDQ ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from torch import fx

from edgeprune.errors import UnsupportedModelError
from edgeprune.export import export_onnx, read_onnx
from edgeprune.graph import Graph
from edgeprune.layout import to_nhwc
from edgeprune.lower import CONVERTERS, check_supported, legalize, read_tflite, write_tflite
from edgeprune.prune.checkpoint import digest_module
from edgeprune.quantize import calibrate, quantize_graph, write_qdq_onnx
from edgeprune.stages.prepare import Job
from edgeprune.stages.prune import PrunedModel


@dataclass(frozen=True, eq=False)
class Programs:
    """Every form of the compiled model, in memory; the names are those of the files.

    calibration_nhwc: the samples that the ranges were taken from, (N, H, W, C).
    Where the model came as an int8 program, there is nothing but that: the other forms are None.
    """

    int8_graph: Graph
    int8_tflite: bytes
    calibration_nhwc: np.ndarray
    float_graph: Graph | None = None
    float32_onnx: bytes | None = None
    int8_onnx: bytes | None = None
    float32_tflite: bytes | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the int8 program, with a batch of 1."""
        return self.int8_graph.tensors[self.int8_graph.inputs[0]].shape

    @property
    def files(self) -> dict[str, tuple[str, bytes]]:
        """File name -> (what it is, content), of the forms that there are."""
        forms = {
            "model_float32.onnx": ("ONNX, float32", self.float32_onnx),
            "model_int8.onnx": ("ONNX, int8 by QuantizeLinear and DequantizeLinear", self.int8_onnx),
            "model_float32.tflite": ("TFLite, float32", self.float32_tflite),
            "model_int8.tflite": ("TFLite, int8 in and out", self.int8_tflite),
        }
        return {name: (kind, content) for name, (kind, content) in forms.items() if content is not None}


@dataclass(frozen=True, eq=False)
class Exported:
    """A network as an ONNX file and as our float program."""

    model: bytes
    graph: Graph


def survey_base(job: Job) -> Exported:
    """The model as it was given, exported.

    Done before any training: an operation that the target lacks is found now, not after an hour. Raises
    UnsupportedModelError with layer and way out.
    """
    return export_network(job, job.model.module)


def build_programs(job: Job, base: Exported, pruned: PrunedModel) -> Programs:
    """Export, calibrate, quantize and write; raises UnsupportedModelError with layer and way out."""
    exported = base if pruned.module is job.model.module else export_network(job, pruned.module)
    samples = choose_calibration_samples(job)
    int8_graph, int8_tflite = quantize_network(job, exported, samples)
    return Programs(
        float_graph=exported.graph,
        int8_graph=int8_graph,
        float32_onnx=exported.model,
        int8_onnx=write_qdq_onnx(int8_graph, job.model.input_shape).SerializeToString(deterministic=True),
        float32_tflite=write_tflite(exported.graph),
        int8_tflite=int8_tflite,
        calibration_nhwc=samples,
    )


def export_network(job: Job, module: fx.GraphModule | None) -> Exported:
    content = (job.model.onnx_bytes or b"") if module is None else _export_module(job, module)
    graph = legalize(read_onnx(onnx.load_model_from_string(content), input_shape=job.model.input_shape))
    violations = check_supported(graph, job.target)
    if violations:
        raise UnsupportedModelError("; ".join(violation.message for violation in violations))
    return Exported(content, graph)


def _export_module(job: Job, module: fx.GraphModule) -> bytes:
    """The module's ONNX file."""

    def make() -> dict[str, bytes]:
        with job.progress.step("export to ONNX") as step:
            model = export_onnx(module, job.model.input_shape)
            step.advance()
        return {"model.onnx": model.SerializeToString(deterministic=True)}

    inputs = {"module": digest_module(module), "input_shape": job.model.input_shape}
    return job.cache.reuse("export", inputs, make)["model.onnx"]


def choose_calibration_samples(job: Job) -> np.ndarray:
    """Training samples, all or a seeded draw: (N, H, W, C)."""
    samples = job.data.x_train
    wanted = job.settings.calibration_samples
    if len(samples) > wanted:
        chosen = np.sort(np.random.default_rng(job.settings.seed).choice(len(samples), wanted, replace=False))
        samples = samples[chosen]
    return to_nhwc(samples)


def calibrate_network(job: Job, exported: Exported, samples: np.ndarray) -> dict[str, tuple[float, float]]:
    """The range of every activation; samples: (N, H, W, C)."""
    observer = job.settings.observer
    found = job.cache.reuse_json(
        "calibrate",
        {"model": exported.model, "samples": samples, "observer": observer},
        lambda: calibrate(exported.graph, samples, observer, job.progress),
    )
    return {name: (low, high) for name, (low, high) in found.items()}


def quantize_network(job: Job, exported: Exported, samples: np.ndarray) -> tuple[Graph, bytes]:
    """The int8 program and its TFLite file, by the converter that the settings name; samples: (N, H, W, C)."""
    converter = job.settings.converter
    if converter == "edgeprune":
        int8_graph = quantize_graph(exported.graph, calibrate_network(job, exported, samples))
        return int8_graph, write_tflite(int8_graph)

    def convert() -> dict[str, bytes]:
        with job.progress.step(f"convert with {converter}") as step:
            content = CONVERTERS[converter](exported.graph, samples)
            step.advance()
        return {"model.tflite": content}

    inputs = {"model": exported.model, "samples": samples, "converter": converter}
    int8_tflite = job.cache.reuse("convert", inputs, convert)["model.tflite"]
    # everything after this speaks of the file that was made, so its own scales are read back
    return read_tflite(int8_tflite), int8_tflite
