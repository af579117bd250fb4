"""From factors back to plain layers: what is exported holds nothing that an ONNX reader would not know.

A convolution of rank r becomes `<layer>.taps`, a depthwise convolution with multiplier r that applies the r patterns
of V to each input channel (channel c, pattern j give map c r + j) and has the layer's stride, padding and dilation; and
`<layer>.mix`, a pointwise one of weight U[s C + c, j] sigma_j with the bias. A linear layer, or one of a single tap,
becomes two thin ones. Ours: the paper rebuilds the kernel at run time, which saves no multiplication.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.prune.low_rank.costs import count_form
from edgeprune.prune.low_rank.factors import Factored, FactoredConv, get_factored

FORMS = ("factors", "dense")
_CONVOLUTIONS: Mapping[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def choose_by_macs(layers: Mapping[str, Factored]) -> dict[str, str]:
    """For each layer the form of fewer multiply-accumulates; dense if they are equal."""
    return {
        name: "factors" if count_form(layer, 1, "factors").macs < count_form(layer, 1, "dense").macs else "dense"
        for name, layer in layers.items()
    }


def deploy_factors(module: fx.GraphModule, forms: Mapping[str, str] | None = None) -> fx.GraphModule:
    """A copy of a factored program with plain layers in place of its factored ones.

    forms: layer -> "factors" or "dense"; by default `choose_by_macs`. Both compute the same within rounding.
    """
    deployed = copy.deepcopy(module)
    layers = get_factored(deployed)
    forms = choose_by_macs(layers) if forms is None else forms
    with torch.no_grad():
        for name, layer in layers.items():
            if forms[name] == "dense":
                deployed.set_submodule(name, _make_dense(layer))
            else:
                _split_layer(deployed, name, layer)
    deployed.recompile()
    return deployed


def _split_layer(module: fx.GraphModule, name: str, layer: Factored) -> None:
    """Put taps and mix where the layer was, in the modules and at each of its calls in the graph."""
    container = nn.Module()
    container.taps, container.mix = _make_taps(layer), _make_mix(layer)
    container.train(layer.training)
    module.set_submodule(name, container)
    for node in [node for node in module.graph.nodes if node.op == "call_module" and node.target == name]:
        with module.graph.inserting_before(node):
            taps = module.graph.create_node("call_module", f"{name}.taps", node.args, node.kwargs, f"{node.name}_taps")
        # the node keeps its name, which others may know (observed tensors, the model's output)
        node.target, node.args, node.kwargs = f"{name}.mix", (taps,), {}


def _make_dense(layer: Factored) -> nn.Module:
    """The layer with its kernel rebuilt."""
    outputs, inputs, *kernel = layer.weight_shape
    if not isinstance(layer, FactoredConv):
        return _fill(nn.Linear(inputs, outputs, layer.bias is not None, device="meta"), layer.rebuild_weight(), layer)
    return _make_conv(layer, inputs, outputs, tuple(kernel), layer.rebuild_weight(), has_bias=True, is_whole=True)


def _make_taps(layer: Factored) -> nn.Module:
    """The patterns of V; no bias."""
    _, inputs, *kernel = layer.weight_shape
    if not isinstance(layer, FactoredConv):
        return _fill(nn.Linear(inputs, layer.rank, bias=False, device="meta"), layer.V.T)
    if layer.taps == 1:
        weight = layer.V.T.reshape(layer.rank, inputs, *kernel)
        return _make_conv(layer, inputs, layer.rank, tuple(kernel), weight, is_whole=True)
    patterns = layer.V.T.reshape(layer.rank, 1, *kernel)
    weight = patterns.repeat(inputs, *[1] * (patterns.dim() - 1))
    return _make_conv(layer, inputs, layer.rank * inputs, tuple(kernel), weight, groups=inputs, is_whole=True)


def _make_mix(layer: Factored) -> nn.Module:
    """U sigma, with the bias."""
    outputs, inputs, *kernel = layer.weight_shape
    weight = layer.U * layer.S
    if not isinstance(layer, FactoredConv):
        return _fill(nn.Linear(layer.rank, outputs, layer.bias is not None, device="meta"), weight, layer)
    maps = layer.rank if layer.taps == 1 else layer.rank * inputs
    ones = (1,) * len(kernel)
    return _make_conv(layer, maps, outputs, ones, weight.reshape(outputs, maps, *ones), has_bias=True)


def _make_conv(
    layer: FactoredConv,
    inputs: int,
    outputs: int,
    kernel: tuple[int, ...],
    weight: Tensor,
    *,
    groups: int = 1,
    has_bias: bool = False,
    is_whole: bool = False,
) -> nn.Module:
    """A convolution of this weight. is_whole: it has the layer's stride, padding and dilation."""
    geometry: dict[str, Any] = {}
    if is_whole:
        geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    bias = has_bias and layer.bias is not None
    conv = _CONVOLUTIONS[len(kernel)](inputs, outputs, kernel, groups=groups, bias=bias, device="meta", **geometry)  # type: ignore[arg-type]
    return _fill(conv, weight, layer if bias else None)


def _fill(new: nn.Module, weight: Tensor, layer: Factored | None = None) -> nn.Module:
    """Give a layer without memory its weight, and the bias of `layer`, the Parameter itself, if there is one."""
    new.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if layer is not None and layer.bias is not None:
        new.bias = layer.bias
    return new.train(layer.training) if layer is not None else new
