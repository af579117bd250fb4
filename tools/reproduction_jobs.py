"""What reproductions of several nets or data sets share: jobs side by side, notes with a job's name, tables, JSON."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from edgeprune.errors import EdgepruneError
from edgeprune.progress import Progress

Job = TypeVar("Job")
Result = TypeVar("Result")


class JobProgress(Progress):
    """Notes on standard error, each with its job's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def note(self, message: str) -> None:
        print(f"[{self._name}] {message}", file=sys.stderr, flush=True)


def run_jobs(run: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> list[Result]:
    """The results in the jobs' order, from processes of one thread each; with one process, from this one."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come: torch reads it at import
    try:
        if min(processes, len(jobs)) <= 1:
            return _run_here(run, jobs)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
            return list(pool.map(run, jobs))
    except EdgepruneError as error:
        sys.exit(f"error: {error}")


def _run_here(run: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [run(job) for job in jobs]
    finally:
        torch.set_num_threads(threads)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A markdown table and an empty line."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def format_percent(values: Sequence[float]) -> str:
    """Mean and standard deviation over runs, in percent.

    >>> format_percent([0.9, 0.92])
    '91.00 ± 1.41'
    """
    spread = f" ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.2f}{spread}"


def format_mean(values: Sequence[float], digits: int = 0) -> str:
    """Mean over runs.

    >>> format_mean([1000, 2001])
    '1,500'
    """
    return f"{np.mean(values):,.{digits}f}"


def write_json(path: Path | None, content: Any) -> None:
    """Write the figures, if a file was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")
