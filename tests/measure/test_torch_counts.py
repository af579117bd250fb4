"""MACs and parameters of PyTorch modules: formulas, PyTorch's own counter, nothing left changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.measure import count_macs, count_parameters
from edgeprune.models.lite import LITE


class Attention(nn.Module):
    """Self-attention over (N, C, T), scaled products of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.transpose(1, 2)).chunk(3, dim=-1)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "strided, padded, grouped": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9), 5 * 6 * 2 * 3),
    "same padding, dilated, even": (lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=2), (2, 10), 10 * 3 * 2 * 4),
    "2-D": (lambda: nn.Conv2d(3, 5, (3, 2)), (3, 8, 8), 6 * 7 * 5 * 3 * 6),
    "transposed": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (4, 9), 4 * 9 * 3 * 3),
    "linear along an axis": (lambda: nn.Linear(8, 3), (5, 8), 5 * 8 * 3),
    "attention": (Attention, (4, 6), 6 * 4 * 12 + 2 * 6 * 6 * 4),
}


@pytest.mark.parametrize("name", NETS)
def test_against_the_formula_and_torchs_counter(name: str) -> None:
    make, shape, macs = NETS[name]
    module = make().eval()
    assert count_macs(module, shape).total == macs
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        module(torch.zeros(1, *shape))
    assert counter.get_total_flops() == 2 * macs


def test_recurrent_layers_which_torch_does_not_count() -> None:
    lstm = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
    first = 2 * 4 * 5 * (3 + 5)
    second = 2 * 4 * 5 * (10 + 5)
    (layer,) = count_macs(lstm, (7, 3)).layers
    assert (layer.kind, layer.output_shape, layer.macs) == ("LSTM", (7, 10), 7 * (first + second))


def test_lite_has_the_papers_parameters_and_pytorchs_macs() -> None:
    module = LITE(in_channels=1, classes=2)
    counts = count_parameters(module)
    assert (counts.trainable, counts.frozen) == (9814 + 33 * 2, 438)
    macs = count_macs(module, (1, 24))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.eval()(torch.zeros(1, 1, 24))
    assert macs.total == counter.get_total_flops() // 2
    rows = {layer.name: layer for layer in macs.layers}
    assert rows["convolutions.0"].macs == 24 * 32 * 40
    assert (rows["convolutions.0"].output_channels, rows["head"].output_channels) == (32, 2)
    assert rows["norm"].macs == 0
    assert sum(layer.parameters for layer in macs.layers) == counts.total


def test_shared_layers_run_twice_but_are_stored_once() -> None:
    conv = nn.Conv1d(2, 2, 3, padding=1)
    module = nn.Sequential(conv, nn.ReLU(), conv)
    assert count_macs(module, (2, 8)).total == 2 * 8 * 2 * 2 * 3
    assert count_parameters(module).total == 2 * 2 * 3 + 2


def test_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Dropout())
    module.train()
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    count_macs(module, (1, 8))
    assert [layer.training for layer in module.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
