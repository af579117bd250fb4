"""Batch-norm statistics that fit the weights they stand beside.

Running averages lag behind the weights; under a sparsity loss they go stale enough to halve a test accuracy.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.errors import InputError

Module = TypeVar("Module", bound=nn.Module)

CHUNK_SAMPLES = 512


def recalibrate_batchnorm(module: Module, x: np.ndarray, *, chunk_samples: int = CHUNK_SAMPLES) -> Module:
    """A copy of `module` whose batch norms hold the mean and variance of their inputs over `x` (N, C, ...).

    One pass with fixed weights, dropout off; the momentum and mode of every layer are as before. The samples go through
    in as few chunks of equal size (within one) as `chunk_samples` allows, and statistics are averaged over chunks: up
    to 512 samples the result is that of the whole set, whatever their order. Chunks are drawn by lot (always the same
    one): samples often lie sorted by class, and the variance within a class is not that of the set.

    Raises InputError for fewer than two samples.
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} samples: batch-norm statistics need at least 2")
    fresh = copy.deepcopy(module)
    norms = [layer for layer in fresh.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not norms:
        return fresh
    before = [(layer, layer.momentum) for layer in norms]
    modes = [(layer, layer.training) for layer in fresh.modules()]
    device = norms[0].running_mean.device if norms[0].running_mean is not None else "cpu"
    fresh.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for chosen in split_by_lot(len(x), -(-len(x) // chunk_samples)):
            fresh(torch.as_tensor(x[chosen], dtype=torch.float32, device=device))
    for norm, momentum in before:
        norm.momentum = momentum
    for layer, training in modes:
        layer.training = training
    return fresh


def split_by_lot(count: int, chunks: int) -> list[np.ndarray]:
    """The indices 0..count - 1 in so many chunks of equal size (within one); a single chunk keeps their order."""
    order = np.arange(count) if chunks == 1 else np.random.default_rng(0).permutation(count)
    return np.array_split(order, chunks)
