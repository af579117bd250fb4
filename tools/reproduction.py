"""What the reproduce_* commands share: forms of one net, their scores, ensembles, seeds side by side, the table."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx, nn

from edgeprune.artifacts import Dataset
from edgeprune.errors import EdgepruneError
from edgeprune.executors import ReferenceExecutor, run_on_floats
from edgeprune.export import export_onnx, read_onnx
from edgeprune.layout import to_nhwc
from edgeprune.metrics import Scores, score_predictions
from edgeprune.progress import Progress
from edgeprune.prune import predict
from edgeprune.quantize import calibrate, quantize_graph

DATA = Path(__file__).resolve().parent.parent / "calibration_data" / "ItalyPowerDemand.npz"
SEEDS = (9409, 3804, 3952, 2561, 5296)  # of the DSP paper's five runs


@dataclass(frozen=True)
class SeedRun:
    """One seed's figures.

    outputs: form -> what it gave for the test samples, softmax (N, classes). trainable, total: parameters before and
    after pruning; total counts frozen ones too.
    """

    seed: int
    outputs: Mapping[str, np.ndarray]
    trainable: tuple[int, int]
    total: tuple[int, int]
    seconds: float
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def removed(self) -> float:
        """Share of trainable parameters removed."""
        return 1 - self.trainable[1] / self.trainable[0]


class SeedProgress(Progress):
    """Notes on standard error, each with its seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def note(self, message: str) -> None:
        print(f"[{self._seed}] {message}", file=sys.stderr, flush=True)


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(trainable, all)."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def compute_softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def run_float(module: fx.GraphModule, data: Dataset) -> np.ndarray:
    """Softmax of the PyTorch program's logits on the test set."""
    return compute_softmax(predict(module, data.x_test))


def run_int8(module: fx.GraphModule, data: Dataset) -> np.ndarray:
    """Softmax on the test set of the int8 program, calibrated on all training samples.

    Run by the numpy reference, which computes what TFLite Micro does.
    """
    graph = read_onnx(export_onnx(module, data.sample_shape), name="net")
    int8_graph = quantize_graph(graph, calibrate(graph, to_nhwc(data.x_train)))
    (logits,) = run_on_floats(ReferenceExecutor(int8_graph), to_nhwc(data.x_test))
    return compute_softmax(logits.reshape(len(logits), -1))


def parse_arguments(description: str, *, epochs: int) -> argparse.Namespace:
    """The options that all reproductions share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default=str(DATA), help="dataset, as `edgeprune compile --data` takes it")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"of each training (default {epochs})")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="one run for each (default: five)")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def run_seeds(run: Callable[[int, argparse.Namespace], SeedRun], arguments: argparse.Namespace) -> list[SeedRun]:
    """One run for each seed, in processes of one thread each: twice the throughput of one process with two threads."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come: torch reads it at import
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(arguments.processes, len(arguments.seeds)), mp_context=context) as pool:
            return list(pool.map(run, arguments.seeds, [arguments] * len(arguments.seeds)))
    except EdgepruneError as error:
        sys.exit(f"error: {error}")


def report_runs(title: str, runs: Sequence[SeedRun], data: Dataset, arguments: argparse.Namespace) -> None:
    """Print the table of all seeds, their mean, and the ensembles of all seeds; write the JSON file if asked to."""
    forms = list(runs[0].outputs)
    labels = data.y_test
    rows: list[tuple[str, str, dict[str, Scores]]] = [
        (str(run.seed), f"{run.removed:.1%}", {form: score_predictions(labels, run.outputs[form]) for form in forms})
        for run in runs
    ]
    ensemble = {form: score_predictions(labels, np.mean([run.outputs[form] for run in runs], axis=0)) for form in forms}
    removed = 1 - sum(run.trainable[1] for run in runs) / sum(run.trainable[0] for run in runs)
    print(f"{title}\n{len(labels)} test samples, {arguments.epochs} epochs; accuracy / macro-F1\n")
    print("| seed | trainable parameters removed | " + " | ".join(forms) + " |")
    print("|" + "---|" * (len(forms) + 2))
    for name, share, scores in rows:
        print(f"| {name} | {share} | " + " | ".join(_format(scores[form]) for form in forms) + " |")
    means = [
        (np.mean([s[form].accuracy for _, _, s in rows]), np.mean([s[form].macro_f1 for _, _, s in rows]))
        for form in forms
    ]
    print(f"| mean | {removed:.1%} | " + " | ".join(f"{a:.4f} / {f:.4f}" for a, f in means) + " |")
    print(
        f"| ensemble of {len(runs)} | {removed:.1%} | " + " | ".join(_format(ensemble[form]) for form in forms) + " |"
    )
    print()
    for run in runs:
        counts = f"{run.trainable[0]:,} -> {run.trainable[1]:,} trainable, {run.total[0]:,} -> {run.total[1]:,} in all"
        notes = "; ".join(f"{key} {value}" for key, value in run.notes.items())
        print(f"seed {run.seed}: {counts}; {run.seconds:.0f} s{'; ' + notes if notes else ''}")
    if arguments.json:
        content = {
            "title": title,
            "data": data.name,
            "data_sha256": data.sha256,
            "epochs": arguments.epochs,
            "seeds": {
                str(run.seed): {
                    "trainable_parameters": list(run.trainable),
                    "parameters": list(run.total),
                    "removed": run.removed,
                    "seconds": round(run.seconds, 1),
                    **run.notes,
                    **{form: _figures(scores[form]) for form in forms},
                }
                for run, (_, _, scores) in zip(runs, rows, strict=True)
            },
            "mean": {form: {"accuracy": a, "macro_f1": f} for form, (a, f) in zip(forms, means, strict=True)},
            "ensemble": {form: _figures(ensemble[form]) for form in forms},
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def start_clock() -> Callable[[], float]:
    """A function that tells the seconds since now."""
    start = time.monotonic()
    return lambda: time.monotonic() - start


def _format(scores: Scores) -> str:
    return f"{scores.accuracy:.4f} / {scores.macro_f1:.4f}"


def _figures(scores: Scores) -> dict[str, Any]:
    return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1, "confusion": scores.confusion.tolist()}
