"""The 1-D CNN for EEG seizure detection of arXiv 2509.05190: three [Conv, BN, ReLU, Dropout, MaxPool], GAP, FC.

The paper leaves kernel sizes, widths and dropout rates open; the defaults here are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class EEGCNN(nn.Module):
    """(N, in_channels, T) to logits (N, classes), for any C and any T >= 8 (three halvings).

    widths, kernel_sizes: of the three convolutions ('same', no bias: a batch norm follows). dropout: rate.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        widths: Sequence[int] = (32, 64, 128),
        kernel_sizes: Sequence[int] = (7, 5, 3),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width, size in zip(widths, kernel_sizes, strict=True):
            layers += [
                nn.Conv1d(channels, width, size, padding="same", bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.MaxPool1d(2),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=-1))
