"""Dilated depthwise convolutions, trained faster: the same sums, in another order of memory.

PyTorch's CPU kernels for a dilated depthwise Conv1d are slow. Cut into its phases, it is not dilated any more: with
dilation d, output t = q*d + r sums w[j] * x[(q + j)*d + r], so on a series laid out as (T/d, d) it is a plain
convolution down each of d columns.

Used while training only; exported programs never see it. Training LITE on ItalyPowerDemand (67 series of 24 points)
takes 20 ms an epoch instead of 33, one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

from torch import Tensor, nn
from torch.nn import functional


@contextmanager
def fast_depthwise(module: nn.Module) -> Iterator[None]:
    """Inside the block, the dilated depthwise Conv1d layers of `module` compute by phases. Parameters stay the same."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv1d) and is_dilated_depthwise(layer)]
    for layer in layers:
        layer.forward = MethodType(convolve_by_phases, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own forward shows again


def is_dilated_depthwise(layer: nn.Conv1d) -> bool:
    """Whether `convolve_by_phases` can stand in for the layer's forward."""
    return (
        layer.groups > 1
        and layer.groups == layer.in_channels
        and layer.dilation[0] > 1
        and layer.stride[0] == 1
        and layer.padding_mode == "zeros"
    )


def convolve_by_phases(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """What layer(x) gives, (N, C, T) to (N, C', T'), for a dilated depthwise layer of stride 1."""
    (kernel_size,), (dilation,) = layer.kernel_size, layer.dilation
    span = (kernel_size - 1) * dilation
    if layer.padding == "same":
        left, right = span // 2, span - span // 2  # as PyTorch and TFLite: the odd one goes to the right
    elif layer.padding == "valid":
        left = right = 0
    else:
        left = right = int(layer.padding[0])
    length = left + x.shape[-1] + right
    columns = -(-length // dilation)  # of the padded series, rounded up
    padded = functional.pad(x, (left, right + columns * dilation - length))
    phases = padded.view(*padded.shape[:2], columns, dilation)
    result = functional.conv2d(phases, layer.weight[..., None], layer.bias, groups=layer.groups)
    return result.flatten(2)[..., : length - span]
