"""Layouts: there and back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.layout import from_nhwc, nhwc_shape, to_nhwc


@pytest.mark.parametrize("shape", [(3,), (2, 24), (1, 1), (3, 5, 4), (2, 1, 7)])
def test_there_and_back(shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    there = to_nhwc(samples)
    assert there.shape[1:] == nhwc_shape(shape)[1:]
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(from_nhwc(there, shape), samples)


def test_a_channel_stays_a_channel() -> None:
    samples = np.zeros((1, 3, 4), np.float32)
    samples[0, 2] = [1, 2, 3, 4]
    assert to_nhwc(samples)[0, 0, :, 2].tolist() == [1, 2, 3, 4]


def test_other_ranks_are_refused() -> None:
    with pytest.raises(InputError, match="5 axes"):
        to_nhwc(np.zeros((1, 2, 3, 4, 5)))
    with pytest.raises(InputError, match=r"\(2, 3, 4, 5\)"):
        nhwc_shape((2, 3, 4, 5))
    with pytest.raises(InputError, match=r"expected \(N, 1, 24, 2\)"):
        from_nhwc(np.zeros((5, 1, 23, 2)), (2, 24))
