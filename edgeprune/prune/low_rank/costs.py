"""What layers cost as factors and as dense ones: multiply-accumulates, parameters, maps in memory.

For each output position a dense convolution takes S C L multiply-accumulates (L taps). As factors, r patterns of taps
on each of C channels and then a pointwise layer take C r L + S C r: less if r (L + S) < S L. Linear layers and those of
one tap take r (C + S) against S C. The weights that are deployed are as many as the multiply-accumulates of one
position; the paper counts r (S C + L + 1), for it stores each pattern once and rebuilds the kernel at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.prune.low_rank.factors import Factored, get_factored


@dataclass(frozen=True)
class FormCosts:
    """One layer in one form, for one sample.

    parameters: weights that are deployed, without bias. map_values: elements of the map between the two layers that
    factors become; 0 for a dense layer.
    """

    macs: int
    parameters: int
    map_values: int = 0


@dataclass(frozen=True)
class NetCosts:
    """What a net costs around its factored layers, measured once.

    positions: factored layer -> output positions of one sample, over all its calls. other_macs: of everything else.
    """

    positions: Mapping[str, int]
    other_macs: int

    def count_macs(self, layers: Mapping[str, Factored], forms: Mapping[str, str]) -> int:
        """MACs of one sample with these layers deployed in these forms."""
        return self.other_macs + sum(
            count_form(layer, self.positions[name], forms[name]).macs for name, layer in layers.items()
        )


def count_form(layer: Factored, positions: int, form: str) -> FormCosts:
    """Costs of a layer as "factors" (at its present rank) or "dense"."""
    outputs, inputs = layer.weight_shape[:2]
    if form == "dense":
        weights = outputs * inputs * layer.taps
        return FormCosts(positions * weights, weights)
    maps = layer.rank * (inputs if layer.taps > 1 else 1)
    weights = layer.rank * inputs * layer.taps + outputs * maps
    return FormCosts(positions * weights, weights, positions * maps)


def measure_costs(module: fx.GraphModule, sample_shape: Sequence[int]) -> NetCosts:
    """Run one sample of (C, ...) through a factored program and note where its multiply-accumulates are.

    Counted by PyTorch's FLOP counter, which sees convolutions and matrix products. Mode and buffers stay as they are.
    """
    positions: dict[str, int] = {}
    layers = get_factored(module)
    counter = FlopCounterMode(display=False)
    inside = 0  # FLOPs of the factored layers, with those that rebuild their kernels
    started: list[int] = []

    def before(_layer: nn.Module, _inputs: Any) -> None:
        started.append(counter.get_total_flops())

    def after(name: str) -> Any:
        def note(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            nonlocal inside
            assert isinstance(layer, Factored)
            inside += counter.get_total_flops() - started.pop()
            positions[name] = positions.get(name, 0) + output.numel() // layer.weight_shape[0]

        return note

    handles = []
    for name, layer in layers.items():
        handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after(name))]
    modes = {layer: layer.training for layer in module.modules()}
    parameter = next(module.parameters())
    try:
        module.eval()
        # the counter does not know the CPU's fused attention
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            module(torch.zeros(1, *sample_shape, dtype=parameter.dtype, device=parameter.device))
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return NetCosts({name: positions.get(name, 0) for name in layers}, (counter.get_total_flops() - inside) // 2)


def describe_deployment(
    module: nn.Module, costs: NetCosts, forms: Mapping[str, str], dense: Mapping[str, str]
) -> dict[str, Any]:
    """Sums over a factored net and a row for each layer, for the report.

    forms: in which the layers are deployed. dense: layers that were not factored -> reason.
    """
    layers = get_factored(module)
    return {
        "macs_base": costs.count_macs(layers, dict.fromkeys(layers, "dense")),
        "macs_deployed": costs.count_macs(layers, forms),
        "parameters_low_rank": count_parameters(module),
        "ranks": [_describe_layer(name, layer, costs.positions[name], forms[name]) for name, layer in layers.items()]
        + [{"layer": name, "form": "dense", "reason": reason} for name, reason in dense.items()],
    }


def _describe_layer(name: str, layer: Factored, positions: int, form: str) -> dict[str, Any]:
    whole, thin = (count_form(layer, positions, kind) for kind in ("dense", "factors"))
    return {
        "layer": name,
        "shape": list(layer.weight_shape),
        "full_rank": layer.full_rank,
        "rank": layer.rank,
        "form": form,
        "macs_dense": whole.macs,
        "macs_factors": thin.macs,
        "parameters_dense": whole.parameters,
        "parameters_factors": layer.U.numel() + layer.S.numel() + layer.V.numel(),
        "parameters_deployed": (thin if form == "factors" else whole).parameters,
        "map_values": thin.map_values if form == "factors" else 0,
        "singular_values": [float(value) for value in layer.S.detach()],
    }


def count_parameters(module: nn.Module) -> int:
    """All parameters of a module, shared ones once; factored layers count r (h + w + 1), as in the paper."""
    return sum(parameter.numel() for parameter in module.parameters())
