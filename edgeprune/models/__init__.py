"""The field's reference nets, as plain modules: what `edgeprune train --arch` builds and the tests compile.

Data-like: torch only, imports no room. A series goes in as (N, C, T), an image as (N, C, H, W); logits (N, classes)
come out.

>>> sum(p.numel() for p in build_model("lite", in_channels=1, classes=2).parameters() if p.requires_grad)
9880
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from edgeprune.errors import InputError
from edgeprune.models.eegcnn import EEGCNN
from edgeprune.models.fcn import FCN
from edgeprune.models.inception import InceptionNetwork
from edgeprune.models.lite import LITE
from edgeprune.models.resnet1d import ResNet1D
from edgeprune.models.resnet2d import ResNet2D
from edgeprune.models.vgg import VGG

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "lite": LITE,
    "inception": InceptionNetwork,
    "fcn": FCN,
    "resnet1d": ResNet1D,
    "eegcnn": EEGCNN,
    "resnet20": ResNet2D,
    "resnet32": partial(ResNet2D, depth=32),
    "vgg": VGG,
}
IMAGE_ARCHITECTURES = ("resnet20", "resnet32", "vgg")


def build_model(name: str, *, in_channels: int, classes: int, **options: Any) -> nn.Module:
    """A new net with random weights (torch's global generator).

    name: a key of `ARCHITECTURES`.
    in_channels, classes: C of the samples, width of the head. Samples are images (N, C, H, W) for the names in
        `IMAGE_ARCHITECTURES`, series (N, C, T) for all others.
    options: further keyword arguments of the architecture, such as filters=16 for LITE.

    Raises InputError for an unknown name or option, or a size below 1.
    """
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"architecture {name!r} is unknown; allowed: {', '.join(ARCHITECTURES)}.{hint}")
    architecture = ARCHITECTURES[name]
    allowed = [key for key in inspect.signature(architecture).parameters if key not in ("in_channels", "classes")]
    for key in options:
        if key not in allowed:
            raise InputError(f"architecture {name}: option {key!r} is unknown; allowed: {', '.join(allowed) or 'none'}")
    for key, value in (("in_channels", in_channels), ("classes", classes)):
        if value < 1:
            raise InputError(f"architecture {name}: {key} is {value}; it must be at least 1")
    return architecture(in_channels=in_channels, classes=classes, **options)


def check_sample_shape(name: str, sample_shape: Sequence[int]) -> None:
    """Raises InputError if an architecture for series is to take images, or the other way round.

    sample_shape: (C, T) or (C, H, W).
    """
    takes_images = name in IMAGE_ARCHITECTURES
    if len(sample_shape) != (3 if takes_images else 2):
        kind = "images (C, H, W)" if takes_images else "series (C, T)"
        others = [other for other in ARCHITECTURES if (other in IMAGE_ARCHITECTURES) is not takes_images]
        raise InputError(
            f"architecture {name} takes {kind}; the samples have shape {tuple(sample_shape)}. Allowed for them: "
            f"{', '.join(others)}"
        )


__all__ = [
    "ARCHITECTURES",
    "EEGCNN",
    "FCN",
    "IMAGE_ARCHITECTURES",
    "LITE",
    "VGG",
    "InceptionNetwork",
    "ResNet1D",
    "ResNet2D",
    "build_model",
    "check_sample_shape",
]
