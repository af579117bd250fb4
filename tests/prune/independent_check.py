"""A check of pruning that knows nothing of the engine.

Every value of the network is a different float64 number. From the values in the pruned network one reads which rows
and columns of each weight were kept; everything else is set to zero in the *original* network, whose outputs must then
equal the pruned network's. The original is the user's own nn.Module, never traced.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CheckError(AssertionError):
    """The pruned network is not a slice of the original one."""


def randomize_uniquely(model: nn.Module, batch: Tensor, seed: int = 0) -> nn.Module:
    """The model in float64 and eval mode, in place, every parameter and statistic drawn anew.

    BatchNorm statistics are those of `batch`, so that no channel is dead or saturated, plus a little noise, so that
    two constant channels differ. requires_grad stays.
    """
    generator = torch.Generator().manual_seed(seed)
    model.double()
    for parameter in model.parameters():
        scale = parameter.detach().std().clamp(0.05, 0.5) if parameter.numel() > 1 else torch.tensor(1.0)
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
    for layer in model.modules():
        if isinstance(layer, NORMS):
            layer.weight.data = torch.rand(layer.num_features, generator=generator, dtype=torch.float64) + 0.5
            layer.momentum = 1.0  # one batch sets the statistics
    model.train()
    with torch.no_grad():
        model(batch.double())
    for layer in model.modules():
        if isinstance(layer, NORMS):
            layer.momentum = 0.1
            layer.running_mean += 0.01 * torch.randn(layer.num_features, generator=generator, dtype=torch.float64)
            layer.running_var += 0.1 * torch.rand(layer.num_features, generator=generator, dtype=torch.float64)
    return model.eval()


def find_kept(original: Tensor, pruned: Tensor, name: str) -> list[np.ndarray]:
    """The kept indices along each axis, ascending. Raises CheckError unless `pruned` is that box of `original`."""
    values, order = original.detach().flatten().sort()
    position = torch.searchsorted(values, pruned.detach().flatten()).clamp(max=len(values) - 1)
    if not torch.equal(values[position], pruned.detach().flatten()):
        raise CheckError(f"{name}: holds values that the original does not have")
    indices = np.unravel_index(order[position].numpy(), tuple(original.shape))
    kept = [np.unique(along) for along in indices]
    box = original.detach()
    for axis, index in enumerate(kept):
        box = box.index_select(axis, torch.from_numpy(index))
    if box.shape != pruned.shape or not torch.equal(box, pruned.detach()):
        raise CheckError(f"{name}: {tuple(pruned.shape)} is not a box of {tuple(original.shape)} in order")
    return kept


def mask_original(original: nn.Module, pruned: nn.Module) -> tuple[nn.Module, float]:
    """A copy of the original with everything that the pruned network lost set to zero, and the share lost."""
    masked = copy.deepcopy(original)
    pruned_tensors = {**dict(pruned.named_parameters()), **dict(pruned.named_buffers())}
    before = after = 0
    for name, tensor in masked.named_parameters():
        if name not in pruned_tensors:
            continue  # not used in eval mode
        kept = find_kept(tensor, pruned_tensors[name], name)
        mask = torch.zeros(tensor.shape, dtype=torch.bool)
        mask[np.ix_(*kept) if kept else ()] = True
        tensor.data[~mask] = 0
        before, after = before + tensor.numel(), after + pruned_tensors[name].numel()
    for name, tensor in masked.named_buffers():
        if name in pruned_tensors and tensor.is_floating_point() and tensor.numel() > 1:
            find_kept(tensor, pruned_tensors[name], name)
    return masked, 1 - after / max(before, 1)


def flatten_outputs(value: Tensor | Sequence[Tensor]) -> Tensor:
    """All outputs of a network as one vector."""
    values = [value] if isinstance(value, Tensor) else value
    return torch.cat([item.flatten() for item in values])


def compare_with_masked(original: nn.Module, pruned: nn.Module, batch: Tensor) -> tuple[float, float]:
    """(largest difference relative to the largest output, share of parameters removed), in eval mode."""
    masked, removed = mask_original(original, pruned)
    with torch.no_grad():
        expected = flatten_outputs(masked.eval()(batch))
        found = flatten_outputs(pruned.eval()(batch))
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-9)), removed
