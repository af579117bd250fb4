"""The PQ index: how sparse a vector is, and how many of its entries can go (Diao et al. 2023, arXiv 2302.05601).

    I(w) = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q,   0 < p <= 1 <= q, p < q

0 where all entries have the same magnitude; 1 - d^(1/q - 1/p) where only one is not zero. If k of d entries are equal
and the others zero, then r = k: the index says how many entries carry the vector.
"""

from __future__ import annotations

import math

import numpy as np

from edgeprune.errors import InputError

BETA, GAMMA, ETA = 0.9, 1.0, 0.0  # the paper's settings


def compute_pq_index(values: np.ndarray, p: float, q: float) -> float:
    """I of the surviving weights, any shape; 0 for none and for zeros only, which are all of one magnitude.

    Raises InputError unless 0 < p <= 1 <= q and p < q.
    """
    if not (0 < p <= 1 <= q and p < q):
        raise InputError(f"the PQ index takes 0 < p <= 1 <= q with p < q; p is {p:g} and q is {q:g}")
    magnitudes = np.abs(np.asarray(values, np.float64).reshape(-1))
    largest = magnitudes.max(initial=0.0)
    if not largest:
        return 0.0
    magnitudes = magnitudes / largest  # the index does not depend on scale, and powers of tiny numbers would vanish
    d = len(magnitudes)
    norm_p = float((magnitudes**p).sum()) ** (1 / p)
    norm_q = float((magnitudes**q).sum()) ** (1 / q)
    return 1 - float(d) ** (1 / q - 1 / p) * norm_p / norm_q


def compute_lower_bound(index: float, d: int, p: float, q: float, eta: float = ETA) -> float:
    """r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p)): entries that must stay at least."""
    return d * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))


def count_prunable(r: float, d: int, *, beta: float = BETA, gamma: float = GAMMA) -> int:
    """c = floor(d * min(gamma (1 - r/d), beta)) of d entries, 0 <= c < d where d > 0.

    gamma scales the share, beta bounds it. One entry always stays (ours).
    """
    if d == 0:
        return 0
    share = min(gamma * (1 - r / d), beta)
    count = math.floor(d * share + 1e-9 * d)  # 4 * (1 - 1/4) may come out as 2.9999999999999996
    return min(max(count, 0), d - 1)  # rounding takes I below 0, and r above d, where all entries are equal
