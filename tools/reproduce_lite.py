#!/usr/bin/env python3
"""DSP on LITE against fixed widths 16/8/4 and against L1 at the same number of parameters, on several UCR sets.

Of each set and seed: a base; DSP (arXiv 2602.12744) with the paper's sparse pretraining of 1500 epochs; LITETime's
static widths, trained from scratch; L1 with the ratio whose number of trainable parameters comes nearest to DSP's
(found by counting, without training), fine-tuned. All trainings but the sparse one stop at --epochs, since they gain
nothing after 400; shortening the sparse one would remove less. Data as the archive splits it, z-normalised per series.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reproduction import DATA, SEEDS, count_parameters, start_clock
from reproduction_jobs import JobProgress, format_mean, format_percent, print_table, run_jobs, write_json
from torch import fx

from edgeprune.artifacts import Normalization
from edgeprune.load import load_dataset, raise_module
from edgeprune.measure.torch_counts import count_macs
from edgeprune.metrics import score_predictions
from edgeprune.models import build_model
from edgeprune.prune import (
    CRITERIA,
    DspSettings,
    TrainSettings,
    find_units,
    predict,
    remove_units,
    run_dsp,
    select_lowest,
    train_model,
)
from edgeprune.prune.bench import Bench
from edgeprune.prune.methods import make_method

RATIO_STEPS = 192  # ratios to look at for L1: any number of channels of a layer with 32, 96 or 64


@dataclass(frozen=True)
class Figures:
    """One form of the net on the test set; parameters count frozen filters too."""

    accuracy: float
    macro_f1: float
    trainable: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Run:
    """One set and seed: form -> figures, in the table's order. l1_ratio: the share of channels that L1 removed."""

    data: str
    seed: int
    test_samples: int
    forms: Mapping[str, Figures]
    l1_ratio: float
    seconds: float


@dataclass(frozen=True)
class Job:
    """A set as `load_dataset` takes it, a seed, and the options."""

    spec: str
    seed: int
    options: argparse.Namespace


def run_job(job: Job) -> Run:
    """All forms of one net; the test samples are looked at once, at the end."""
    elapsed = start_clock()
    data = load_dataset(job.spec).normalized(Normalization("per_series"))
    progress = JobProgress(f"{data.name} {job.seed}")
    torch.manual_seed(job.seed)
    net = build_model("lite", in_channels=data.sample_shape[0], classes=len(data.class_names)).eval()
    module = raise_module(net, torch.zeros(2, *data.sample_shape))
    recipe = TrainSettings(epochs=job.options.epochs, seed=job.seed)
    sparse = replace(recipe, epochs=job.options.sparse_epochs)

    train, none = (data.x_train, data.y_train), (data.x_train[:0], data.y_train[:0])  # nothing held out, as published
    ways = {"progress": progress, "checkpoints": job.options.checkpoints}
    base = train_model(module, *train, recipe, title="base", **ways).module
    forms = {"base": base}
    dsp = run_dsp(base, *train, DspSettings(pretraining=sparse, retraining=recipe), **ways).scratch
    assert dsp is not None  # the settings ask for it
    forms["DSP"] = dsp.module
    bench = Bench(base, *train, *none, recipe, **ways)
    for width in job.options.widths:
        forms[f"static {width}"] = make_method("static", width=width).run(bench).module
    ratio = find_ratio(base, bench.example, count_parameters(dsp.module)[0])
    forms["L1"] = make_method("l1", ratio=ratio).run(bench).module

    figures = {name: measure(form, data.x_test, data.y_test) for name, form in forms.items()}
    progress.note(f"done in {elapsed():.0f} s")
    return Run(data.name, job.seed, len(data.y_test), figures, ratio, elapsed())


def find_ratio(module: fx.GraphModule, example: torch.Tensor, wanted: int) -> float:
    """The ratio at which L1 leaves the number of trainable parameters nearest to `wanted`."""
    units = find_units(module, example)
    scores = CRITERIA["l1"]().score_units(module, units)

    def count(step: int) -> int:
        dead = select_lowest(units, scores, step / RATIO_STEPS)
        return count_parameters(remove_units(module, units, dead))[0]

    low, high = 0, RATIO_STEPS - 1  # counts fall with the ratio: count(low) >= wanted, unless even that is too few
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) >= wanted else (low, middle)
    return min(low, high, key=lambda step: abs(count(step) - wanted)) / RATIO_STEPS


