"""How each parametric aten op of a training-IR program is expressed as a module of `torch.nn`.

One function per kind of layer. Each returns a `LayerCall`, or raises `NotALayer` where the call can't be a module (its
weight is computed, say); the op then stays a plain function call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeprune.errors import UnsupportedModelError
from edgeprune.load.tracing import describe_node

aten = torch.ops.aten
Arguments = Mapping[str, Any]


class NotALayer(Exception):  # noqa: N818  not an error: the op stays a function call
    """This call can't be expressed as a module; the message says why."""


@dataclass(frozen=True)
class LayerCall:
    """A module call in place of an aten node.

    name: where the module should sit, as in the user's model.
    key: equal keys are the same module (a layer used twice).
    build: makes the module around the program's own parameters.
    input: the node that is its one input.
    note: what could not be kept, for the user; or ''.
    """

    name: str
    key: Hashable
    build: Callable[[], nn.Module]
    input: fx.Node
    note: str = ""


def bind_arguments(target: torch._ops.OpOverload, node: fx.Node) -> dict[str, Any]:
    """All schema arguments of an aten call by the names that `target` gives them, defaults filled in."""
    bound = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(node.args) and not argument.kwarg_only:
            bound[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


class ProgramState:
    """The parameters and buffers of a program, copied once each, so that raised modules share nothing with it.

    Tensors that were one in the program (tied weights, also after loading an archive) stay one.
    """

    def __init__(self, program: nn.Module) -> None:
        self._copies: dict[Hashable, Tensor] = {}
        self.tensors: dict[str, Tensor] = {}
        named = [*program.named_parameters(remove_duplicate=False), *program.named_buffers(remove_duplicate=False)]
        for name, tensor in named:
            self.tensors[name] = self._copy(tensor)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def _copy(self, tensor: Tensor) -> Tensor:
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        key = place if tensor.numel() else id(tensor)
        if key not in self._copies:
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=tensor.requires_grad)
            self._copies[key] = copy
        return self._copies[key]

    def read_weight(self, node: fx.Node | None) -> nn.Parameter | None:
        """The parameter behind a get_attr node. A buffer used as a weight becomes a frozen parameter."""
        tensor = self.read_buffer(node)
        if tensor is None or isinstance(tensor, nn.Parameter):
            return tensor
        parameter = nn.Parameter(tensor, requires_grad=False)
        self.tensors = {name: parameter if other is tensor else other for name, other in self.tensors.items()}
        return parameter

    def read_buffer(self, node: fx.Node | None) -> Tensor | None:
        """The tensor behind a get_attr node."""
        if node is None:
            return None
        if node.op != "get_attr" or node.target not in self.tensors:
            raise NotALayer("its weight is computed in forward()")
        return self.tensors[str(node.target)]


