#!/usr/bin/env python3
"""Every structured pruning method on real EEG: seizure (Bonn set E) against sets A and D, on the EEG CNN.

    python tools/reproduce_eeg.py bonn_ade.npz

The .npz holds x, one recording a row, and y, its set; the highest label is the seizures. Recordings (23.6 s at 173.61
Hz) were filtered at 40 Hz, so the mean of every two samples is taken (86.8 Hz), and cut into windows of 128 values,
1.5 s, that do not overlap. Recordings are split, never windows: of each set 60 % are for training, 20 % for validation,
20 % for the test, the same for all seeds. Values are scaled by mean and standard deviation of the training windows.

One base for each seed (arXiv 2509.05190's recipe: Adam, weight decay 1e-4, early stopping on validation macro-F1), then
every method from this base with the same recipe; sparse trainings have all of --epochs. Where several strengths are
given for a method (--dsp-weights, --prox-weights), that of the fewest parameters is taken whose validation macro-F1 is,
on average over seeds, within half a percentage point of the base's. The test recordings are looked at once, after all
that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reproduction import start_clock
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

from edgeprune.artifacts import Dataset, fit_normalization
from edgeprune.errors import InputError
from edgeprune.load.splits import split_by_class
from edgeprune.prune import Bench, TrainSettings

DECIMATION = 2
WINDOW = 128  # values behind the decimation: 1.5 s
TOLERANCE = 0.005  # of macro-F1, for the choice of a strength
WIDTHS = (32, 64, 128)
QUICK_WIDTHS = (4, 4, 6)


@dataclass(frozen=True, eq=False)
class Windows:
    """data: training and test windows, scaled; x_val, y_val: validation windows. recordings: (train, val, test)."""

    data: Dataset
    x_val: np.ndarray
    y_val: np.ndarray
    recordings: tuple[int, int, int]


@dataclass(frozen=True)
class Trial:
    """One net before the test. row: of the table; candidate: of the row's, one or several."""

    row: str
    candidate: str
    seed: int
    macro_f1: float
    accuracy: float
    parameters: int
    epochs: int
    seconds: float
    path: Path


@dataclass(frozen=True)
class Job:
    """A seed, and (second phase) the nets that are chosen."""

    seed: int
    options: argparse.Namespace
    folder: Path
    chosen: tuple[Trial, ...] = ()


def load_windows(path: Path, window: int = WINDOW) -> Windows:
    """Recordings split and cut; raises InputError for a file without x (recordings, samples) and y (recordings,)."""
    with np.load(path, allow_pickle=False) as stored:
        if not {"x", "y"} <= set(stored) or stored["x"].ndim != 2 or stored["y"].shape != stored["x"].shape[:1]:
            raise InputError(
                f"{path.name} holds {', '.join(stored)}; needed are x (recordings, samples) and y, the set"
            )
        x, sets = stored["x"].astype(np.float32), stored["y"].astype(np.int64)
    y = (sets == sets.max()).astype(np.int64)
    rest, test = split_by_class(sets, 0.2, seed=0)
    train, validation = split_by_class(sets[rest], 0.25, seed=0)
    parts = (rest[train], rest[validation], test)
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = (cut_windows(x[part], y[part], window) for part in parts)
    raw = Dataset("Bonn EEG", x_train, y_train, x_test, y_test, ("no seizure", "seizure"), path.name)
    normalization = fit_normalization("per_channel", x_train)
    sizes = (len(parts[0]), len(parts[1]), len(parts[2]))
    return Windows(raw.normalized(normalization), normalization.apply(x_val), y_val, sizes)


