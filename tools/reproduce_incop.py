#!/usr/bin/env python3
"""InCoP's stop rules on a real image set: epochs and time of iterative pruning, with and without them.

A small residual net and a small VGG on scikit-learn's digits (1,797 images of 8x8 from the UCI archive; 30 % are the
test set), or on --data. Of each net and seed: a trained base, from which go

    sap                  SAP (arXiv 2302.05601): --iterations times prune by the PQ index, --epochs of retraining each
    sap + incop-if, -gf  the same, each retraining ended by the information flow or the gradient flow
    control of either    the same, each retraining as many epochs as InCoP's mean over seeds, rounded
    lth                  iterative magnitude pruning, a fifth of what is left each time, --epochs each

All but the first go on until they have no more weights left than SAP: the PQ index asks for less of weights that were
retrained for less long. One epsilon for each net and rule, the same for all seeds: the one with the fewest epochs whose
accuracy on validation samples (20 % of the training samples) is, on average over seeds, within half a percentage point
of SAP's. The test samples are looked at after that. Recipe of the InCoP paper: SGD, learning rate 0.01, momentum 0.9,
batches of 64. Seconds are CPU seconds of one thread, with what the stop rules compute.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reproduction import SEEDS
from reproduction_jobs import JobProgress, format_mean, format_percent, print_table, run_jobs, write_json
from torch import fx

from edgeprune.artifacts import Dataset, fit_normalization
from edgeprune.errors import InputError
from edgeprune.load import load_dataset, raise_module, split_train
from edgeprune.load.splits import split_by_class
from edgeprune.metrics import score_predictions
from edgeprune.models import build_model
from edgeprune.progress import SILENT
from edgeprune.prune import TrainSettings, predict, train_model
from edgeprune.prune.bench import Bench
from edgeprune.prune.masks import measure_kept
from edgeprune.prune.methods import make_method
from edgeprune.prune.methods.magnitude import Lth, Sap
from edgeprune.prune.schedule import Pruned, Pruner, State, run_schedule

NETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "resnet": ("resnet20", {"depth": 8, "widths": (4, 6, 8)}),
    "vgg": ("vgg", {"plan": ((4, 4), (8, 8), (8, 8))}),
}
RULES = ("incop-if", "incop-gf")
TOLERANCE = 0.005  # of accuracy: within half a percentage point of SAP
EXPECTED_SHARE = 0.35  # of SAP's epochs of retraining
SPARSITY_TOLERANCE = 0.01  # sparsities that differ by more are pointed out
MOST_ITERATIONS = 3  # times --iterations, for those that go on until SAP's sparsity


@dataclass(frozen=True)
class Run:
    """One pruning: net, seed, what ran, CPU seconds, share of weights left, epochs of each retraining, accuracies.

    distances: what a rule looked at after each epoch of each retraining.
    """

    net: str
    seed: int
    name: str
    seconds: float
    weights_left: float
    validation: float
    epochs_of_steps: tuple[int, ...] = ()
    distances: tuple[tuple[float, ...], ...] = ()
    test: float | None = None

    @property
    def epochs(self) -> int:
        """Of all retrainings."""
        return sum(self.epochs_of_steps)


class UntilLeft(Pruner):
    """Another pruner's steps, until no more than a share of the weights is left."""

    def __init__(self, pruner: Pruner, left: float) -> None:
        self._pruner, self._left = pruner, left

    def prune(self, state: State, bench: Bench) -> Pruned | None:
        if measure_kept(state.masks) <= self._left:
            return None
        return self._pruner.prune(state, bench)


@dataclass(frozen=True)
class Choice:
    """What was chosen for one net on validation samples: rule -> epsilon, rule -> epochs of its control's steps."""

    epsilons: Mapping[str, float]
    control_epochs: Mapping[str, int]

    @property
    def names(self) -> set[str]:
        """Of the first phase's runs that are scored on test samples."""
        return {"base", "sap", *(name_rule(rule, epsilon) for rule, epsilon in self.epsilons.items())}


@dataclass(frozen=True)
class Job:
    """One net and seed. folder: where modules are kept until the test samples are looked at.

    choice, tried: of the second phase: what was chosen, and this net's and seed's runs of the first.
    """

    net: str
    seed: int
    options: argparse.Namespace
    folder: Path
    choice: Choice = field(default_factory=lambda: Choice({}, {}))
    tried: tuple[Run, ...] = ()

    def get_path(self, name: str) -> Path:
        return self.folder / f"{self.net}-{self.seed}-{name.replace(' ', '_')}.pt"


