"""The structure and compression losses of DPRP (equations 8 and 10 to 12), over all factored layers at once.

    L_total = L_app + lambda_str (mu_orth L_orth + mu_sort L_sort) + lambda_comp L_comp

The spectra of L layers of ranks r_l lie in one array (L, R), R the largest rank, zeros behind each spectrum's end: a
network's losses then take a few operations instead of a few for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeprune.prune.low_rank.ranks import find_cuts

STRUCTURE_WEIGHT = 1.0  # lambda_str
ORTHOGONALITY_WEIGHT = 1000.0  # mu_orth
SORTING_WEIGHT = 1.0  # mu_sort


def stack_spectra(spectra: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Vectors of singular values (r_l,) as one array (L, R), zeros behind their ends, and the ranks (L,) int64."""
    ranks = torch.tensor([len(spectrum) for spectrum in spectra], device=spectra[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(spectra), batch_first=True), ranks


def measure_orthogonality(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """L_orth, equation 10: 1/L sum over layers of (||U^T U - I||_F + ||V^T V - I||_F) / r^2; norms not squared.

    pairs: (U, V) of each layer, (h, r) and (w, r). Where a factor is exactly orthonormal its gradient is 0.
    """
    grams, places, shares = [], [], []
    for u, v in pairs:
        rank = u.shape[1]
        identity = torch.eye(rank, dtype=u.dtype, device=u.device)
        # U^T U - I in one step; expanded to |G|^2 - 2 tr G + r it would cancel to noise
        grams += [torch.addmm(identity, factor.T, factor, beta=-1).flatten() for factor in (u, v)]
        places += [rank * rank] * 2
        shares += [1 / (rank * rank)] * 2
    device = grams[0].device
    segments = torch.arange(len(grams), device=device).repeat_interleave(torch.tensor(places, device=device))
    flat = torch.cat(grams)
    squares = flat.new_zeros(len(grams)).index_add(0, segments, flat * flat)
    nonzero = squares > 0
    norms = torch.where(nonzero, squares, 1).sqrt() * nonzero  # the root's gradient at 0 is infinite
    return torch.dot(norms, torch.tensor(shares, dtype=flat.dtype, device=device)) / len(pairs)


def measure_disorder(spectra: Tensor, ranks: Tensor) -> Tensor:
    """L_sort, equation 11: what is missing to singular values that fall and are not negative.

    For each layer the mean of sigma_{j+1} - sigma_j over the places where that is above 0, plus the mean of -sigma_j
    over the negative ones (chi(a) = 1/a of their number, chi(0) = 0). The paper's second sum leaves out sigma_r; ours
    has it.
    """
    inside = _mask_inside(spectra, ranks)
    rises = torch.relu(spectra[:, 1:] - spectra[:, :-1]) * inside[:, 1:]
    negatives = torch.relu(-spectra)  # 0 behind the ends
    terms = [part.sum(1) / (part > 0).sum(1).clamp(min=1) for part in (rises, negatives)]
    return (terms[0] + terms[1]).mean()


def measure_compression(spectra: Tensor, ranks: Tensor, epsilon: float) -> Tensor:
    """L_comp, equation 12: 1/L sum over layers of sum_{i=tau..r} |sigma_i| / ((r - tau) ||sigma||_2).

    Ours: where r = tau the term is |sigma_r| / ||sigma||_2, so that the last value is always under pressure; where all
    are zero it is 0.
    """
    cuts = find_cuts(spectra, ranks, epsilon)
    place = torch.arange(1, spectra.shape[1] + 1, device=spectra.device)
    tail = (place >= cuts[:, None]) & _mask_inside(spectra, ranks)
    norms = torch.linalg.vector_norm(spectra, dim=1).clamp(min=torch.finfo(spectra.dtype).tiny)
    sums = (spectra.abs() * tail).sum(1)
    return (sums / ((ranks - cuts).clamp(min=1) * norms)).mean()


def _mask_inside(spectra: Tensor, ranks: Tensor) -> Tensor:
    """Which places of the array (L, R) hold singular values."""
    return torch.arange(spectra.shape[1], device=spectra.device) < ranks[:, None]
