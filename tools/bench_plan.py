#!/usr/bin/env python3
"""Timings of `edgeprune plan`, and how far its predictions are from built and emulated firmware.

    python tools/bench_plan.py [--models DIR] [--nets lite,fcn,...] [--cores m4,m0plus] [--no-timings] [--json FILE]

--models: a folder of model files (.pt, .onnx, .tflite), planned as they are. --nets: reference nets with random weights
beside them, by the names of `edgeprune train --arch`. For each net the command is run as a user runs it, in a new
process: for one target (nucleo-l4r5zi) and for all, each first without and then with what the first run kept (cold,
warm). Then every width is built and emulated on each core, and predicted from the whole net, from the narrowest one,
and from no build at all; the table gives the largest error over the widths. The bounds of a release: 5 % of flash and
RAM, 10 % of instructions; 10 s for one target and 60 s for all, warm.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.cache import Cache
from edgeprune.progress import SILENT
from edgeprune.stages.plan_programs import PlanSource, make_programs
from edgeprune.stages.sizing import (
    Sizing,
    measure_scheduled,
    predict_scheduled,
    predict_sizing,
    quantize_sample,
    schedule_program,
)
from edgeprune.target import Target, load_target

SHAPES = {
    "lite": (1, 150),
    "fcn": (1, 96),
    "inception": (1, 48),
    "resnet1d": (1, 48),
    "eegcnn": (2, 256),
    "resnet20": (3, 32, 32),
    "vgg": (3, 32, 32),
}
SUFFIXES = (".pt", ".onnx", ".tflite")
FIGURES = {"flash_bytes": "flash", "ram_bytes": "RAM", "instructions": "instructions"}
BOARD = "nucleo-l4r5zi"


def main() -> None:
    """Time and compare, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder of model files")
    parser.add_argument("--nets", default="", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--cores", default="m4", help="for the errors, such as m4,m0plus,m55")
    parser.add_argument("--no-timings", action="store_true")
    parser.add_argument("--no-errors", action="store_true")
    parser.add_argument("--json", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as folder:
        models = find_models(arguments.models, arguments.nets, Path(folder))
        timings = [] if arguments.no_timings else [time_plan(path) for path in models]
        if timings:
            print(
                format_table(("model", "target", "cold", "warm"), [line for rows in timings for line in rows]),
                flush=True,
            )
        targets = [load_target(f"cortex-{core}") for core in arguments.cores.split(",")]
        errors = [] if arguments.no_errors else [row for path in models for row in compare(path, targets)]
    if errors:
        head = ("model", "core", "widths", "predicted from", *FIGURES.values())
        print("\nLargest error of a prediction over the widths\n")
        print(format_table(head, [tuple(str(cell) for cell in row.values()) for row in errors]))
    if arguments.json is not None:
        document = {"timings": timings, "errors": errors}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def find_models(folder: Path | None, nets: str, work: Path) -> list[Path]:
    """Model files: those of the folder, and reference nets saved into `work`."""
    found = [] if folder is None else sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    for name in filter(None, nets.split(",")):
        if name not in SHAPES:
            sys.exit(f"--nets {name}: not known; allowed: {', '.join(SHAPES)}")
        found.append(save_net(name, work))
    if not found:
        sys.exit("nothing to plan: give --models DIR with .pt, .onnx or .tflite files, or --nets lite,fcn")
    return found


def save_net(name: str, work: Path) -> Path:
    """A reference net with random weights."""
    import torch

    from edgeprune import save_model
    from edgeprune.models import build_model

    torch.manual_seed(0)
    shape = SHAPES[name]
    net = build_model(name, in_channels=shape[0], classes=10).eval()
    save_model(net, torch.randn(2, *shape), work / f"{name}.pt")
    return work / f"{name}.pt"


def time_plan(path: Path) -> list[tuple[str, ...]]:
    """Seconds of the command, for a board and for all targets, cold and warm."""
    rows = []
    for target in (BOARD, None):
        with tempfile.TemporaryDirectory(prefix="edgeprune-bench-") as cache:
            words = [sys.executable, "-m", "edgeprune", "plan", str(path.resolve()), "--quiet"]
            words += [] if target is None else ["--target", target]
            seconds = [run_once(words, cache) for _ in range(2)]
        rows.append((path.stem, target or "all", *(f"{value:.1f} s" for value in seconds)))
        print(".", end="", file=sys.stderr, flush=True)
    return rows


def run_once(words: Sequence[str], cache: str) -> float:
    """Wall time of a process; the exit code says whether something fits, which is of no matter here."""
    started = time.perf_counter()
    environment = {**os.environ, "EDGEPRUNE_CACHE": cache}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return time.perf_counter() - started


def compare(path: Path, targets: Sequence[Target]) -> list[dict[str, Any]]:
    """Errors of predictions from the widest program, from the narrowest, and from none."""
    programs = make_programs(PlanSource(path), Cache(None), SILENT)
    rows = []
    for target in targets:
        scheduled = {width: schedule_program(graph, target) for width, graph in programs.programs.items()}
        built = {
            width: measure_scheduled(scheduled[width], target, quantize_sample(graph, programs.samples))
            for width, graph in programs.programs.items()
        }
        if any(sizing.instructions is None for sizing in built.values()):
            sys.exit(f"{path.name} on {target.name}: {next(iter(built.values())).reason}")
        widest, narrowest = max(built), min(built)
        for name, anchor in (("the whole net", widest), ("the narrowest", narrowest), ("nothing", None)):
            guesses = {
                width: predict_scheduled(scheduled[width], target)
                if anchor is None
                else predict_sizing(graph, target, anchor=built[anchor])
                for width, graph in programs.programs.items()
                if width != anchor
            }
            if guesses:
                worst = {label: find_worst(guesses, built, figure) for figure, label in FIGURES.items()}
                widths = "/".join(map(str, guesses))
                rows.append({"model": path.stem, "core": target.core, "widths": widths, "from": name, **worst})
        print(".", end="", file=sys.stderr, flush=True)
    return rows


def find_worst(guesses: Mapping[int, Sizing], built: Mapping[int, Sizing], figure: str) -> str:
    """The error of the largest magnitude, in percent with its sign."""
    errors = [100 * (getattr(guess, figure) / getattr(built[width], figure) - 1) for width, guess in guesses.items()]
    return f"{max(errors, key=abs):+.1f} %"


def format_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---" for _ in head], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
