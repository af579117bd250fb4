"""The field's reference nets, as plain modules: what `edgeprune train --arch` builds and the tests compile.

Data-like: torch only, imports no room. A series goes in as (N, C, T), logits (N, classes) come out.

>>> sum(p.numel() for p in build_model("lite", in_channels=1, classes=2).parameters() if p.requires_grad)
9880
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from edgeprune.errors import InputError
from edgeprune.models.eegcnn import EEGCNN
from edgeprune.models.fcn import FCN
from edgeprune.models.inception import InceptionNetwork
from edgeprune.models.lite import LITE
from edgeprune.models.resnet1d import ResNet1D

ARCHITECTURES: Mapping[str, Callable[..., nn.Module]] = {
    "lite": LITE,
    "inception": InceptionNetwork,
    "fcn": FCN,
    "resnet1d": ResNet1D,
    "eegcnn": EEGCNN,
}


def build_model(name: str, *, in_channels: int, classes: int, **options: Any) -> nn.Module:
    """A new net with random weights (torch's global generator).

    name: a key of `ARCHITECTURES`.
    in_channels, classes: C of the samples (N, C, T), width of the head.
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


__all__ = ["ARCHITECTURES", "EEGCNN", "FCN", "LITE", "InceptionNetwork", "ResNet1D", "build_model"]