def find_module_name(node: fx.Node, layer_class: type[nn.Module]) -> str:
    """The name of the user's module that made this call, if it is a layer of exactly this class; else ''."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return ""
    name, module_type = stack[-1]
    if isinstance(module_type, type):
        module_type = f"{module_type.__module__}.{module_type.__qualname__}"
    name = re.sub(r"@\d+", "", str(name))  # torch.export marks the second call of a module as name@1
    is_layer = module_type == f"{layer_class.__module__}.{layer_class.__qualname__}"
    return name if is_layer and re.fullmatch(r"\w+(\.\w+)*", name) else ""


def find_owner_name(*operands: fx.Node | None) -> str:
    """The module that owns the first given parameter: 'block.conv' for 'block.conv.weight'."""
    target = next((str(operand.target) for operand in operands if operand is not None), "")
    owner, _, leaf = target.rpartition(".")
    is_ordinary = leaf in ("weight", "bias", "running_mean", "running_var") or leaf.startswith(
        ("weight_ih", "weight_hh")
    )
    return owner if is_ordinary else target  # e.g. in_proj_weight of an attention: one of several in its module


def _is_transposed(node: fx.Node) -> bool:
    return "conv_transpose" in str(node.target)


def raise_convolution(node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """conv1d/2d/3d and conv_transpose1d/2d."""
    weight, bias = state.read_weight(arguments["weight"]), state.read_weight(arguments["bias"])
    assert weight is not None
    rank = weight.dim() - 2
    if node.args[0].meta["val"].dim() != rank + 2:  # type: ignore[union-attr]
        raise NotALayer("its input has no batch axis")

    def spread(value: str | list[int]) -> str | tuple[int, ...]:
        if isinstance(value, str):
            return value
        return tuple(value) * rank if len(value) == 1 else tuple(value)

    groups = arguments["groups"]
    options: dict[str, Any] = {name: spread(arguments[name]) for name in ("stride", "padding", "dilation")}
    options |= {"groups": groups, "bias": bias is not None}
    prefix = "Conv"
    inputs, outputs = weight.shape[1] * groups, weight.shape[0]
    if _is_transposed(node):
        prefix = "ConvTranspose"
        inputs, outputs = weight.shape[0], weight.shape[1] * groups
        options["output_padding"] = spread(arguments["output_padding"])
    layer_class = getattr(nn, f"{prefix}{rank}d")

    def build() -> nn.Module:
        layer = layer_class(inputs, outputs, tuple(weight.shape[2:]), device="meta", **options)
        layer.weight, layer.bias = weight, bias
        return layer

    key = (layer_class, id(weight), id(bias), repr(options))
    name = find_module_name(node, layer_class) or find_owner_name(arguments["weight"])
    return LayerCall(name, key, build, arguments["input"])


def raise_linear(node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """linear."""
    weight, bias = state.read_weight(arguments["weight"]), state.read_weight(arguments["bias"])
    assert weight is not None

    def build() -> nn.Module:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
        return layer

    return LayerCall(find_owner_name(arguments["weight"]), ("linear", id(weight), id(bias)), build, arguments["input"])


def raise_batch_norm(node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """batch_norm, in either mode; a BN that is exported in eval mode with momentum 0.0 had momentum None."""
    weight, bias = state.read_weight(arguments["weight"]), state.read_weight(arguments["bias"])
    mean, variance = (state.read_buffer(arguments[name]) for name in ("running_mean", "running_var"))
    shape = arguments["input"].meta["val"].shape
    layer_class = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(len(shape))
    if layer_class is None or (weight is None) != (bias is None):
        raise NotALayer("no BatchNorm of torch.nn has this form")
    owners = [arguments[name] for name in ("weight", "running_mean")]
    name = find_owner_name(*owners) or find_module_name(node, layer_class)
    momentum, note = arguments["momentum"], ""
    if momentum == 0.0 and not arguments["training"]:
        momentum = None
        note = "its momentum is lost by torch.export; None (cumulative average) is assumed"
    counter = state.tensors.get(f"{name}.num_batches_tracked", torch.tensor(0))

    def build() -> nn.Module:
        layer = layer_class(shape[1], arguments["eps"], momentum, weight is not None, mean is not None, device="meta")
        layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
        if mean is not None:
            layer.running_mean, layer.running_var, layer.num_batches_tracked = mean, variance, counter
        return layer

    identity = (id(weight), id(mean)) if weight is not None or mean is not None else node.name
    return LayerCall(name, ("batch_norm", layer_class, identity), build, arguments["input"], note)


def raise_layer_norm(node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """layer_norm over the last axes."""
    weight, bias = state.read_weight(arguments["weight"]), state.read_weight(arguments["bias"])
    name = find_owner_name(arguments["weight"]) or find_module_name(node, nn.LayerNorm)
    shape = list(arguments["normalized_shape"])

    def build() -> nn.Module:
        layer = nn.LayerNorm(shape, arguments["eps"], weight is not None, bias is not None, device="meta")
        layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
        return layer

    identity = (id(weight), id(bias)) if weight is not None else node.name
    return LayerCall(name, ("layer_norm", identity, arguments["eps"]), build, arguments["input"])


def raise_group_norm(node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """group_norm."""
    weight, bias = state.read_weight(arguments["weight"]), state.read_weight(arguments["bias"])
    if (weight is None) != (bias is None):
        raise NotALayer("nn.GroupNorm has both weight and bias, or neither")
    name = find_owner_name(arguments["weight"]) or find_module_name(node, nn.GroupNorm)
    groups, channels = arguments["num_groups"], arguments["input"].meta["val"].shape[1]

    def build() -> nn.Module:
        layer = nn.GroupNorm(groups, channels, arguments["eps"], weight is not None, device="meta")
        layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
        return layer

    identity = (id(weight), id(bias)) if weight is not None else node.name
    return LayerCall(name, ("group_norm", identity, groups, arguments["eps"]), build, arguments["input"])


def raise_prelu(_node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """prelu."""
    weight = state.read_weight(arguments["weight"])
    assert weight is not None

    def build() -> nn.Module:
        layer = nn.PReLU(weight.numel(), device="meta")
        layer.weight = weight
        return layer

    return LayerCall(find_owner_name(arguments["weight"]), ("prelu", id(weight)), build, arguments["self"])


def raise_dropout(node: fx.Node, arguments: Arguments, _state: ProgramState) -> LayerCall:
    """The dropouts; their `train` argument gives way to the module's own mode."""
    kind = str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
    rank = arguments["input"].meta["val"].dim()
    if kind == "feature_dropout":
        if rank not in (3, 4, 5):
            raise NotALayer(f"channel dropout on {rank} axes; it stays off")
        layer_class: type[nn.Module] = {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}[rank]
    else:
        layer_class = _DROPOUTS[kind]
    name = find_module_name(node, layer_class)
    key = ("dropout", name or node.name, layer_class, arguments["p"])
    return LayerCall(name or "dropout", key, lambda: layer_class(arguments["p"]), arguments["input"])


