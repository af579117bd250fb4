"""Of a low-rank network for a microcontroller: which layers are deployed as factors, by what its firmware would take.

Fewer multiplications are not always less time: a thin layer has a cost for each output that its few multiplications
must carry. So both forms of every layer are brought to int8 programs and lowered for the target, without training and
without building anything, and a layer becomes factors only where that takes fewer multiply-accumulates *and* fewer
modelled cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from edgeprune.codegen import Estimate, estimate_firmware
from edgeprune.errors import UnsupportedModelError
from edgeprune.graph import Graph
from edgeprune.prune.low_rank import (
    choose_by_macs,
    count_form,
    deploy_factors,
    describe_deployment,
    explain_dense_layers,
    get_factored,
    measure_costs,
)
from edgeprune.prune.methods import MethodResult
from edgeprune.stages.prepare import Job
from edgeprune.stages.sizing import export_float_graph, quantize_float_graph, require_supported

CALIBRATION_SAMPLES = 32  # kernels are chosen by shapes and the size of sums, not by fine differences of ranges


@dataclass(frozen=True, eq=False)
class FormChoice:
    """forms: layer -> "factors" or "dense". figures: how they were chosen, for the report.

    cycles: layer -> {"cycles_dense", "cycles_factors"}, of the layers that could be factors; modelled.
    """

    forms: Mapping[str, str]
    figures: Mapping[str, Any]
    cycles: Mapping[str, Mapping[str, int]]


def deploy_low_rank(job: Job, result: MethodResult) -> MethodResult:
    """A method's result with the forms of its layers chosen for the job's target; as it is, if it has no factors.

    The deployed variant is the last one. Both forms compute the same, so nothing is trained or scored anew.
    """
    if result.factored is None or not job.target.is_microcontroller:
        return result
    choice = choose_forms(job, result.factored)
    module = deploy_factors(result.factored, choice.forms)
    key = list(result.variants)[-1]
    variants = {**result.variants, key: (result.variants[key][0], module)}
    assert job.model.module is not None  # it was factored
    costs = measure_costs(result.factored, job.model.input_shape)
    dense = explain_dense_layers(job.model.module)
    described = describe_deployment(result.factored, costs, choice.forms, dense)
    described["ranks"] = [{**row, **choice.cycles.get(row["layer"], {})} for row in described["ranks"]]
    return replace(
        result, module=module, variants=variants, record={**result.record, **described, "forms": choice.figures}
    )


def choose_forms(job: Job, factored: fx.GraphModule) -> FormChoice:
    """The form of each layer by modelled cycles on the job's target, a microcontroller.

    Factors need the maps between their two layers in RAM. Where the target states its RAM and whole maps do not fit
    into it, layers of the largest such maps go back to dense, until they fit or need no more than the dense net's own
    (the memory modes that stream rows then save as ever).
    """
    layers = get_factored(factored)
    by_macs = choose_by_macs(layers)
    candidates = [name for name, form in by_macs.items() if form == "factors"]
    figures: dict[str, Any] = {"chosen_by": f"multiply-accumulates and modelled cycles of {job.target.core}"}
    forms = dict.fromkeys(layers, "dense")
    if not candidates:
        return FormChoice(forms, {**figures, "candidates": 0, "factors": 0}, {})
    with job.progress.step("forms of low-rank layers", total=3) as step:
        whole = _estimate(job, factored, forms)
        step.advance()
        try:
            thin = _estimate(job, factored, by_macs)
        except UnsupportedModelError as error:
            return FormChoice(forms, {**figures, "candidates": 0, "factors": 0, "reason": str(error)}, {})
        step.advance()
        cycles = {
            name: {"cycles_dense": _sum_cycles(whole, name), "cycles_factors": _sum_cycles(thin, name)}
            for name in candidates
        }
        forms |= {name: "factors" for name, row in cycles.items() if row["cycles_factors"] < row["cycles_dense"]}
        known = thin if forms == by_macs else whole if "factors" not in forms.values() else None
        chosen, sent_back = _fit_ram(job, factored, _Estimated(forms, known or _estimate(job, factored, forms)), whole)
        step.advance()
    figures |= {
        "candidates": len(candidates),
        "factors": list(chosen.forms.values()).count("factors"),
        "dense_for_ram": sent_back,
        "cycles_dense": whole.cycles,
        "cycles_chosen": chosen.estimate.cycles,
        "arena_bytes_dense": whole.arena_bytes,
        "arena_bytes_chosen": chosen.estimate.arena_bytes,
    }
    return FormChoice(chosen.forms, figures, cycles)


@dataclass(frozen=True, eq=False)
class _Estimated:
    """Forms and what the net costs in them."""

    forms: Mapping[str, str]
    estimate: Estimate


def _fit_ram(job: Job, factored: fx.GraphModule, chosen: _Estimated, whole: Estimate) -> tuple[_Estimated, list[str]]:
    """What was chosen, with layers sent back to dense until the arena fits; which ones, largest maps first."""
    layers, costs = get_factored(factored), measure_costs(factored, job.model.input_shape)
    maps = {
        name: count_form(layers[name], costs.positions[name], form).map_values
        for name, form in chosen.forms.items()
        if form == "factors"
    }
    order = sorted(maps, key=lambda name: maps[name], reverse=True)
    sent_back: list[str] = []
    while job.target.ram_bytes is not None and order:
        if chosen.estimate.arena_bytes <= max(job.target.ram_bytes, whole.arena_bytes):
            break
        sent_back.append(order.pop(0))
        fewer = {**chosen.forms, sent_back[-1]: "dense"}
        chosen = _Estimated(fewer, _estimate(job, factored, fewer))
    return chosen, sent_back


def _estimate(job: Job, factored: fx.GraphModule, forms: Mapping[str, str]) -> Estimate:
    """The modelled cost of the net in these forms, over whole maps."""
    return estimate_firmware(_quantize(job, deploy_factors(factored, forms)), job.target)


def _quantize(job: Job, module: fx.GraphModule) -> Graph:
    graph = export_float_graph(module, job.model.input_shape)
    require_supported(graph, job.target)
    return quantize_float_graph(graph, job.data.x_train[:CALIBRATION_SAMPLES])


def _sum_cycles(estimate: Estimate, layer: str) -> int:
    """Of a layer in either form, over all its calls, with the padding before it: "conv.taps/pad", "shared/conv"."""
    names = {layer, f"{layer}.taps", f"{layer}.mix"}
    return sum(row.estimated_cycles for row in estimate.layers if row.name.partition("/")[0] in names)
