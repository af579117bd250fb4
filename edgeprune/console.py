"""Drawing for people: progress bars, tables, the one-line error. Nothing below `cli` uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.table import Table as RichTable
from rich.text import Text

from edgeprune.progress import Progress, Step
from edgeprune.report.tables import Table


class _Figures(ProgressColumn):
    """loss 0.123  accuracy 97.0 %, as the step reports them."""

    def render(self, task: Task) -> Text:
        figures: Mapping[str, Any] = task.fields.get("figures", {})
        return Text("  ".join(f"{name} {_format_figure(value)}" for name, value in figures.items()), style="cyan")


class _BarStep(Step):
    def __init__(self, bars: RichBars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, amount: int = 1, **figures: float | str) -> None:
        if figures:
            self._bars.update(self._task, advance=amount, figures=figures)
        else:
            self._bars.update(self._task, advance=amount)


class ConsoleProgress(Progress):
    """Bars with figures, time so far and time to go on a terminal; only the notes where there is none."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: RichBars | None = None

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        if not self._console.is_terminal:
            yield Step()
            return
        outermost = self._bars is None
        bars = self._bars or RichBars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            _Figures(),
            console=self._console,
        )
        if outermost:
            self._bars = bars
            bars.start()
        task = bars.add_task(title, total=total, figures={})
        try:
            yield _BarStep(bars, task)
            bars.update(task, total=bars.tasks[bars.task_ids.index(task)].completed if total is None else total)
        finally:
            if outermost:
                bars.stop()
                self._bars = None

    def note(self, message: str) -> None:
        self._console.print(Text(f"  {message}", style="dim"), highlight=False)


def draw_table(table: Table) -> RichTable:
    """A report table for the terminal: figures to the right, text to the left."""
    drawn = RichTable(header_style="dim", box=None, pad_edge=False)
    for column, name in enumerate(table.head):
        is_text = column in table.text_columns
        drawn.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def print_tables(console: Console, tables: Sequence[Table | None]) -> None:
    """Print the tables that have something in them, each below its caption and with an empty line after it."""
    for table in tables:
        if table is not None:
            console.print(Text(table.caption, style="bold"))  # not a title: that is folded to the table's width
            console.print(draw_table(table))
            console.print()


def _format_figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
