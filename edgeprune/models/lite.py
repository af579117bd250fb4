"""LITE (Ismail-Fawaz et al. 2023, arXiv 2409.02869), with its hand-crafted filters as frozen convolutions.

    x -> 3 convs (k 40, 20, 10; 32 filters each) ----------+
    x -> 17 frozen filters -> ReLU ------------------------+-> concat 113 -> BN -> ReLU
      -> depthwise k 20, dilation 2 -> pointwise 32 -> BN -> ReLU
      -> depthwise k 10, dilation 4 -> pointwise 32 -> BN -> ReLU -> global average pool -> FC

For one input channel: 9,814 + 33 x classes trainable parameters, 438 frozen ones. No biases but the FC's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNEL_SIZES = (40, 20, 10)
TREND_LENGTHS = (2, 4, 8, 16, 32, 64)
PEAK_LENGTHS = (4, 8, 16, 32, 64)  # the filter itself is 1.5 times as long


class LITE(nn.Module):
    """One member of LITETime: (N, in_channels, T) to logits (N, classes).

    filters: of each of the three convolutions and of both pointwise layers; 32 in the paper, 16, 8 and 4 in the static
        reductions that the DSP paper compares with (LITETime_16, _8, _4).
    """

    def __init__(self, *, in_channels: int, classes: int, filters: int = 32) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(in_channels, filters, size, padding="same", bias=False) for size in KERNEL_SIZES
        )
        self.handcrafted = HandcraftedFilters(in_channels)
        width = len(KERNEL_SIZES) * filters + self.handcrafted.out_channels
        self.norm = nn.BatchNorm1d(width)
        self.block1 = SeparableBlock(width, filters, kernel_size=20, dilation=2)
        self.block2 = SeparableBlock(filters, filters, kernel_size=10, dilation=4)
        self.head = nn.Linear(filters, classes)

    def forward(self, x: Tensor) -> Tensor:
        maps = [convolution(x) for convolution in self.convolutions]
        features = torch.relu(self.norm(torch.cat([*maps, self.handcrafted(x)], dim=1)))
        features = self.block2(self.block1(features))
        return self.head(features.mean(dim=-1))


class SeparableBlock(nn.Module):
    """Depthwise (dilated), pointwise, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            in_channels, in_channels, kernel_size, padding="same", dilation=dilation, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class HandcraftedFilters(nn.Module):
    """17 filters that are not trained: 6 that see a rise, 6 that see a fall (k = 2..64), 5 that see a peak.

    A rise and a fall of one length share a convolution of two filters: 11 convolutions in all, each followed by ReLU
    at once, so that the ReLU becomes part of the convolution when the net is compiled. Every filter sums over the
    input channels.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.trends = nn.ModuleList(
            freeze_filters(torch.stack([-make_trend(length), make_trend(length)]), in_channels)
            for length in TREND_LENGTHS
        )
        self.peaks = nn.ModuleList(freeze_filters(make_peak(length)[None], in_channels) for length in PEAK_LENGTHS)
        self.out_channels = 2 * len(TREND_LENGTHS) + len(PEAK_LENGTHS)

    def forward(self, x: Tensor) -> Tensor:
        maps = [torch.relu(trend(x)) for trend in self.trends] + [torch.relu(peak(x)) for peak in self.peaks]
        return torch.cat(maps, dim=1)


def make_trend(length: int) -> Tensor:
    """(length,): +1, -1, +1, ...: positive where the series falls from one point to the next; its negative sees a rise.

    >>> make_trend(4).tolist()
    [1.0, -1.0, 1.0, -1.0]
    """
    return torch.ones(length).index_fill(0, torch.arange(1, length, 2), -1.0)


def make_peak(length: int) -> Tensor:
    """(1.5 length,): a negative parabolic arch, a positive one twice as high, a negative one.

    >>> make_peak(8).tolist()
    [-0.25, -1.0, -1.0, -0.25, 0.5, 2.0, 2.0, 0.5, -0.25, -1.0, -1.0, -0.25]
    """
    rise = torch.linspace(0, 1, length // 4 + 1)[1:] ** 2
    arch = torch.cat([rise, rise.flip(0)])
    return torch.cat([-arch, 2 * arch, -arch])


def freeze_filters(filters: Tensor, in_channels: int) -> nn.Conv1d:
    """A convolution that holds `filters` (F, K), repeated over the input channels, and is not trained."""
    count, length = filters.shape
    convolution = nn.Conv1d(in_channels, count, length, padding="same", bias=False)
    weight = filters[:, None, :].repeat(1, in_channels, 1)
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    return convolution
