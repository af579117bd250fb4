"""A small VGG (Simonyan and Zisserman 2015, arXiv 1409.1556) with batch norms and one dense layer, for small images.

The paper's nets have up to 16 convolutions and three dense layers for images of 224 pixels; the plan here is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgeprune.errors import InputError


class VGG(nn.Module):
    """(N, in_channels, H, W) to logits (N, classes), for any H and W from 2 ** stages on.

    plan: for each stage the filters of its convolutions (3x3, BN, ReLU); a max pool of 2 ends each stage. Global
    average pool and one dense layer follow. No biases but the dense layer's.

    Raises InputError for a plan without stages, an empty stage, or a width below 1.
    """

    def __init__(
        self, *, in_channels: int, classes: int, plan: Sequence[Sequence[int]] = ((32, 32), (64, 64), (128, 128))
    ) -> None:
        super().__init__()
        if not plan or not all(stage and min(stage) >= 1 for stage in plan):
            raise InputError(
                f"vgg: plan is {[list(stage) for stage in plan]}; give the filters of one convolution or more for "
                "each of one stage or more, such as [[32, 32], [64, 64]]"
            )
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in plan:
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(-2, -1)))
