"""Where a spectrum is cut, and the cut itself: in parameters and in what the optimizer remembers of them."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.prune.low_rank.factors import Factored


def find_cuts(spectra: Tensor, ranks: Tensor, epsilon: float) -> Tensor:
    """tau of each spectrum, int64 (L,): how many of its values are kept, 1 or more.

    The first i (from 1) with |sigma_{i+1}| <= epsilon |sigma_i|, else r: the spectrum ends at its first fall by more
    than the factor epsilon (ours, of the paper's words). Of zeros alone one is kept.

    spectra: (L, R), zeros behind each one's end. ranks: int64 (L,). epsilon: between 0 and 1.
    """
    sizes = spectra.detach().abs()
    falls = sizes[:, 1:] <= epsilon * sizes[:, :-1]
    place = torch.arange(1, spectra.shape[1], device=spectra.device)
    first = torch.where(falls, place, spectra.shape[1]).amin(1) if spectra.shape[1] > 1 else torch.ones_like(ranks)
    return torch.minimum(first, ranks)


def find_cut(sigma: Tensor, epsilon: float) -> int:
    """tau of one spectrum (r,); see find_cuts.

    >>> find_cut(torch.tensor([4.0, 2.0, 0.1, 0.05]), epsilon=0.1)
    2
    """
    return int(find_cuts(sigma[None], torch.tensor([len(sigma)], device=sigma.device), epsilon))


def cut_rank(layer: Factored, rank: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Keep the first `rank` singular values and columns of a layer, and what the optimizer holds for them.

    The Parameter objects stay (the optimizer knows them by identity); momentum and moments are sliced along, so that
    the optimizer goes on as if it had never seen the rest.
    """
    for parameter in (layer.U, layer.S, layer.V):
        before = parameter.shape
        parameter.grad = None  # of the old shape
        parameter.data = _keep_first(parameter.data, rank)
        state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
        for key, value in state.items():
            # what has the parameter's shape is per entry; step counts are scalars
            if isinstance(value, Tensor) and value.shape == before:
                state[key] = _keep_first(value, rank)


def _keep_first(tensor: Tensor, rank: int) -> Tensor:
    """The first entries along the last axis, in memory of their own."""
    return tensor[..., :rank].clone(memory_format=torch.contiguous_format)


def get_ranks(layers: dict[str, Factored]) -> dict[str, int]:
    """Rank of each layer by name."""
    return {name: layer.rank for name, layer in layers.items()}
