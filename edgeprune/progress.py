"""How long steps tell how far they are, without printing anything themselves.

A stage takes a `Progress` and reports to it; the base class below says nothing. The command line passes one that
draws bars (`cli`), tests pass none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Step:
    """One long step: `advance` after each unit of work, with figures worth showing (loss=..., accuracy=...)."""

    def advance(self, amount: int = 1, **figures: float | str) -> None:
        """Say that `amount` more units are done."""


class Progress:
    """Silent progress; subclass it to show something."""

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        """Open a step of `total` units (None: unknown)."""
        yield Step()

    def note(self, message: str) -> None:
        """One line worth reading, such as a decision the stage took."""


SILENT = Progress()
