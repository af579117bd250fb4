"""The best state of a training run: kept in memory, and written to disk so that an interruption loses nothing."""

from __future__ import annotations

import io
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.disk import write_file_atomically
from edgeprune.errors import EdgepruneError

SECONDS_BETWEEN_WRITES = 30.0


class TrainingInterruptedError(EdgepruneError):
    """Ctrl-C while training. `checkpoint` is the file with the best state so far, or None."""

    exit_code = 130  # what shells expect of a program that SIGINT ended: 128 + 2

    def __init__(self, message: str, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


class BestState:
    """A copy of the best parameters and buffers seen, and the file they are written to (None: no file).

    The file is a state_dict (`torch.save`), written whole or not at all, at most every 30 seconds.
    """

    def __init__(self, module: nn.Module, path: Path | None) -> None:
        self._path = path
        self._live = module.state_dict()  # these share storage with the module
        self._best = {name: tensor.clone() for name, tensor in self._live.items()}
        self._written_at = time.monotonic()
        self._unwritten = False
        self.epoch = 0

    def keep(self, epoch: int) -> None:
        """Take the module's present state as the best."""
        for name, tensor in self._live.items():
            self._best[name].copy_(tensor)
        self.epoch = epoch
        self._unwritten = True
        if self._path is not None and time.monotonic() - self._written_at > SECONDS_BETWEEN_WRITES:
            self.write()

    def restore(self) -> None:
        """Put the best state back into the module."""
        with torch.no_grad():
            for name, tensor in self._live.items():
                tensor.copy_(self._best[name])

    def write(self) -> Path | None:
        """Write the best state if there is a newer one than the file's; gives back the file, None without one."""
        if self._path is not None and self._unwritten:
            save_checkpoint(self._best, self._path)
            self._written_at = time.monotonic()
            self._unwritten = False
        return self._path if self.epoch else None


def save_checkpoint(state: dict[str, Tensor], path: Path) -> None:
    """Write a state_dict atomically; raises InputError if the disk does not take it."""
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, buffer)
    write_file_atomically(path, buffer.getvalue())