def measure(module: fx.GraphModule, x: np.ndarray, y: np.ndarray) -> Figures:
    """Scores on the test samples, and what the net costs."""
    scores = score_predictions(y, predict(module, x))
    return Figures(scores.accuracy, scores.macro_f1, *count_parameters(module), count_macs(module, x.shape[1:]).total)


def report(runs: Sequence[Run], options: argparse.Namespace) -> None:
    """A table for each set, one over all sets, DSP's wins, ties and losses; JSON if asked for."""
    header = ["form", "accuracy, %", "macro-F1, %", "trainable", "removed", "with frozen", "removed", "MACs"]
    forms = list(runs[0].forms)
    by_set: dict[str, list[Run]] = {}
    for run in runs:
        by_set.setdefault(run.data, []).append(run)
    seeds = len(options.seeds)
    print(f"DSP, static widths and L1 on LITE: mean and standard deviation of {seeds} seeds.")
    print(f"{options.sparse_epochs} epochs of sparse pretraining, {options.epochs} of every other training\n")
    for name, own in by_set.items():
        ratios = ", ".join(f"{run.l1_ratio:.2f}" for run in own)
        print(f"{name}, {own[0].test_samples} test samples; L1 removes {ratios} of the channels of each layer\n")
        print_table(header, [_make_row(form, own) for form in forms])
    if len(by_set) > 1:
        print(f"Mean of {len(by_set)} sets\n")
        print_table(header, [_make_row(form, runs, spread=False) for form in forms])
    for form in forms:
        if form != "DSP":
            print(f"DSP against {form}: {_compare(runs, form)}")
    print(f"\n{sum(run.seconds for run in runs):.0f} s, if run one after another", flush=True)
    content = [{**asdict(run), "forms": {form: asdict(run.forms[form]) for form in forms}} for run in runs]
    write_json(options.json, {"epochs": options.epochs, "sparse_epochs": options.sparse_epochs, "runs": content})


def _make_row(form: str, runs: Sequence[Run], *, spread: bool = True) -> list[str]:
    own = [run.forms[form] for run in runs]
    base = [run.forms["base"] for run in runs]

    def removed(name: str) -> str:
        shares = [1 - getattr(figures, name) / getattr(full, name) for figures, full in zip(own, base, strict=True)]
        return f"{np.mean(shares):.1%}"

    scores: list[Any] = [[figures.accuracy for figures in own], [figures.macro_f1 for figures in own]]
    return [
        form,
        *(format_percent(values if spread else [float(np.mean(values))]) for values in scores),
        format_mean([figures.trainable for figures in own]),
        removed("trainable"),
        format_mean([figures.parameters for figures in own]),
        removed("parameters"),
        format_mean([figures.macs for figures in own]),
    ]


def _compare(runs: Sequence[Run], form: str) -> str:
    """Wins, ties and losses of DSP over all runs, and the mean difference."""
    differences = np.array([run.forms["DSP"].accuracy - run.forms[form].accuracy for run in runs])
    wins, ties, losses = (differences > 0).sum(), (differences == 0).sum(), (differences < 0).sum()
    return f"{wins} wins, {ties} ties, {losses} losses; {100 * differences.mean():+.2f} percentage points on average"


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=[str(DATA)], help="sets, as `edgeprune compile --data` takes them")
    parser.add_argument("--epochs", type=int, default=400, help="of all trainings but the sparse one (default 400)")
    parser.add_argument("--sparse-epochs", type=int, default=1500, help="of DSP's sparse pretraining (default 1500)")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 8, 4], help="static widths (default 16 8 4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS[:3]), help="default: three")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default 2)")
    parser.add_argument("--checkpoints", type=Path, help="folder of trainings under way, to go on after Ctrl-C")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def main() -> None:
    """Run all sets and seeds and print the tables."""
    options = parse_options()
    jobs = [Job(spec, seed, options) for spec in options.data for seed in options.seeds]
    print(f"{len(jobs)} runs", file=sys.stderr, flush=True)
    report(run_jobs(run_job, jobs, options.processes), options)


if __name__ == "__main__":
    main()
