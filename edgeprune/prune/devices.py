"""Where training runs: plainly on the CPU, on CUDA through Lightning Fabric."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import InputError

# Small batches take one thread: LITE on 67 series of 24 points, epoch on 2 cores: 20 ms with one thread, 17 ms with two
# when nothing else runs, but 77 ms against 501 ms beside other work, since waiting threads spin. Larger batches take
# what torch offers.
SMALL_BATCH_VALUES = 20_000
SMALL_BATCH_THREADS = 1


class Device:
    """Plain PyTorch on one device."""

    def __init__(self, torch_device: torch.device) -> None:
        self.torch_device = torch_device

    def set_up(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """What to call in place of the module and the optimizer."""
        return module, optimizer

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""
        loss.backward()


class FabricDevice(Device):
    """Lightning Fabric on one device: `accelerator` is its name for it ("cuda", in tests "cpu")."""

    def __init__(self, accelerator: str) -> None:
        from lightning_fabric import Fabric  # late: the CPU path does without its import (1 s)

        self._fabric = Fabric(accelerator=accelerator, devices=1)
        self._fabric.launch()
        super().__init__(self._fabric.device)

    def set_up(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        # the module is there already: its parameters are shared with the program that training gives back
        return self._fabric.setup(module, optimizer, move_to_device=False)

    def backward(self, loss: Tensor) -> None:
        self._fabric.backward(loss)


def open_device(name: str) -> Device:
    """The device for a setting "auto", "cpu" or "cuda"; raises InputError for "cuda" where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is 'cuda', but PyTorch sees no CUDA device here; use --device cpu or auto")
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return FabricDevice("cuda")
    return Device(torch.device("cpu"))


@contextmanager
def limit_threads(batch_values: int) -> Iterator[None]:
    """Inside the block torch computes with the number of threads that suits a batch of so many input values."""
    before = torch.get_num_threads()
    wanted = min(before, SMALL_BATCH_THREADS) if batch_values < SMALL_BATCH_VALUES else before
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