def cut_windows(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """(recordings, samples) to (windows, 1, window) of means of DECIMATION samples; a rest at the end is dropped."""
    count = x.shape[1] // (window * DECIMATION)
    values = x[:, : count * window * DECIMATION].reshape(-1, window, DECIMATION).mean(axis=-1)
    return values[:, None], np.repeat(y, count)


def list_rows(options: argparse.Namespace) -> dict[str, tuple[Candidate, ...]]:
    """The table's rows; those with several candidates are chosen from on validation windows."""
    taylor = {"ratio": 0.5, **({"step": 0.3, "step_epochs": 1} if options.quick else {})}
    rows = {
        "base": (Candidate("none", "none"),),
        **{f"l1 {ratio:.0%}": (Candidate(f"{ratio}", "l1", {"ratio": ratio}),) for ratio in (0.25, 0.5, 0.75)},
        "l2 50%": (Candidate("0.5", "l2", {"ratio": 0.5}),),
        "random 50%": (Candidate("0.5", "random", {"ratio": 0.5}),),
        "taylor 50%": (Candidate("0.5", "taylor", taylor),),
        "dsp": tuple(Candidate(f"{weight:g}", "dsp", {"sparsity_weight": weight}) for weight in options.dsp_weights),
        "slimming 50%": (Candidate("0.5", "slimming", {"ratio": 0.5}),),
        "prox-slimming": tuple(
            Candidate(f"{weight:g}", "prox-slimming", {"sparsity_weight": weight}) for weight in options.prox_weights
        ),
    }
    return {name: row for name, row in rows.items() if row and (not options.rows or name.split()[0] in options.rows)}


def train_all(job: Job) -> list[Trial]:
    """First phase: a base, and every candidate from it; scored on validation windows only."""
    windows = load_windows(job.options.data)
    data, options = windows.data, job.options
    widths = QUICK_WIDTHS if options.quick else WIDTHS
    recipe = TrainSettings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        weight_decay=1e-4,
        early_stopping="macro_f1",
        patience=options.patience,
        seed=job.seed,
    )
    untrained = draw_net("eegcnn", data, job.seed, widths=widths)
    progress = JobProgress(str(job.seed))
    start = Bench(untrained, data.x_train, data.y_train, windows.x_val, windows.y_val, recipe, progress=progress)
    elapsed = start_clock()
    trained = start.train(untrained, "base")
    bench = Bench(trained.module, data.x_train, data.y_train, windows.x_val, windows.y_val, recipe, progress=progress)
    trials = []
    for row, candidates in list_rows(options).items():
        for candidate in candidates:
            module, history = run_candidate(bench, candidate)
            if candidate.method == "none":
                history |= {"epochs": len(trained.history), "seconds": elapsed()}
            path = job.folder / f"{job.seed}-{row}-{candidate.label}.pt".replace(" ", "_")
            torch.save(module, path)
            trial = Trial(
                row,
                candidate.label,
                job.seed,
                bench.score(module, "macro_f1"),
                bench.score(module, "accuracy"),
                sum(parameter.numel() for parameter in module.parameters()),
                history["epochs"],
                history["seconds"],
                path,
            )
            progress.note(
                f"{row} ({trial.candidate}): {trial.epochs} epochs, {trial.seconds:.0f} s, {trial.parameters:,} "
                f"parameters, validation macro-F1 {trial.macro_f1:.2%}"
            )
            trials.append(trial)
    return trials


def choose(trials: Sequence[Trial]) -> dict[str, str]:
    """Row -> candidate, by validation macro-F1 and parameters averaged over seeds."""
    chosen = {}
    reference = float(np.mean([trial.macro_f1 for trial in trials if trial.row == "base"] or [0.0]))
    for row in dict.fromkeys(trial.row for trial in trials):
        own: dict[str, list[Trial]] = {}
        for trial in trials:
            if trial.row == row:
                own.setdefault(trial.candidate, []).append(trial)
        scores = {name: float(np.mean([trial.macro_f1 for trial in group])) for name, group in own.items()}
        sizes = {name: float(np.mean([trial.parameters for trial in group])) for name, group in own.items()}
        near = [name for name in own if scores[name] >= reference - TOLERANCE - 1e-9]
        chosen[row] = min(near, key=sizes.__getitem__) if near else max(own, key=scores.__getitem__)
    return chosen


def test_all(job: Job) -> list[dict[str, Any]]:
    """Second phase: the chosen nets of a seed on the test windows, float and int8, and what they cost."""
    data = load_windows(job.options.data).data
    rows = []
    for trial in job.chosen:
        module = torch.load(trial.path, weights_only=False)  # written by us in the first phase
        graph = make_int8(module, data.x_train)
        costs = measure_costs(module, graph, data.x_train)
        scores, int8 = score_net(module, graph, data.x_test, data.y_test)
        figures = {"test": describe_scores(scores), "test_int8": describe_scores(int8), "costs": asdict(costs)}
        history = {key: value for key, value in asdict(trial).items() if key != "path"}
        rows.append({**history, **figures})
    return rows