def load_images(spec: str | None) -> Dataset:
    """The data set, or scikit-learn's digits; scaled per channel by the training samples."""
    if spec is not None:
        data = load_dataset(spec)
    else:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise InputError("scikit-learn is missing, which brings the digits: install it, or give --data") from None
        digits = load_digits()
        images = (digits.images[:, None] / 16).astype(np.float32)
        train, test = split_by_class(digits.target, 0.3, seed=0)
        names = tuple(str(name) for name in digits.target_names)
        labels = digits.target.astype(np.int64)
        data = Dataset("digits", images[train], labels[train], images[test], labels[test], names, "sklearn digits")
    return data.normalized(fit_normalization("per_channel", data.x_train))


def make_recipe(job: Job) -> TrainSettings:
    """The paper's, at a constant learning rate."""
    return TrainSettings(
        epochs=job.options.base_epochs, optimizer="sgd", learning_rate=0.01, schedule="none", seed=job.seed
    )


def make_bench(job: Job, data: Dataset, base: fx.GraphModule) -> Bench:
    """With a validation split of its own for each seed."""
    train, held_out = split_train(data.y_train, seed=job.seed)
    x, y = data.x_train, data.y_train
    progress = JobProgress(f"{job.net} {job.seed}")
    return Bench(base, x[train], y[train], x[held_out], y[held_out], make_recipe(job), progress=progress)


def try_epsilons(job: Job) -> list[Run]:
    """First phase: the base, SAP with full retraining, and with each rule and epsilon."""
    data = load_images(job.options.data)
    torch.manual_seed(job.seed)
    architecture, options = NETS[job.net]
    net = build_model(architecture, in_channels=data.sample_shape[0], classes=len(data.class_names), **options).eval()
    untrained = make_bench(job, data, raise_module(net, torch.zeros(2, *data.sample_shape)))
    start = time.process_time()
    base = train_model(untrained.base, untrained.x_train, untrained.y_train, untrained.recipe).module
    seconds = time.process_time() - start
    bench = replace(untrained, base=base)
    torch.save(base, job.get_path("base"))
    runs = [Run(job.net, job.seed, "base", seconds, 1.0, bench.score(base))]
    sap = run_schedule_of(job, bench, "sap", make_sap(job), stop="epochs")
    runs.append(sap)
    for rule, epsilons in (("incop-if", job.options.if_epsilons), ("incop-gf", job.options.gf_epsilons)):
        for epsilon in epsilons:
            pruner, name = UntilLeft(make_sap(job), sap.weights_left), name_rule(rule, epsilon)
            runs.append(run_schedule_of(job, bench, name, pruner, stop=rule, epsilon=epsilon))
    return runs


def run_controls(job: Job) -> list[Run]:
    """Second phase: the controls and LTH; then every run's score on the test samples."""
    data = load_images(job.options.data)
    bench = make_bench(job, data, torch.load(job.get_path("base"), weights_only=False))  # written by us a minute ago
    runs = [run for run in job.tried if run.name in job.choice.names]
    left = next(run.weights_left for run in runs if run.name == "sap")
    for rule, epochs in job.choice.control_epochs.items():
        pruner = UntilLeft(make_sap(job), left)
        runs.append(run_schedule_of(job, bench, f"control of {rule}", pruner, stop="epochs", step_epochs=epochs))
    lth = make_method("lth")
    assert isinstance(lth, Lth)
    runs.append(run_schedule_of(job, bench, "lth", UntilLeft(lth.make_pruner(), left), stop="epochs"))
    return [replace(run, test=score_test(job, run, data)) for run in runs]


def make_sap(job: Job) -> Pruner:
    """SAP's steps, each layer by itself."""
    sap = make_method("sap", pq=job.options.pq)
    assert isinstance(sap, Sap)
    return sap.make_pruner()


