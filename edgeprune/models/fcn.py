"""The fully convolutional network of Wang, Yan and Oates (2017, arXiv 1611.06455): three convolutions, GAP, FC."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

KERNEL_SIZES = (8, 5, 3)


class FCN(nn.Module):
    """(N, in_channels, T) to logits (N, classes). The convolutions have no bias: a batch norm follows each.

    widths: filters of the three convolutions.
    """

    def __init__(self, *, in_channels: int, classes: int, widths: Sequence[int] = (128, 256, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width, size in zip(widths, KERNEL_SIZES, strict=True):
            layers += [nn.Conv1d(channels, width, size, padding="same", bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=-1))
