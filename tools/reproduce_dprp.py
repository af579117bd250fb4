#!/usr/bin/env python3
"""DPRP (10.1109/ACCESS.2025.3533419): ranks found while training, and what the deployed factors cost.

--images: ResNet-20 from new weights, with DPRP and without, the same recipe: accuracy on validation samples (10 % of
the training samples, watched only), parameters and MACs over epochs, first and last rank of each layer, and at the end
accuracy on the test samples. The paper's 300 epochs of SGD at rate 0.1, 256 images a step, are shortened to --epochs of
64 images a step, the rate falling by a cosine to 0, without augmentation; and by default they are Adam's at 0.01: with
--optimizer sgd --image-rate 0.1 --compression-weight 0.5 the structure loss (mu_orth 1000) ends in NaN in epoch 5.

--series: LITE and the network of InceptionTime on UCR sets: a trained base, DPRP from its weights, and the net deployed
with each layer in the form of fewer MACs and modelled cycles (what `edgeprune compile` does), of fewer MACs alone, with
all layers rebuilt as dense kernels (the paper's way), and with all as factors: accuracy, MACs, and instructions, RAM
and flash of the firmware on an emulated Cortex-M4. Adam, batches of 16; the rate of DPRP's training is --rate, ten
times the base's: singular values have a long way to fall, and these sets make few steps an epoch.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reproduction import DATA, SEEDS, start_clock
from reproduction_jobs import JobProgress, format_mean, format_percent, print_table, run_jobs, write_json
from reproduction_methods import choose_fast_forms, draw_net, make_int8, measure_costs, score_net
from reproduction_page import Figure, make_bars, make_lines, write_page
from torch import fx, nn

from edgeprune.artifacts import Normalization, fit_normalization
from edgeprune.load import load_dataset, split_train
from edgeprune.measure.torch_counts import count_macs
from edgeprune.metrics import score_predictions
from edgeprune.prune import TrainSettings, predict
from edgeprune.prune.bench import Bench
from edgeprune.prune.epoch_figures import Epoch
from edgeprune.prune.hooks import HookChain, TrainingHook
from edgeprune.prune.low_rank import deploy_factors, get_factored
from edgeprune.prune.methods import make_method
from edgeprune.prune.training import TrainResult


@dataclass(frozen=True)
class Job:
    """What one process does: a net ("baseline" or "DPRP" on images; an architecture on a series set), data, seed."""

    net: str
    spec: str
    seed: int
    options: argparse.Namespace


class Watch(TrainingHook):
    """Lets the learning rate fall by a cosine from its first value to 0, and notes accuracy on held-out samples."""

    def __init__(self, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
        self._x, self._y, self._epochs = x, y, epochs
        self.accuracy: list[float] = []

    def begin(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer = module, optimizer
        self._rate = optimizer.param_groups[0]["lr"]

    def end_epoch(self, epoch: Epoch) -> bool:
        self.accuracy.append(score_predictions(self._y, predict(self._module, self._x)).accuracy)
        share = len(self.accuracy) / self._epochs
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * (1 + math.cos(math.pi * share)) / 2
        return False

    def get_figures(self) -> dict[str, float | str]:
        return {"validation": self.accuracy[-1]}

    def get_state(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.accuracy = list(state["accuracy"])

    def describe(self) -> str:
        return f"cosine over {self._epochs} epochs"


@dataclass(frozen=True, eq=False)
class WatchedBench(Bench):
    """A bench whose trainings are watched. curves: epoch by epoch, of every training."""

    curves: list[dict[str, list[float]]] = field(default_factory=list)

    def train(
        self,
        module: fx.GraphModule,
        title: str,
        *,
        recipe: TrainSettings | None = None,
        hook: TrainingHook | None = None,
    ) -> TrainResult[fx.GraphModule]:
        watch = Watch(self.x_val, self.y_val, (recipe or self.recipe).epochs)
        chain = HookChain([hook, watch] if hook else [watch])
        result = super().train(module, title, recipe=recipe, hook=chain)
        self.curves.append(
            {
                "loss": [epoch.loss for epoch in result.history],
                "accuracy": [epoch.accuracy for epoch in result.history],
                "validation_accuracy": watch.accuracy,
                "learning_rate": [epoch.learning_rate for epoch in result.history],
            }
        )
        return result


# images


def run_images(job: Job) -> dict[str, Any]:
    """ResNet-20 with or without DPRP: its curves, and what came of it."""
    elapsed = start_clock()
    options = job.options
    data = load_dataset(job.spec)
    data = data.normalized(fit_normalization("per_channel", data.x_train))
    train, held_out = split_train(data.y_train, fraction=0.1, seed=job.seed)
    recipe = TrainSettings(
        epochs=options.epochs,
        batch_size=64,
        optimizer=options.optimizer,
        learning_rate=options.image_rate,
        weight_decay=1e-4 if options.optimizer == "sgd" else 0.0,
        schedule="none",
        seed=job.seed,
    )
    bench = WatchedBench(
        draw_net("resnet20", data, job.seed, depth=options.depth, widths=tuple(options.widths)),
        data.x_train[train],
        data.y_train[train],
        data.x_train[held_out],
        data.y_train[held_out],
        recipe,
        progress=JobProgress(f"{job.net} {job.seed}"),
        checkpoints=options.checkpoints,
    )
    parameters, macs = count_weights(bench.base), count_macs(bench.base, data.sample_shape).total
    if job.net == "baseline":
        module = bench.train(bench.base, "baseline").module
        record: Mapping[str, Any] = {}
    else:
        weights = {"compression_weight": options.compression_weight, "rank_epsilon": options.rank_epsilon}
        result = make_method("dprp", start="scratch", **weights).run(bench)
        module, record = result.module, result.record
    return {
        "net": job.net,
        "seed": job.seed,
        "test_accuracy": score_predictions(data.y_test, predict(module, data.x_test)).accuracy,
        "parameters_base": parameters,
        "macs_base": macs,
        "parameters": record["rank_history"][-1]["parameters"] if record else parameters,
        "macs": count_macs(module, data.sample_shape).total,
        "curves": bench.curves[0],
        "record": dict(record),
        "seconds": elapsed(),
    }


def report_images(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> list[Figure]:
    """Print the tables; give back the pictures."""
    recipe = f"{options.epochs} epochs of {options.optimizer} at {options.image_rate:g}"
    print(f"DPRP, ResNet-{options.depth}, {Path(options.images).stem}: {recipe}, lambda_comp")
    print(f"{options.compression_weight:g}, epsilon {options.rank_epsilon:g}; parameters as the paper counts them\n")
    table = []
    for row in rows:
        saved, saved_macs = (1 - row[key] / row[f"{key}_base"] for key in ("parameters", "macs"))
        curves = row["curves"]
        table.append(
            [
                f"{row['net']} {row['seed']}",
                f"{row['test_accuracy']:.2%}",
                f"{curves['validation_accuracy'][-1]:.2%}",
                f"{curves['loss'][-1]:.4f}",
                f"{row['parameters']:,} ({-saved:+.2%})",
                f"{row['macs']:,} ({-saved_macs:+.2%})",
                f"{row['seconds']:.0f} s",
            ]
        )
    header = ["net, seed", "test accuracy", "validation", "last loss", "parameters", "MACs deployed", "time"]
    print_table(header, table)
    baselines = {row["seed"]: row for row in rows if row["net"] == "baseline"}
    figures: list[Figure] = []
    for row in rows:
        if row["net"] == "DPRP":
            print_history(row, baselines[row["seed"]], options)
            figures += draw_images(row, baselines[row["seed"]])
    return figures


def print_history(row: Mapping[str, Any], baseline: Mapping[str, Any], options: argparse.Namespace) -> None:
    """A dozen of the epochs, and the ranks of every layer."""
    history, epochs = row["record"]["rank_history"], len(row["record"]["rank_history"]) - 1
    chosen = sorted({0, epochs, *range(1, epochs, max(1, epochs // 10))})
    table = []
    for epoch in chosen:
        figures = [""] * 4
        if epoch:
            figures = [
                f"{run['curves'][key][epoch - 1]:{form}}"
                for key, form in (("loss", ".3f"), ("validation_accuracy", ".1%"))
                for run in (baseline, row)
            ]
        cells = [str(epoch), f"{history[epoch]['parameters']:,}", f"{history[epoch]['macs']:,}"]
        table.append([*cells, str(sum(history[epoch]["ranks"])), *figures])
    print(f"seed {row['seed']}: over epochs (0: factored at full rank, before training)\n")
    header = ["epoch", "parameters", "MACs", "ranks in all"]
    print_table([*header, "loss: baseline", "loss: DPRP", "validation: baseline", "validation: DPRP"], table)
    print_table(
        ["layer", "shape", "full rank", "rank", "form", "MACs dense", "MACs as factors"],
        [format_rank(rank) for rank in row["record"]["ranks"]],
    )


def format_rank(rank: Mapping[str, Any]) -> list[str]:
    """A row of the table of ranks."""
    if "rank" not in rank:
        return [rank["layer"], "", "", "", f"dense: {rank['reason']}", "", ""]
    shape = "x".join(str(size) for size in rank["shape"])
    counts = [f"{rank[key]:,}" for key in ("macs_dense", "macs_factors")]
    return [rank["layer"], shape, str(rank["full_rank"]), str(rank["rank"]), rank["form"], *counts]


def draw_images(row: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[Figure]:
    """Parameters, MACs, loss and accuracy over epochs; first and last rank of each layer."""
    history = row["record"]["rank_history"]
    ranks = [rank for rank in row["record"]["ranks"] if "rank" in rank]
    places = [rank["layer"] for rank in ranks]
    runs = {"DPRP": row["curves"], "baseline": baseline["curves"]}

    def over_epochs(key: str) -> dict[str, list[float]]:
        return {"DPRP": [step[key] for step in history], "baseline": [row[f"{key}_base"]] * len(history)}

    first_and_last = {"first": [rank["full_rank"] for rank in ranks], "last": [rank["rank"] for rank in ranks]}
    accuracy = {name: curves["validation_accuracy"] for name, curves in runs.items()}
    loss = {name: curves["loss"] for name, curves in runs.items()}
    seed = f"seed {row['seed']}"
    return [
        make_lines(f"Parameters over epochs, {seed}", "parameters", over_epochs("parameters")),
        make_lines(f"MACs over epochs, {seed}", "MACs as deployed", over_epochs("macs")),
        make_lines(f"Accuracy over epochs, {seed}", "validation accuracy", accuracy, first=1),
        make_lines(f"Training loss over epochs, {seed} (DPRP: with its terms)", "loss", loss, first=1),
        make_bars(f"Rank of each layer, {seed}", "rank", places, first_and_last),
    ]


# series


def run_series(job: Job) -> dict[str, Any]:
    """A base, DPRP, and the deployed forms."""
    elapsed = start_clock()
    options = job.options
    data = load_dataset(job.spec).normalized(Normalization("per_series"))
    progress = JobProgress(f"{job.net} {data.name} {job.seed}")
    bench = Bench(
        draw_net(job.net, data, job.seed),
        data.x_train,
        data.y_train,
        data.x_train[:0],
        data.y_train[:0],
        TrainSettings(epochs=options.series_epochs, batch_size=16, seed=job.seed),
        progress=progress,
        checkpoints=options.checkpoints,
    )
    base = bench.train(bench.base, "base").module
    bench = replace(bench, base=base, recipe=replace(bench.recipe, learning_rate=options.rate))
    weights = {"compression_weight": options.series_weight, "rank_epsilon": options.rank_epsilon}
    result = make_method("dprp", **weights).run(bench)
    assert result.factored is not None  # of dprp
    names = list(get_factored(result.factored))
    modules = {
        "base": base,
        "DPRP, fewer cycles": deploy_factors(result.factored, choose_fast_forms(result.factored, data.x_train)),
        "DPRP, fewer MACs": result.module,
        "DPRP, all dense": deploy_factors(result.factored, dict.fromkeys(names, "dense")),
        "DPRP, all factors": deploy_factors(result.factored, dict.fromkeys(names, "factors")),
    }
    forms = {}
    for name, module in modules.items():
        graph = make_int8(module, data.x_train)
        scores, int8 = score_net(module, graph, data.x_test, data.y_test)
        costs = asdict(measure_costs(module, graph, data.x_train))
        forms[name] = {"accuracy": scores.accuracy, "int8_accuracy": int8.accuracy, **costs}
        progress.note(f"{name}: {costs['macs']:,} MACs, {costs['instructions']:,} instructions")
    progress.note(f"done in {elapsed():.0f} s")
    return {
        "net": job.net,
        "data": data.name,
        "seed": job.seed,
        "forms": forms,
        "record": dict(result.record),
        "seconds": elapsed(),
    }


def report_series(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """A table for each net and set; the ranks of the first seed."""
    header = ["form", "accuracy, %", "int8, %", "parameters", "MACs", "M4 instructions", "RAM", "flash"]
    for net, data in dict.fromkeys((row["net"], row["data"]) for row in rows):
        own = [row for row in rows if (row["net"], row["data"]) == (net, data)]
        print(f"DPRP, {net}, {data}: mean of {len(own)} seeds; {options.series_epochs} epochs for the base and again")
        print(f"for DPRP, lambda_comp {options.series_weight:g}, epsilon {options.rank_epsilon:g}\n")
        table = []
        for form in own[0]["forms"]:
            figures = [row["forms"][form] for row in own]
            scores = [format_percent([f[key] for f in figures]) for key in ("accuracy", "int8_accuracy")]
            keys = ("parameters", "macs", "instructions", "ram_bytes", "flash_bytes")
            table.append([form, *scores, *(format_mean([f[key] for f in figures]) for key in keys)])
        print_table(header, table)
        print(f"Ranks, seed {own[0]['seed']}\n")
        print_table(
            ["layer", "shape", "full rank", "rank", "form", "MACs dense", "MACs as factors"],
            [format_rank(rank) for rank in own[0]["record"]["ranks"]],
        )


def count_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="images for ResNet-20, as `edgeprune compile --data` takes them")
    parser.add_argument("--series", nargs="*", help=f"UCR sets (default without --images: {DATA.name})")
    parser.add_argument("--epochs", type=int, default=20, help="of ResNet-20 (default 20)")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="of ResNet-20 (default adam)")
    parser.add_argument("--image-rate", type=float, default=0.01, help="its first learning rate (default 0.01)")
    parser.add_argument("--depth", type=int, default=20, help="of the residual net (default 20)")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64], help="of its stages (16 32 64)")
    parser.add_argument("--series-epochs", type=int, default=300, help="of base and DPRP on series (default 300)")
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate of DPRP on series (default 0.01)")
    parser.add_argument("--nets", nargs="+", choices=("lite", "inception"), default=["lite", "inception"])
    parser.add_argument("--compression-weight", type=float, default=0.5, help="lambda_comp on images (default 0.5)")
    parser.add_argument("--series-weight", type=float, default=1.0, help="lambda_comp on series (default 1)")
    parser.add_argument("--rank-epsilon", type=float, default=0.1, help="epsilon of tau (default 0.1)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS[:3]), help="of --series (default three)")
    parser.add_argument("--image-seeds", type=int, nargs="+", default=[SEEDS[0]], help="of --images (default one)")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default 2)")
    parser.add_argument("--checkpoints", type=Path, help="folder of trainings under way, to go on after Ctrl-C")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--page", type=Path, help="write the pictures to this HTML file")
    options = parser.parse_args()
    if options.series is None:
        options.series = [] if options.images else [str(DATA)]
    return options


def main() -> None:
    """Both parts, as far as there is data for them."""
    options = parse_options()
    content: dict[str, Any] = {}
    if options.series:
        jobs = [
            Job(net, spec, seed, options) for net in options.nets for spec in options.series for seed in options.seeds
        ]
        content["series"] = run_jobs(run_series, jobs, options.processes)
        report_series(content["series"], options)
    figures: list[Figure] = []
    if options.images:
        jobs = [Job(net, options.images, seed, options) for seed in options.image_seeds for net in ("baseline", "DPRP")]
        content["images"] = run_jobs(run_images, jobs, options.processes)
        figures = report_images(content["images"], options)
    write_json(options.json, content)
    if options.page and figures:
        write_page(options.page, f"DPRP, ResNet-{options.depth}", figures)


if __name__ == "__main__":
    main()
