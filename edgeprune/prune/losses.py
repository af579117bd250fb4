"""What training minimises: cross-entropy, and whatever a method adds to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class ExtraLoss(ABC):
    """A term that a method adds to the classification loss, computed from tensors inside the network.

    observed: names of the nodes whose tensors it reads.
    """

    observed: tuple[str, ...] = ()

    @abstractmethod
    def compute(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The term for one batch, a scalar; `tensors` holds the observed nodes' values by name."""


def balance_classes(y: np.ndarray, classes: int) -> Tensor:
    """Weights (classes,) float32: N / (classes present x N_c), so that each class present weighs the same in all.

    A class without a sample gets 1; no sample uses it.

    >>> balance_classes(np.array([0, 0, 0, 1]), classes=2).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = np.bincount(y, minlength=classes).astype(np.float64)
    present = counts > 0
    weights = np.ones(classes)
    weights[present] = len(y) / (present.sum() * counts[present])
    return torch.tensor(weights, dtype=torch.float32)
