"""Trainings that can be cut off: what has been trained is on disk, and the same command goes on from there.

A checkpoint's name holds a digest of all that decides the training (weights, data, settings, hook, versions). So it is
only ever taken up by the same training, and a method that trains many times finds each of its trainings again: the
finished ones give their result at once, the one under way goes on after its last whole epoch. The result is, to the
bit, that of a training that nobody interrupted.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.cache import digest_source
from edgeprune.disk import write_file_atomically
from edgeprune.errors import EdgepruneError
from edgeprune.prune.train_settings import TrainSettings

# A copy of the state takes a small part of a second's work; writing it to disk is rarer.
SECONDS_BETWEEN_COPIES = 1.0
SECONDS_BETWEEN_WRITES = 30.0


class TrainingInterruptedError(EdgepruneError):
    """Ctrl-C while training. `checkpoint` is the file that the same training goes on from, or None."""

    exit_code = 130  # what shells expect of a program that SIGINT ended: 128 + 2

    def __init__(self, message: str, checkpoint: Path | None) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


class BestState:
    """A copy of the best parameters and buffers seen, and the epoch they are from, counted from 1 (0: none yet)."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.tensors: dict[str, Tensor] = {}
        self.epoch = 0

    def keep(self, epoch: int) -> None:
        """Take the module's present state as the best."""
        self.tensors = copy_state(self._module)
        self.epoch = epoch

    def restore(self) -> None:
        """Put the best state back into the module."""
        self._module.load_state_dict(self.tensors)


class CheckpointFile:
    """The file of one training; `path` None: nothing is kept.

    Every value in it is a tensor, a number, a text, or a list or dict of these: it is read without unpickling code.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._copy: dict[str, Any] | None = None
        self._copied_at = self._written_at = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What an earlier run left, or None. A file that cannot be read counts as none: it is trained again."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            content = torch.load(self._path, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError):  # cut off, or damaged
            return None
        return content if isinstance(content, dict) else None

    def offer(self, capture: Callable[[], dict[str, Any]]) -> None:
        """After each epoch: copy the state now and then, write it now and then."""
        now = time.monotonic()
        if self._path is None or (self._copy is not None and now - self._copied_at < SECONDS_BETWEEN_COPIES):
            return
        self._copy, self._copied_at = capture(), now
        if now - self._written_at > SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> Path | None:
        """Write the last copy; gives back the file, None where there is none."""
        if self._path is None or self._copy is None:
            return None
        buffer = io.BytesIO()
        torch.save(self._copy, buffer)
        write_file_atomically(self._path, buffer.getvalue())
        self._written_at = time.monotonic()
        return self._path

    def finish(self, content: dict[str, Any]) -> None:
        """The training is done: the file now holds its result."""
        if self._path is not None:
            self._copy = content
            self.write()


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, copied."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def name_checkpoint(
    folder: Path | None,
    title: str,
    module: nn.Module,
    arrays: Mapping[str, np.ndarray | None],
    settings: TrainSettings,
    described: str,
) -> Path | None:
    """The file of a training: its title and a digest of what decides it; None without a folder.

    arrays: the samples and labels. described: what else decides it, in words.
    """
    if folder is None:
        return None
    digest = hashlib.sha256(f"{digest_source()}|{torch.__version__}|{settings}|{described}".encode())
    digest.update(digest_module(module).encode())
    for name, array in arrays.items():
        if array is not None:
            _digest_array(digest, name, array)
    return folder / f"{title.replace(' ', '-').lower()}-{digest.hexdigest()[:16]}.pt"


def digest_module(module: nn.Module) -> str:
    """Of all that a program computes by: its graph, its layers with their settings, parameters, buffers."""
    digest = hashlib.sha256(str(module).encode())
    if isinstance(module, fx.GraphModule):
        digest.update(str(module.graph).encode())
    for name, parameter in module.named_parameters():
        digest.update(f"{name}:{parameter.requires_grad};".encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        _digest_array(digest, name, tensor.detach().cpu().numpy())
    return digest.hexdigest()


def _digest_array(digest: Any, name: str, array: np.ndarray) -> None:
    digest.update(f"{name}:{array.dtype}{array.shape};".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
