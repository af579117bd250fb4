"""The residual networks for small images of He et al. (2016, arXiv 1512.03385, section 4.2): ResNet-20, -32, ...

    x -> conv 3x3, 16 -> BN -> ReLU -> three stages of n basic blocks (16, 32, 64) -> global average pool -> FC

6 n + 2 layers; the first convolution of the second and third stage has stride 2. With shortcuts A, as published for
CIFAR-10, ResNet-20 has 269,722 parameters for 3 channels and 10 classes, ResNet-32 464,154. No biases but the FC's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import InputError

SHORTCUTS = ("A", "B")


class ResNet2D(nn.Module):
    """(N, in_channels, H, W) to logits (N, classes), for any H and W from 1.

    depth: 6 n + 2 for n blocks in each of three stages. widths: filters of the stages, one or more; of 16, 32, 64 the
    paper's. shortcut: where the shape changes, "A" takes every second pixel and pads the new channels with zeros (no
    parameters), "B" is a 1x1 convolution with stride and BN.

    Raises InputError for a depth that is not 6 n + 2, another shortcut, or (A) widths that shrink.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        depth: int = 20,
        widths: Sequence[int] = (16, 32, 64),
        shortcut: str = "A",
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise InputError(f"resnet: depth is {depth}; allowed: 6 n + 2, such as 8, 14, 20 or 32")
        if shortcut not in SHORTCUTS:
            raise InputError(f"resnet: shortcut is {shortcut!r}; allowed: {', '.join(SHORTCUTS)}")
        if not widths or min(widths) < 1 or (shortcut == "A" and list(widths) != sorted(widths)):
            raise InputError(
                f"resnet: widths are {list(widths)}; allowed: one or more from 1 on, and with shortcut A none smaller "
                "than the one before, as zeros can only be added. Take shortcut B, or widths that grow"
            )
        self.convolution = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for index in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, width, stride=2 if stage and index == 0 else 1, shortcut=shortcut))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(torch.relu(self.norm(self.convolution(x))))
        return self.head(features.mean(dim=(-2, -1)))


class BasicBlock(nn.Module):
    """Conv, BN, ReLU, conv, BN, plus the input, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, shortcut: str) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.convolution2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            if shortcut == "A":
                self.shortcut = PaddedShortcut(out_channels - in_channels, stride)
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
                )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.convolution1(x)))
        return torch.relu(self.norm2(self.convolution2(y)) + self.shortcut(x))


class PaddedShortcut(nn.Module):
    """Shortcut A: every `stride`-th pixel, then `channels` new channels of zeros, half of them in front."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.before, self.after = channels // 2, channels - channels // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))
