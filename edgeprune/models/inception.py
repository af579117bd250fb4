"""The network of InceptionTime (Ismail Fawaz et al. 2020, arXiv 1909.04939): six inception blocks, two residuals.

For one input channel: 420,192 + 129 x classes parameters. No biases but the FC's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNEL_SIZES = (40, 20, 10)
RESIDUAL_EVERY = 3


class InceptionNetwork(nn.Module):
    """One member of InceptionTime: (N, in_channels, T) to logits (N, classes).

    filters: of each of a block's four branches. bottleneck: width of the 1x1 convolution before the long kernels; the
    first block has none. depth: number of blocks; every third ends with a residual connection.
    """

    def __init__(
        self, *, in_channels: int, classes: int, filters: int = 32, bottleneck: int = 32, depth: int = 6
    ) -> None:
        super().__init__()
        width = filters * (len(KERNEL_SIZES) + 1)
        self.blocks = nn.ModuleList(
            InceptionBlock(in_channels if index == 0 else width, filters, None if index == 0 else bottleneck)
            for index in range(depth)
        )
        self.shortcuts = nn.ModuleList(
            nn.Sequential(nn.Conv1d(in_channels if index == 0 else width, width, 1, bias=False), nn.BatchNorm1d(width))
            for index in range(depth // RESIDUAL_EVERY)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for index, block in enumerate(self.blocks, start=1):
            x = block(x)
            if index % RESIDUAL_EVERY == 0:
                x = torch.relu(x + self.shortcuts[index // RESIDUAL_EVERY - 1](residual))
                residual = x
        return self.head(x.mean(dim=-1))


class InceptionBlock(nn.Module):
    """Three long convolutions behind a bottleneck, and max pooling with a 1x1 convolution: concat, BN, ReLU."""

    def __init__(self, in_channels: int, filters: int, bottleneck: int | None) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(in_channels, bottleneck, 1, bias=False) if bottleneck else nn.Identity()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(bottleneck or in_channels, filters, size, padding="same", bias=False) for size in KERNEL_SIZES
        )
        self.pool = nn.MaxPool1d(3, stride=1, padding=1)
        self.pool_convolution = nn.Conv1d(in_channels, filters, 1, bias=False)
        self.norm = nn.BatchNorm1d(filters * (len(KERNEL_SIZES) + 1))

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        maps = [convolution(narrow) for convolution in self.convolutions]
        return torch.relu(self.norm(torch.cat([*maps, self.pool_convolution(self.pool(x))], dim=1)))
