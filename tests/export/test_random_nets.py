"""Random nets: the program computes what ONNX Runtime computes."""

from __future__ import annotations

import pytest

from tests.export.onnx_nets import read_checked
from tests.export.random_nets import make_random_net


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_random_nets(first: int) -> None:
    for seed in range(first, first + 10):
        model, sample_shape = make_random_net(seed)
        read_checked(model, sample_shape)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2000, 100))
def test_many_random_nets(first: int) -> None:
    for seed in range(first, first + 100):
        model, sample_shape = make_random_net(seed)
        read_checked(model, sample_shape)