def report(windows: Windows, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """The tables: means, all seeds, the seizures found and missed; and what the paper lets expect."""
    y = windows.data.y_test
    train, validation, test = windows.recordings
    print(f"Seizure detection, {windows.data.source}: {train} recordings to train, {validation} to validate, {test} to")
    print(
        f"test; {len(y)} test windows, {y.sum()} of them seizure. EEG CNN, seeds {', '.join(map(str, options.seeds))}"
    )
    print(f"\nMean and standard deviation of {len(options.seeds)} seeds, on the test windows\n")
    names = list(dict.fromkeys(row["row"] for row in rows))
    by_name = {name: [row for row in rows if row["row"] == name] for name in names}
    header = ["method", "strength", "accuracy, %", "macro-F1, %", "int8 macro-F1, %", "parameters", "MACs",
              "in firmware", "M4 instructions", "flash", "RAM", "validation macro-F1, %"]  # fmt: skip
    print_table(header, [_make_row(name, own) for name, own in by_name.items()])
    print("Each seed: macro-F1 on the test windows, %, and parameters\n")
    seeds = [str(seed) for seed in options.seeds]
    cells = {
        name: [f"{100 * row['test']['macro_f1']:.2f} / {row['costs']['parameters']:,}" for row in own]
        for name, own in by_name.items()
    }
    print_table(["method", *seeds], [[name, *row] for name, row in cells.items()])
    print(f"Seizure windows of the int8 net, mean of seeds: {y.sum()} are seizure, {len(y) - y.sum()} are not\n")
    confusion = {name: np.mean([row["test_int8"]["confusion"] for row in own], axis=0) for name, own in by_name.items()}
    print_table(
        ["method", "found", "missed", "false alarms", "recall, %", "precision, %"],
        [[name, *_describe_minority(matrix)] for name, matrix in confusion.items()],
    )
    if {"base", "l1 50%"} <= by_name.keys():
        gain = _mean_f1(by_name["l1 50%"]) - _mean_f1(by_name["base"])
        met = "yes" if gain >= -TOLERANCE - 1e-9 else "NO"
        print(f"L1 at 50 %: {100 * gain:+.2f} percentage points of macro-F1 (expected: at most 0.5 lost): {met}")


def _make_row(name: str, own: Sequence[Mapping[str, Any]]) -> list[str]:
    def collect(part: str, key: str) -> list[float]:
        return [row[part][key] for row in own]

    return [
        name,
        own[0]["candidate"],
        format_percent(collect("test", "accuracy")),
        format_percent(collect("test", "macro_f1")),
        format_percent(collect("test_int8", "macro_f1")),
        *(
            format_mean(collect("costs", key))
            for key in ("parameters", "macs", "firmware_macs", "instructions", "flash_bytes", "ram_bytes")
        ),
        format_percent([row["macro_f1"] for row in own]),
    ]


def _mean_f1(own: Sequence[Mapping[str, Any]]) -> float:
    return float(np.mean([row["test"]["macro_f1"] for row in own]))


def _describe_minority(confusion: np.ndarray) -> list[str]:
    """Found, missed, false alarms, recall, precision of class 1."""
    found, missed, alarms = confusion[1, 1], confusion[1, 0], confusion[0, 1]
    recall, precision = found / max(found + missed, 1), found / max(found + alarms, 1)
    return [f"{found:.1f}", f"{missed:.1f}", f"{alarms:.1f}", f"{100 * recall:.2f}", f"{100 * precision:.2f}"]


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="recordings: .npz with x (recordings, samples) and y (their sets)")
    parser.add_argument("--rows", nargs="+", default=[], help="methods, such as base l1 dsp (default: all)")
    parser.add_argument("--epochs", type=int, default=20, help="of each training, at most (default 20)")
    parser.add_argument("--batch-size", type=int, default=32, help="of all trainings (default 32)")
    parser.add_argument("--patience", type=int, default=10, help="of early stopping (default 10)")
    parser.add_argument(
        "--dsp-weights", type=float, nargs="+", default=[1e-4, 3e-4], help="to choose from (default 1e-4 3e-4)"
    )
    parser.add_argument(
        "--prox-weights", type=float, nargs="+", default=[2e-3, 3e-3], help="likewise (default 2e-3 3e-3)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(default_seeds()), help="default: three")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one thread each (default 2)")
    parser.add_argument("--validation-only", action="store_true", help="stop before the test windows are looked at")
    parser.add_argument("--quick", action="store_true", help="a narrow net and few steps: does all of it run")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def main() -> None:
    """Both phases, and the tables."""
    options = parse_options()
    try:
        windows = load_windows(options.data)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(seed, options, Path(folder)) for seed in options.seeds]
        trials = [trial for found in run_jobs(train_all, jobs, options.processes) for trial in found]
        chosen = choose(trials)
        if options.validation_only:
            _report_trials(trials, chosen)
            return
        kept = [trial for trial in trials if trial.candidate == chosen[trial.row]]
        jobs = [
            Job(seed, options, Path(folder), tuple(trial for trial in kept if trial.seed == seed))
            for seed in options.seeds
        ]
        rows = [row for found in run_jobs(test_all, jobs, options.processes) for row in found]
    report(windows, rows, options)
    if len(trials) > len(kept):
        _report_trials(trials, chosen)
    print(f"{sum(trial.seconds for trial in trials):.0f} s of training, if run one after another", flush=True)
    content = {
        "options": {key: str(value) for key, value in vars(options).items() if key != "json"},
        "recordings": windows.recordings,
        "chosen": chosen,
        "tried": [{key: value for key, value in asdict(trial).items() if key != "path"} for trial in trials],
        "rows": rows,
    }
    write_json(options.json, content)


def _report_trials(trials: Sequence[Trial], chosen: Mapping[str, str]) -> None:
    """What was chosen from, on validation windows."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.row, trial.candidate), []).append(trial)
    print("On validation windows\n")
    print_table(
        ["method", "strength", "macro-F1, %", "parameters", "epochs", "seconds", "chosen"],
        [
            [
                row,
                candidate,
                format_percent([trial.macro_f1 for trial in own]),
                format_mean([trial.parameters for trial in own]),
                format_mean([trial.epochs for trial in own], 1),
                format_mean([trial.seconds for trial in own]),
                "yes" if chosen[row] == candidate else "",
            ]
            for (row, candidate), own in groups.items()
        ],
    )


if __name__ == "__main__":
    main()
