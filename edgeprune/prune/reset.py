"""New weights for an old shape: what "trained from scratch" starts from."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from edgeprune.errors import UnsupportedModelError

Module = TypeVar("Module", bound=nn.Module)


def reset_parameters(module: Module, seed: int) -> Module:
    """A copy of `module` whose trainable layers are initialised anew, by their own `reset_parameters`.

    Parameters with requires_grad False stay (LITE's hand-crafted filters), and so do buffers, but for batch norm's
    running statistics. The weights depend on the seed and the shapes alone; the global generator is left as it was.

    Raises UnsupportedModelError for a trainable parameter that belongs to no layer that can reset itself (a class
    token, a scale): nothing says how to draw it.
    """
    fresh = copy.deepcopy(module)
    resettable = [layer for layer in fresh.modules() if callable(getattr(layer, "reset_parameters", None))]
    covered = {id(parameter) for layer in resettable for parameter in layer.parameters()}
    for name, parameter in fresh.named_parameters():
        if parameter.requires_grad and id(parameter) not in covered:
            raise UnsupportedModelError(
                f"parameter {name} {tuple(parameter.shape)}: no layer says how to initialise it, so this model cannot "
                "be trained from scratch. Use --retrain finetune (with DSP also --from trained), or give the model's "
                "factory with --model pkg.module:function"
            )
    frozen = [p for p in fresh.parameters() if not p.requires_grad]
    before = [p.detach().clone() for p in frozen]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in resettable:
            layer.reset_parameters()  # type: ignore[operator]  # checked to be callable above
    with torch.no_grad():
        for parameter, old in zip(frozen, before, strict=True):
            parameter.copy_(old)
    return fresh
