#!/usr/bin/env python3
"""Every pruning method of `edgeprune methods` on one data set and net, down to instructions of a Cortex-M4.

By default LITE on ItalyPowerDemand, which the repository brings: a net with long kernels, depthwise layers and frozen
filters. One base for each seed; each method goes from this base with the same recipe (--epochs of Adam, as in the DSP
paper; 67 training samples leave none for validation) and its own defaults, but for what OPTIONS below says. Batches of
16, for as many steps as the sparse trainings need. Accuracy is of the int8 program on the test samples, as the firmware
computes it; nothing was chosen by it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reproduction import DATA, start_clock
from reproduction_jobs import JobProgress, format_mean, format_percent, print_table, run_jobs, write_json
from reproduction_methods import (
    Candidate,
    default_seeds,
    describe_scores,
    draw_net,
    make_int8,
    measure_costs,
    run_candidate,
    score_net,
)

from edgeprune.artifacts import Dataset, Normalization, fit_normalization
from edgeprune.load import load_dataset
from edgeprune.method_table import METHODS
from edgeprune.models import ARCHITECTURES
from edgeprune.prune import Bench, TrainSettings

# DSP's penalty is a sum over the batch: four times the paper's weight for a quarter of its batch.
OPTIONS: Mapping[str, Mapping[str, Any]] = {"dsp": {"sparsity_weight": 4e-5}}
# DPRP's recipe of `edgeprune methods`, 1000 epochs of two steps, in steps of this table.
RECIPES: Mapping[str, Mapping[str, Any]] = {"dprp": {"epochs": 500, "learning_rate": 0.01}}
QUICK: Mapping[str, Mapping[str, Any]] = {
    "static": {"width": 2},
    "taylor": {"step": 0.4, "step_epochs": 1},
    "lth": {"iterations": 2, "step_epochs": 1},
    "sap": {"iterations": 2, "step_epochs": 1},
}
QUICK_NETS: Mapping[str, Mapping[str, Any]] = {"lite": {"filters": 4}, "eegcnn": {"widths": (4, 4, 6)}}
STRENGTHS = ("ratio", "width", "sparsity_weight", "step", "pq", "compression_weight")  # worth showing in the table


@dataclass(frozen=True)
class Job:
    """One seed."""

    seed: int
    options: argparse.Namespace


def load_scaled(options: argparse.Namespace) -> Dataset:
    """Series z-normalised each, as the UCR archive has them; images scaled per channel by the training samples."""
    data = load_dataset(options.data)
    if len(data.sample_shape) == 2:
        return data.normalized(Normalization("per_series"))
    return data.normalized(fit_normalization("per_channel", data.x_train))


def list_candidates(options: argparse.Namespace) -> list[Candidate]:
    """One for each method, "none" first."""
    names = [name for name in ("none", *METHODS) if not options.methods or name in options.methods]
    candidates = []
    for name in dict.fromkeys(names):
        changes = {**OPTIONS.get(name, {}), **(QUICK.get(name, {}) if options.quick else {})}
        settings = {**METHODS[name].defaults, **changes}
        shown = [f"{key.replace('_', ' ')} {settings[key]}" for key in STRENGTHS if key in settings]
        if "iterations" in settings and settings["iterations"] > 1:
            shown.append(f"{settings['iterations']} iterations")
        recipe = {} if options.quick else RECIPES.get(name, {})
        candidates.append(Candidate(", ".join(shown), name, changes, recipe))
    return candidates


def run_seed(job: Job) -> list[dict[str, Any]]:
    """The base and every method; the test samples are looked at behind the last training."""
    options = job.options
    data = load_scaled(options)
    progress = JobProgress(str(job.seed))
    small = QUICK_NETS.get(options.arch, {}) if options.quick else {}
    untrained = draw_net(options.arch, data, job.seed, **small)
    recipe = TrainSettings(epochs=options.epochs, batch_size=options.batch_size, seed=job.seed)
    nothing = (data.x_train[:0], data.y_train[:0])
    start = Bench(untrained, data.x_train, data.y_train, *nothing, recipe, progress=progress)
    bench = Bench(
        start.train(untrained, "base").module, data.x_train, data.y_train, *nothing, recipe, progress=progress
    )
    nets = []
    for candidate in list_candidates(options):
        module, history = run_candidate(bench, candidate)
        nets.append((candidate, module, history))
        parameters = sum(parameter.numel() for parameter in module.parameters())
        progress.note(
            f"{candidate.method}: {history['epochs']} epochs, {history['seconds']:.0f} s, {parameters:,} left"
        )
    rows = []
    for candidate, module, history in nets:
        graph = make_int8(module, data.x_train)
        costs = measure_costs(module, graph, data.x_train, history["zeros"])
        scores, int8 = score_net(module, graph, data.x_test, data.y_test)
        figures = {"test": describe_scores(scores), "test_int8": describe_scores(int8), "costs": asdict(costs)}
        rows.append({"method": candidate.method, "strength": candidate.label, "seed": job.seed, **history, **figures})
    return rows


def report(data: Dataset, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """One line of Markdown for each method."""
    print(f"{options.arch} on {data.name}, {len(data.y_test)} test samples, mean of {len(options.seeds)} seeds;")
    print(f"{options.epochs} epochs; int8 firmware on an emulated Cortex-M4 (instructions: emulated_instructions)\n")
    header = ["method", "strength", "int8 accuracy, %", "float accuracy, %", "parameters", "zeros", "MACs",
              "in firmware", "flash", "RAM", "M4 instructions", "epochs"]  # fmt: skip
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        costs = {key: [row["costs"][key] for row in own] for key in own[0]["costs"]}
        zeros = float(np.mean(costs["zeros"]))
        table.append(
            [
                method,
                own[0]["strength"],
                format_percent([row["test_int8"]["accuracy"] for row in own]),
                format_percent([row["test"]["accuracy"] for row in own]),
                format_mean(costs["parameters"]),
                f"{zeros:.0%}" if zeros else "",
                *(
                    format_mean(costs[key])
                    for key in ("macs", "firmware_macs", "flash_bytes", "ram_bytes", "instructions")
                ),
                format_mean([row["epochs"] for row in own]),
            ]
        )
    print_table(header, table)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(DATA), help="dataset, as `edgeprune compile --data` takes it")
    parser.add_argument("--arch", choices=list(ARCHITECTURES), default="lite", help="default: lite")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=[], help="default: all")
    parser.add_argument("--epochs", type=int, default=300, help="of each training (default 300)")
    parser.add_argument("--batch-size", type=int, default=16, help="of all trainings (default 16)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(default_seeds()), help="default: three")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default 2)")
    parser.add_argument("--quick", action="store_true", help="a narrow net and few steps: does all of it run")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def main() -> None:
    """Run all seeds and print the table."""
    options = parse_options()
    elapsed = start_clock()
    data = load_scaled(options)
    jobs = [Job(seed, options) for seed in options.seeds]
    print(f"{len(jobs)} seeds, {len(list_candidates(options))} methods", file=sys.stderr, flush=True)
    rows = [row for found in run_jobs(run_seed, jobs, options.processes) for row in found]
    report(data, rows, options)
    print(f"{elapsed():.0f} s", flush=True)
    content = {"options": {key: str(value) for key, value in vars(options).items() if key != "json"}, "rows": rows}
    write_json(options.json, {"data_sha256": data.sha256, **content})


if __name__ == "__main__":
    main()
