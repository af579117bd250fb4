"""MACs and parameters of a PyTorch module, before anything is exported: the figures of the base model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class ParameterCounts:
    """Elements of parameters that are trained, and of those with requires_grad False; shared ones once."""

    trainable: int
    frozen: int

    @property
    def total(self) -> int:
        return self.trainable + self.frozen


def count_parameters(module: nn.Module) -> ParameterCounts:
    """Count a module's parameters; buffers (running statistics) are none."""
    trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in module.parameters())
    return ParameterCounts(trainable, total - trainable)


@dataclass(frozen=True)
class LayerMacs:
    """One layer of the module, in the order of first execution.

    name: its path in the module; "" for matrix products outside of any layer. kind: the class ('Conv1d').
    output_shape: of one sample, without the batch; () for such products.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    macs: int
    parameters: int

    @property
    def output_channels(self) -> int | None:
        """Channels of a layer's output; None where there is no such axis."""
        if not self.output_shape:
            return None
        return self.output_shape[0] if self.kind.startswith(("Conv", "BatchNorm")) else self.output_shape[-1]


@dataclass(frozen=True)
class MacCounts:
    """MACs of one sample's forward pass."""

    layers: tuple[LayerMacs, ...]

    @property
    def total(self) -> int:
        return sum(layer.macs for layer in self.layers)


def count_macs(module: nn.Module, input_shape: Sequence[int]) -> MacCounts:
    """Count the MACs of one forward pass, layer by layer.

    input_shape: of one sample, (C, T) or (C, H, W). Convolution, linear and recurrent layers are counted by their
    formulas, matrix products outside of them by PyTorch's FLOP counter. A layer that runs twice counts twice; what does
    not run has no row. Agrees with `profile_graph(...).macs` and with `torch.utils.flop_counter` / 2 on convolutional
    nets. The module's mode, weights and buffers stay as they are.
    """
    rows: dict[str, LayerMacs] = {}
    counter = FlopCounterMode(display=False)
    inside = 0  # FLOPs that the counter saw within the layers below
    started: list[int] = []

    def before(_layer: nn.Module, _inputs: Any) -> None:
        started.append(counter.get_total_flops())

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(layer: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal inside
            inside += counter.get_total_flops() - started.pop()
            result = output[0] if isinstance(output, tuple) else output
            earlier = rows[name].macs if name in rows else 0
            rows[name] = LayerMacs(
                name=name,
                kind=type(layer).__name__,
                output_shape=tuple(result.shape[1:]),
                macs=earlier + _layer_macs(layer, inputs[0], result),
                parameters=sum(parameter.numel() for parameter in layer.parameters(recurse=False)),
            )

        return note

    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, _COUNTED) or (not list(layer.children()) and list(layer.parameters())):
            handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after(name))]
    example = next(module.parameters(), torch.zeros(()))
    try:
        with _evaluating(module), torch.no_grad(), counter:
            module(torch.zeros(1, *input_shape, dtype=example.dtype, device=example.device))
    finally:
        for handle in handles:
            handle.remove()
    elsewhere = (counter.get_total_flops() - inside) // 2
    products = (LayerMacs("", "matmul", (), elsewhere, 0),) if elsewhere else ()
    return MacCounts((*rows.values(), *products))


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_COUNTED = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear, nn.RNNBase)


def _layer_macs(layer: nn.Module, x: Tensor, result: Tensor) -> int:
    """MACs of one call on a batch of 1."""
    if isinstance(layer, _CONVOLUTIONS):
        return result.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, _TRANSPOSED):
        return x.numel() * layer.out_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return result.numel() * layer.in_features
    if isinstance(layer, nn.RNNBase):
        steps = result.shape[1] if layer.batch_first else result.shape[0]
        return steps * sum(weight.numel() for weights in layer.all_weights for weight in weights if weight.ndim == 2)
    return 0


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Every submodule in eval mode; afterwards each as it was (a frozen batch norm differs from its parent).

    Attention is computed by plain matrix products meanwhile: the counter does not know the CPU's fused kernels.
    """
    training = {layer: layer.training for layer in module.modules()}
    for layer in training:
        layer.training = False
    had_fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fast_path)
        for layer, mode in training.items():
            layer.training = mode
