"""What the tables of methods share: a method run at a bench, what the net costs on a Cortex-M4, how well it classifies.

A job trains and keeps its nets in files; nothing here looks at test samples but `score_net`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from reproduction import SEEDS, compute_softmax, count_parameters, start_clock
from torch import fx

from edgeprune.artifacts import Dataset
from edgeprune.codegen import generate_firmware
from edgeprune.executors import ReferenceExecutor, run_on_floats
from edgeprune.export import export_onnx, read_onnx
from edgeprune.graph import Graph
from edgeprune.layout import to_nhwc
from edgeprune.load import raise_module
from edgeprune.lower import legalize
from edgeprune.measure import count_macs
from edgeprune.measure.cortex_m import measure_firmware
from edgeprune.metrics import Scores, score_predictions
from edgeprune.models import build_model
from edgeprune.progress import SILENT
from edgeprune.prune import Bench, make_method, predict
from edgeprune.prune.low_rank import deploy_factors
from edgeprune.quantize import calibrate, quantize_graph
from edgeprune.reference import quantize_values
from edgeprune.stages.factor_forms import choose_forms
from edgeprune.target import load_target

TARGET = "cortex-m4"
CALIBRATION_SAMPLES = 512  # of the training samples, as `edgeprune compile` takes


@dataclass(frozen=True)
class Candidate:
    """A row of the table: its label, a name of `method_table`, and options that differ from that table's defaults.

    recipe: what its trainings do otherwise than all others' (settings of `TrainSettings`).
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Costs:
    """What a net takes. zeros: share of the weights that masks hold at zero, 0 without masks.

    macs: of one inference, of the float net. firmware_macs: those that the firmware computes, fewer where channels of
    the int8 program are the same for every input and left out, more where a batch norm became a layer. instructions,
    flash_bytes, ram_bytes: of the int8 firmware on the emulated chip (method `emulated_instructions`); RAM holds the
    arena, input, output and the deepest stack.
    """

    trainable: int
    parameters: int
    macs: int
    firmware_macs: int
    zeros: float
    instructions: int
    flash_bytes: int
    ram_bytes: int


def draw_net(architecture: str, data: Dataset, seed: int, **options: Any) -> fx.GraphModule:
    """A new net for these samples, raised; its weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build_model(architecture, in_channels=data.sample_shape[0], classes=len(data.class_names), **options)
    return raise_module(net.eval(), torch.zeros(2, *data.sample_shape))


def run_candidate(bench: Bench, candidate: Candidate) -> tuple[fx.GraphModule, dict[str, Any]]:
    """The net to deploy, and how it came about: epochs of all trainings, seconds, share of masked weights.

    "none" gives the bench's base. Every candidate starts from the same base with the same seed and shares its recipe.
    """
    if candidate.method == "none":
        return bench.base, {"epochs": 0, "seconds": 0.0, "zeros": 0.0}
    bench = replace(bench, trainings=[], recipe=replace(bench.recipe, **candidate.recipe))
    elapsed = start_clock()
    result = make_method(candidate.method, **candidate.options).run(bench)
    module = result.module
    if result.factored is not None:
        module = deploy_factors(result.factored, choose_fast_forms(result.factored, bench.x_train))
    masks = result.record.get("masks")
    history = {
        "epochs": sum(training.get("epochs", 0) for training in bench.trainings),
        "seconds": elapsed(),
        "zeros": masks["zeros"] / masks["weights"] if masks else 0.0,
    }
    return module, history


def choose_fast_forms(factored: fx.GraphModule, x_train: np.ndarray) -> Mapping[str, str]:
    """The form of each layer of a low-rank net that `edgeprune compile --target cortex-m4` takes, by its cycles."""
    job = SimpleNamespace(  # as much of a compile's job as the choice reads
        target=load_target(TARGET),
        data=SimpleNamespace(x_train=x_train),
        model=SimpleNamespace(input_shape=x_train.shape[1:]),
        progress=SILENT,
    )
    return choose_forms(cast(Any, job), factored).forms


def make_int8(module: fx.GraphModule, x_train: np.ndarray) -> Graph:
    """The int8 program, calibrated on training samples as `edgeprune compile` does."""
    chosen = np.arange(len(x_train))
    if len(x_train) > CALIBRATION_SAMPLES:
        chosen = np.sort(np.random.default_rng(0).choice(len(x_train), CALIBRATION_SAMPLES, replace=False))
    graph = legalize(read_onnx(export_onnx(module, x_train.shape[1:]), name="net"))
    return quantize_graph(graph, calibrate(graph, to_nhwc(x_train[chosen])))


def measure_costs(module: fx.GraphModule, graph: Graph, x_train: np.ndarray, zeros: float = 0.0) -> Costs:
    """Count the float net and run its int8 program's firmware on one training sample."""
    target = load_target(TARGET)
    quant = graph.tensors[graph.inputs[0]].quant
    assert quant is not None  # an int8 program
    sample = quantize_values(to_nhwc(x_train[:1]), quant)
    firmware = generate_firmware(graph, target)
    measured = measure_firmware(firmware.compiled_files, target, sample.reshape(1, -1))
    if measured.run is None:
        sys.exit(f"error: {measured.unavailable}")
    trainable, parameters = count_parameters(module)
    return Costs(
        trainable,
        parameters,
        count_macs(module, x_train.shape[1:]).total,
        sum(layer.macs for layer in firmware.layers),
        zeros,
        measured.run.costs.instructions,
        measured.flash_bytes,
        measured.ram_bytes or 0,
    )


def score_net(module: fx.GraphModule, graph: Graph, x: np.ndarray, y: np.ndarray) -> tuple[Scores, Scores]:
    """Of the float net and of its int8 program, which the numpy reference runs as TFLite Micro would."""
    (logits,) = run_on_floats(ReferenceExecutor(graph), to_nhwc(x))
    int8 = score_predictions(y, compute_softmax(logits.reshape(len(logits), -1)))
    return score_predictions(y, predict(module, x)), int8


def describe_scores(scores: Scores) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1, "confusion": scores.confusion.tolist()}


def default_seeds(count: int = 3) -> Sequence[int]:
    """The first of the DSP paper's."""
    return SEEDS[:count]