_DROPOUTS = {
    "dropout": nn.Dropout,
    "alpha_dropout": nn.AlphaDropout,
    "feature_alpha_dropout": nn.FeatureAlphaDropout,
}


def raise_recurrent(node: fx.Node, arguments: Arguments, state: ProgramState) -> LayerCall:
    """gru and lstm that start from zeros."""
    if "params" not in arguments:
        raise UnsupportedModelError(f"{describe_node(node)}: packed sequences are not supported; pad to one length")
    starts = arguments["hx"] if isinstance(arguments["hx"], (list, tuple)) else [arguments["hx"]]
    if not all(start.target in (aten.zeros.default, aten.new_zeros.default) for start in starts):
        raise NotALayer("its initial state is not zero (dropout between its layers, if any, stays off)")
    parameters = [state.read_weight(parameter) for parameter in arguments["params"]]
    directions = 2 if arguments["bidirectional"] else 1
    per_layer = 4 if arguments["has_biases"] else 2
    if len(parameters) != per_layer * directions * arguments["num_layers"]:
        raise NotALayer("LSTM with projections")
    input_weight, hidden_weight = parameters[:2]
    assert input_weight is not None
    assert hidden_weight is not None

    def build() -> nn.Module:
        layer_class = nn.LSTM if "lstm" in str(node.target) else nn.GRU
        layer = layer_class(
            input_weight.shape[1],
            hidden_weight.shape[1],
            arguments["num_layers"],
            arguments["has_biases"],
            arguments["batch_first"],
            arguments["dropout"],
            arguments["bidirectional"],
            device="meta",
        )
        names = [name for names in layer._all_weights for name in names]
        for name, parameter in zip(names, parameters, strict=True):
            setattr(layer, name, parameter)
        return layer

    key = ("recurrent", *map(id, parameters))
    return LayerCall(find_owner_name(arguments["params"][0]), key, build, arguments["input"])


RaiseLayer = Callable[[fx.Node, Arguments, ProgramState], LayerCall]

LAYERS: dict[torch._ops.OpOverload, RaiseLayer] = {
    aten.linear.default: raise_linear,
    aten.conv1d.default: raise_convolution,
    aten.conv1d.padding: raise_convolution,
    aten.conv2d.default: raise_convolution,
    aten.conv2d.padding: raise_convolution,
    aten.conv3d.default: raise_convolution,
    aten.conv3d.padding: raise_convolution,
    aten.conv_transpose1d.default: raise_convolution,
    aten.conv_transpose2d.input: raise_convolution,
    aten.batch_norm.default: raise_batch_norm,
    aten.layer_norm.default: raise_layer_norm,
    aten.group_norm.default: raise_group_norm,
    aten.prelu.default: raise_prelu,
    aten.dropout.default: raise_dropout,
    aten.feature_dropout.default: raise_dropout,
    aten.alpha_dropout.default: raise_dropout,
    aten.feature_alpha_dropout.default: raise_dropout,
    aten.gru.input: raise_recurrent,
    aten.gru.data: raise_recurrent,
    aten.lstm.input: raise_recurrent,
    aten.lstm.data: raise_recurrent,
}
