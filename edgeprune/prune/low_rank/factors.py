"""Layers whose weights are a product of factors, W = U diag(sigma) V^T (DPRP, equations 1, 2, 5 and 6).

A kernel W[S, C, L2, L1] is the matrix M of S C rows and L2 L1 columns, row i = s C + c, column j = l2 L1 + l1 (counted
from 0): each row is one filter's taps on one input channel, so V holds r patterns of taps that all of them share. A
linear layer's W[D2, D1] is itself the matrix. Ours: so is the kernel of a layer with a single tap (1x1), as S rows of C
columns; the paper's S C rows of one column would have rank 1 and save nothing.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from edgeprune.errors import UnsupportedModelError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class Factored(nn.Module):
    """A layer with U (h, r), S (r,) and V (w, r) in place of its weight; what the rest is, subclasses say.

    weight_shape: of the weight that the factors stand for. full_rank: min(h, w), where training starts.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight_shape = tuple(weight.shape)
        u, s, v = split_matrix(weight.detach().reshape(matrix_shape(self.weight_shape)))
        self.full_rank = len(s)
        self.U, self.S, self.V = nn.Parameter(u), nn.Parameter(s), nn.Parameter(v)
        self.bias = bias  # the layer's own Parameter, if it has one

    @property
    def rank(self) -> int:
        """r: the singular values that are left."""
        return len(self.S)

    @property
    def taps(self) -> int:
        """L1 L2 ...: positions of the kernel; 1 for a linear layer."""
        return math.prod(self.weight_shape[2:])

    def rebuild_weight(self) -> Tensor:
        """U diag(sigma) V^T in the shape of the layer's weight."""
        return ((self.U * self.S) @ self.V.T).reshape(self.weight_shape)

    def extra_repr(self) -> str:
        return f"weight {self.weight_shape}, rank {self.rank} of {self.full_rank}"


class FactoredConv(Factored):
    """A convolution (1-D, 2-D, 3-D; groups 1) as factors, with the geometry of the layer it replaces."""

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        super().__init__(layer.weight, layer.bias)
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation

    def forward(self, x: Tensor) -> Tensor:
        convolve = _CONVOLVE[len(self.weight_shape) - 2]
        return convolve(x, self.rebuild_weight(), self.bias, self.stride, self.padding, self.dilation)


class FactoredLinear(Factored):
    """A linear layer as factors."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.weight, layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.rebuild_weight(), self.bias)


def matrix_shape(weight_shape: tuple[int, ...]) -> tuple[int, int]:
    """(h, w) of the matrix that a weight is factored as; see the head of this file.

    >>> matrix_shape((32, 16, 3, 3)), matrix_shape((32, 1, 40)), matrix_shape((10, 64)), matrix_shape((32, 96, 1))
    ((512, 9), (32, 40), (10, 64), (32, 96))
    """
    outputs, inputs, *kernel = weight_shape
    taps = math.prod(kernel)
    return (outputs, inputs) if taps == 1 else (outputs * inputs, taps)


def split_matrix(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (h, r), sigma (r,) descending and V (w, r) of a matrix at full rank r = min(h, w), computed in float64."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u.to(matrix.dtype).contiguous(), s.to(matrix.dtype), vt.T.to(matrix.dtype).contiguous()


def factor_layers(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of a raised program with its layers replaced by their factors at full rank; names and graph stay.

    Convolutions with groups 1 and linear layers are replaced, `explain_dense_layers` tells which others are not. The
    copy computes the same within rounding.

    Raises UnsupportedModelError where there is nothing to replace.
    """
    dense = explain_dense_layers(module)
    factored = copy.deepcopy(module)
    names = [name for name in _list_layers(factored) if name not in dense]
    if not names:
        found = "; ".join(f"{name}: {reason}" for name, reason in dense.items()) or "it has none of these layers"
        raise UnsupportedModelError(
            f"dprp factors convolutions of one group and linear layers that are trained; here there is none ({found}). "
            "Use another --method"
        )
    for name in names:
        layer = factored.get_submodule(name)
        assert isinstance(layer, (nn.Linear, *CONVOLUTIONS))  # _list_layers, and no reason against it
        new = FactoredLinear(layer) if isinstance(layer, nn.Linear) else FactoredConv(layer)
        new.train(layer.training)
        factored.set_submodule(name, new)
    return factored


def get_factored(module: nn.Module) -> dict[str, Factored]:
    """The factored layers by name, in the program's order of modules."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Factored)}


def explain_dense_layers(module: fx.GraphModule) -> Mapping[str, str]:
    """Why layers with weights stay dense: name -> reason, for those that do."""
    owners = Counter(id(p) for layer in module.modules() for p in layer.parameters(recurse=False))
    bare = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    reasons = {}
    for name in _list_layers(module):
        reason = _explain_dense(name, module.get_submodule(name), owners, bare)
        if reason:
            reasons[name] = reason
    return reasons


def _list_layers(module: fx.GraphModule) -> list[str]:
    """Names of the convolutions and linear layers that the program calls, in its order, each once."""
    names = dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op == "call_module")
    kinds = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
    return [name for name in names if isinstance(module.get_submodule(name), kinds)]


def _explain_dense(name: str, layer: nn.Module, owners: Counter[int], bare: set[str]) -> str:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)  # of the kinds in _list_layers
    if not weight.requires_grad:
        return "frozen: requires_grad is False"
    if isinstance(layer, TRANSPOSED):
        return "transposed convolution"
    if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
        return "depthwise convolution" if layer.groups == layer.in_channels else f"{layer.groups} groups"
    if isinstance(layer, CONVOLUTIONS) and layer.padding_mode != "zeros":
        return f"padding mode {layer.padding_mode}"
    if owners[id(weight)] > 1 or f"{name}.weight" in bare:
        return "its weight is used elsewhere too"
    return ""