def run_schedule_of(
    job: Job, bench: Bench, name: str, pruner: Pruner, *, stop: str, epsilon: float = 1.0, step_epochs: int = 0
) -> Run:
    """Prune the bench's base and retrain, step after step; the module is kept in a file."""
    iterations = job.options.iterations * (MOST_ITERATIONS if isinstance(pruner, UntilLeft) else 1)
    step_epochs = step_epochs or job.options.epochs
    quiet = replace(bench, trainings=[], progress=SILENT)
    start = time.process_time()
    result = run_schedule(quiet, pruner, iterations=iterations, step_epochs=step_epochs, stop=stop, epsilon=epsilon)
    seconds = time.process_time() - start
    module = result.state.module
    torch.save(module, job.get_path(name))
    run = Run(
        job.net,
        job.seed,
        name,
        seconds,
        measure_kept(result.state.masks),
        bench.score(module),
        tuple(int(step["epochs"]) for step in result.steps),
        tuple(tuple(step.get("phi", ())) for step in result.steps),
    )
    figures = f"{run.epochs} epochs in {len(result.steps)} steps, {seconds:.0f} s of CPU"
    bench.progress.note(f"{name}: {figures}, {run.weights_left:.1%} of the weights left, {run.validation:.1%}")
    return run


def score_test(job: Job, run: Run, data: Dataset) -> float:
    """Accuracy on the test samples."""
    module = torch.load(job.get_path(run.name), weights_only=False)
    return score_predictions(data.y_test, predict(module, data.x_test)).accuracy


def name_rule(rule: str, epsilon: float) -> str:
    return f"sap + {rule} {epsilon:g}"


def choose(runs: Sequence[Run], options: argparse.Namespace) -> Choice:
    """Of one net: each rule's epsilon, and as many epochs for its control's steps as it took on average, at least 1."""
    grid = {"incop-if": options.if_epsilons, "incop-gf": options.gf_epsilons}
    epsilons = {rule: choose_epsilon(runs, rule, grid[rule]) for rule in RULES}
    control_epochs = {}
    for rule, epsilon in epsilons.items():
        steps = [epochs for run in runs if run.name == name_rule(rule, epsilon) for epochs in run.epochs_of_steps]
        control_epochs[rule] = max(1, round(float(np.mean(steps))))
    return Choice(epsilons, control_epochs)


def choose_epsilon(runs: Sequence[Run], rule: str, epsilons: Sequence[float]) -> float:
    """The epsilon of the fewest epochs with validation accuracy near SAP's; if none is near, the best of them."""
    reference = np.mean([run.validation for run in runs if run.name == "sap"])
    own = {epsilon: [run for run in runs if run.name == name_rule(rule, epsilon)] for epsilon in epsilons}
    scores = {epsilon: np.mean([run.validation for run in found]) for epsilon, found in own.items()}
    near = [epsilon for epsilon in epsilons if scores[epsilon] >= reference - TOLERANCE - 1e-9]
    if not near:
        return max(epsilons, key=lambda epsilon: float(scores[epsilon]))
    return min(near, key=lambda epsilon: sum(run.epochs for run in own[epsilon]))


def report_validation(net: str, runs: Sequence[Run], choice: Choice) -> None:
    """What epsilon was chosen from."""
    chosen = ", ".join(f"{rule} {epsilon:g}" for rule, epsilon in choice.epsilons.items())
    print(f"{net}: epsilons on validation samples, chosen: {chosen}\n")
    names = list(dict.fromkeys(run.name for run in runs if run.name != "base"))
    rows = []
    for name in names:
        own = [run for run in runs if run.name == name]
        rows.append([name, format_percent([run.validation for run in own]), format_mean([run.epochs for run in own])])
    print_table(["", "validation accuracy, %", "epochs"], rows)


