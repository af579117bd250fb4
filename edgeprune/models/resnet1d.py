"""The residual network of Wang, Yan and Oates (2017, arXiv 1611.06455) for series: three blocks, GAP, FC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

KERNEL_SIZES = (8, 5, 3)


class ResNet1D(nn.Module):
    """(N, in_channels, T) to logits (N, classes).

    widths: filters of the three blocks.
    """

    def __init__(self, *, in_channels: int, classes: int, widths: Sequence[int] = (64, 128, 128)) -> None:
        super().__init__()
        sources = (in_channels, *widths[:-1])
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(sources, widths, strict=True)))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(dim=-1))


class ResidualBlock(nn.Module):
    """Three convolutions with BN; the shortcut is 1x1 + BN where the width changes, else BN alone, as published."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        sources = (in_channels, out_channels, out_channels)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(source, out_channels, size, padding="same", bias=False)
            for source, size in zip(sources, KERNEL_SIZES, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(out_channels) for _ in KERNEL_SIZES)
        self.shortcut: nn.Module = nn.BatchNorm1d(out_channels)
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv1d(in_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.convolutions[0](x)))
        y = torch.relu(self.norms[1](self.convolutions[1](y)))
        y = self.norms[2](self.convolutions[2](y))
        return torch.relu(y + self.shortcut(x))