def report_test(net: str, runs: Sequence[Run], options: argparse.Namespace) -> None:
    """The table of one net, and what it says about the rules."""
    names = list(dict.fromkeys(run.name for run in runs))
    by_name = {name: [run for run in runs if run.name == name] for name in names}
    full = by_name["sap"]
    rows = []
    for name, own in by_name.items():
        epochs, seconds = np.sum([run.epochs for run in own]), np.sum([run.seconds for run in own])
        pruned = name != "base"
        rows.append(
            [
                name,
                format_percent([run.test or 0.0 for run in own]),
                format_percent([run.validation for run in own]),
                format_percent([1 - run.weights_left for run in own]),
                format_mean([len(run.epochs_of_steps) for run in own], 1),
                format_mean([run.epochs for run in own]),
                f"{epochs / sum(run.epochs for run in full):.0%}" if pruned else "",
                format_mean([run.seconds for run in own], 1),
                f"{seconds / sum(run.seconds for run in full):.0%}" if pruned else "",
            ]
        )
    print(f"{net}: mean and standard deviation of {len(options.seeds)} seeds\n")
    header = ["", "test accuracy, %", "validation, %", "zeros, %", "steps", "epochs", "of SAP's", "CPU s", "of SAP's"]
    print_table(header, rows)
    for rule in RULES:
        print(judge_rule(rule, by_name))
    sparsities = {name: np.mean([run.weights_left for run in own]) for name, own in by_name.items() if name != "base"}
    apart = [name for name, left in sparsities.items() if abs(left - sparsities["sap"]) > SPARSITY_TOLERANCE]
    if apart:
        print(f"Sparsity is more than {SPARSITY_TOLERANCE:.0%} from SAP's: {', '.join(apart)}")
    print(flush=True)


def judge_rule(rule: str, by_name: Mapping[str, Sequence[Run]]) -> str:
    """Whether the rule does what is expected of it: few epochs, SAP's accuracy, better than its control."""

    def mean_test(name: str) -> float:
        return float(np.mean([run.test or 0.0 for run in by_name[name]]))

    name = next(name for name in by_name if name.startswith(f"sap + {rule}"))
    share = sum(run.epochs for run in by_name[name]) / sum(run.epochs for run in by_name["sap"])
    loss = mean_test("sap") - mean_test(name)
    gain = mean_test(name) - mean_test(f"control of {rule}")
    met = {
        f"{share:.1%} of SAP's epochs (expected: at most {EXPECTED_SHARE:.0%})": share <= EXPECTED_SHARE,
        f"{-100 * loss:+.2f} percentage points against SAP (expected: within 0.5)": loss <= TOLERANCE + 1e-9,
        f"{100 * gain:+.2f} against the control (expected: better)": gain > 0,
    }
    return f"{rule}: " + "; ".join(f"{text}: {'yes' if good else 'NO'}" for text, good in met.items())


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="images, as `edgeprune compile --data` takes them (default: digits)")
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS), help="default: both")
    parser.add_argument("--base-epochs", type=int, default=60, help="of the base's training (default 60)")
    parser.add_argument("--iterations", type=int, default=15, help="times to prune (default 15)")
    parser.add_argument("--epochs", type=int, default=20, help="of each retraining, at most (default 20)")
    parser.add_argument("--pq", default="1,2", help="of SAP (default 1,2)")
    parser.add_argument("--if-epsilons", type=float, nargs="+", default=[0.7, 0.8, 0.9], help="to choose from")
    parser.add_argument("--gf-epsilons", type=float, nargs="+", default=[3.0, 10.0, 30.0, 100.0], help="to choose from")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS[:3]), help="default: three")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def main() -> None:
    """Both phases, and the tables."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(net, seed, options, Path(folder)) for net in options.nets for seed in options.seeds]
        print(f"{len(jobs)} runs of the first phase", file=sys.stderr, flush=True)
        first = run_jobs(try_epsilons, jobs, options.processes)
        tried = {net: [run for runs in first for run in runs if run.net == net] for net in options.nets}
        chosen = {net: choose(tried[net], options) for net in options.nets}
        jobs = [replace(job, choice=chosen[job.net], tried=tuple(runs)) for job, runs in zip(jobs, first, strict=True)]
        second = run_jobs(run_controls, jobs, options.processes)
    scored = {net: [run for runs in second for run in runs if run.net == net] for net in options.nets}
    print(
        f"InCoP on {options.data or 'digits'}, (p, q) = ({options.pq}), at most {options.epochs} epochs of retraining\n"
    )
    for net in options.nets:
        report_validation(net, tried[net], chosen[net])
        report_test(net, scored[net], options)
    content = {
        "options": {key: str(value) for key, value in vars(options).items() if key != "json"},
        "chosen": {net: asdict(choice) for net, choice in chosen.items()},
        "tried": {net: [asdict(run) for run in runs] for net, runs in tried.items()},
        "scored": {net: [asdict(run) for run in runs] for net, runs in scored.items()},
    }
    write_json(options.json, content)


if __name__ == "__main__":
    main()
