"""Folding: what removed channels contributed to the next layers is kept as a constant.

A channel that is worth removing is often a constant, not zero: a filter that went to zero under a penalty leaves
relu(beta) behind its BatchNorm. Removing it takes W[:, dead] * constant away from each next layer. So the mean of that
contribution, over samples and positions, is measured and added to the next layer's bias; or, where that layer has none
and a BatchNorm follows, taken off the BatchNorm's running mean; or, else, becomes a new bias.

For a channel that is constant this is exact, but for a consumer with a zero-padded border: there the contribution is
smaller at the border than inside. `Fold.exact` tells, from the same measurement.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgeprune.errors import InputError
from edgeprune.prune.function_rules import aten
from edgeprune.prune.propagation import evaluation_mode
from edgeprune.prune.units import ChannelUnits, TensorUnits

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# A contribution counts as constant if it strays by at most this many roundings, relative to its largest value: sums
# of a few hundred products are off by tens of roundings from one position to the next.
ROUNDINGS = 100


@dataclass(frozen=True)
class Fold:
    """What became of one layer's lost contributions.

    layer: the layer that lost inputs. target: the tensor that took their mean, None if nothing could (see `note`).
    exact: whether the contribution was the same for all samples and positions measured.
    deviation: the largest difference from the mean; magnitude: the largest contribution; both in the layer's output.
    """

    layer: str
    target: str | None
    exact: bool
    deviation: float
    magnitude: float
    note: str = ""


@dataclass
class _Probe:
    """Computes what a layer's dead inputs contribute to its (living) outputs, and keeps statistics of it.

    layer: holds only the weights of dead inputs, and no bias. living: bool (outputs,).
    """

    layer: nn.Module
    channel_axis: int  # of its output, from the end
    living: torch.Tensor
    total: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor
    count: int = 0

    def measure(self, value: torch.Tensor) -> None:
        """Take one input of the layer into account."""
        flat = (
            self.layer(value).movedim(self.channel_axis, 0).flatten(1).double().cpu()
        )  # (outputs, samples * positions)
        self.total += flat.sum(1)
        self.lowest = torch.minimum(self.lowest, flat.amin(1))
        self.highest = torch.maximum(self.highest, flat.amax(1))
        self.count += flat.shape[1]

    @property
    def mean(self) -> torch.Tensor:
        """float64 (outputs,)."""
        return self.total / self.count

    @property
    def deviation(self) -> float:
        """Largest |contribution - mean| over the living outputs."""
        strays = torch.maximum(self.highest - self.mean, self.mean - self.lowest)
        return float((strays * self.living).max())

    @property
    def magnitude(self) -> float:
        """Largest |contribution| over the living outputs."""
        return float((torch.maximum(self.highest.abs(), self.lowest.abs()) * self.living).max())


class _Measurement(fx.Interpreter):
    """Runs a program and shows each probed layer's input to its probes."""

    def __init__(self, module: fx.GraphModule, probes: dict[str, list[_Probe]]) -> None:
        super().__init__(module)
        self.probes = probes

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        for probe in self.probes.get(target, ()):
            probe.measure(args[0])
        return super().call_module(target, args, kwargs)


def fold_constant_channels(
    module: fx.GraphModule, units: ChannelUnits, dead: Collection[int], batches: Iterable[torch.Tensor]
) -> tuple[fx.GraphModule, tuple[Fold, ...]]:
    """A copy of the module (nothing removed yet) that makes up for the loss of the dead units, and an account.

    units: of this module. batches: samples to measure on, (N, C, T) or (N, C, H, W); the module runs in eval mode.
    `remove_units` on the result, with the same units and ids, then gives the pruned module.

    Raises InputError where there is no batch.
    """
    folded = copy.deepcopy(module)
    mask = units.is_dead(dead)
    tasks = [task for name in _list_layers(folded) for task in _make_tasks(folded, name, units, mask)]
    probes: dict[str, list[_Probe]] = {}
    for task in tasks:
        if task.probe is not None:
            probes.setdefault(task.layer, []).append(task.probe)
    if not probes:
        return folded, tuple(_apply_task(folded, units, task) for task in tasks)
    measurement = _Measurement(folded, probes)
    some = next(folded.parameters())
    seen = 0
    with evaluation_mode(folded):
        for batch in batches:
            measurement.run(batch.to(some.device, some.dtype))
            seen += len(batch)
    if not seen:
        raise InputError("no samples to measure what removed channels contribute; give at least one batch")
    with torch.no_grad():
        return folded, tuple(_apply_task(folded, units, task) for task in tasks)


@dataclass
class _Task:
    """One weight of a layer that loses inputs. bias: the attribute that takes the mean."""

    layer: str
    bias: str
    probe: _Probe | None
    note: str = ""


def _list_layers(module: fx.GraphModule) -> list[str]:
    """Names of the modules that the program calls, each once, in order."""
    return list(dict.fromkeys(str(node.target) for node in module.graph.nodes if node.op == "call_module"))


def _make_tasks(module: fx.GraphModule, name: str, units: ChannelUnits, dead: np.ndarray) -> list[_Task]:
    """The weights of layer `name` that lose inputs."""
    layer = module.get_submodule(name)
    names = {id(parameter): key for key, parameter in module.named_parameters()}

    def find_lost(weight: torch.Tensor, axis: int) -> torch.Tensor | None:
        """bool (size,): the dead indices of a weight along an axis; None if there are none."""
        ids = units.slices.get((names[id(weight)], axis))
        return torch.from_numpy(dead[ids]) if ids is not None and dead[ids].any() else None

    if isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
        lost = find_lost(layer.weight, 1)
        if lost is None:
            return []
        axis = -1 - (layer.weight.dim() - 2)
        return [_Task(name, "bias", _make_probe(layer, layer.weight, lost, find_lost(layer.weight, 0), axis))]
    if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        lost = find_lost(layer.weight, 0)
        return [] if lost is None else [_Task(name, "bias", None, "a transposed convolution: not folded")]
    if isinstance(layer, nn.RNNBase):
        return _make_recurrent_tasks(name, layer, find_lost)
    return []


def _make_recurrent_tasks(name: str, layer: nn.RNNBase, find_lost: Any) -> list[_Task]:
    """The input of an RNN's first layer folds into bias_ih; its own states are never constant."""
    tasks = []
    for direction in ("", "_reverse") if layer.bidirectional else ("",):
        weight = getattr(layer, f"weight_ih_l0{direction}")
        lost = find_lost(weight, 1)
        if lost is None:
            continue
        if not layer.bias:
            tasks.append(_Task(name, "", None, "an RNN without biases: not folded"))
            continue
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
        tasks.append(_Task(name, f"bias_ih_l0{direction}", _make_probe(linear, weight, lost, find_lost(weight, 0), -1)))
    if find_lost(layer.weight_hh_l0, 1) is not None:
        tasks.append(_Task(name, "", None, "recurrent states are not constant: not folded"))
    return tasks


def _make_probe(
    layer: nn.Module, weight: torch.Tensor, lost: torch.Tensor, gone: torch.Tensor | None, axis: int
) -> _Probe:
    """lost: bool along the weight's axis 1; gone: bool along axis 0, the outputs that die too; axis: of the output."""
    masked = weight.detach() * lost.to(weight.device).reshape(1, -1, *[1] * (weight.dim() - 2))
    probe_layer = copy.deepcopy(layer)
    probe_layer.weight = nn.Parameter(masked, requires_grad=False)
    probe_layer.bias = None  # type: ignore[assignment]
    outputs = weight.shape[0]
    living = torch.ones(outputs, dtype=torch.bool) if gone is None else ~gone
    zeros = torch.zeros(outputs, dtype=torch.float64)
    return _Probe(probe_layer, axis, living, zeros.clone(), zeros + torch.inf, zeros - torch.inf)


def _apply_task(module: fx.GraphModule, units: ChannelUnits, task: _Task) -> Fold:
    """Put the mean contribution where it belongs, in place."""
    if task.probe is None:
        return Fold(task.layer, None, False, float("nan"), float("nan"), task.note)
    probe, layer = task.probe, module.get_submodule(task.layer)
    weight = next(layer.parameters())
    tolerance = ROUNDINGS * torch.finfo(weight.dtype).eps * probe.magnitude
    target, note = _add_mean(module, units, task, probe.mean)
    exact = target is not None and probe.deviation <= tolerance
    return Fold(task.layer, target, exact, probe.deviation, probe.magnitude, note)


def _add_mean(module: fx.GraphModule, units: ChannelUnits, task: _Task, mean: torch.Tensor) -> tuple[str | None, str]:
    """(name of the tensor that took the mean, note); the first possible place of bias, running mean, new bias."""
    name, attribute = task.layer, task.bias
    layer = module.get_submodule(name)
    bias = getattr(layer, attribute)
    if bias is not None:
        if _count_holders(module, bias) > 1:
            return None, "its bias is shared with another layer: not folded"
        bias += mean.to(bias)
        return f"{name}.{attribute}", ""
    norm = _find_following_norm(module, units, name, len(mean))
    if norm is not None:
        norm_name, offset = norm
        running_mean = module.get_submodule(norm_name).running_mean
        running_mean[offset : offset + len(mean)] -= mean.to(running_mean)  # type: ignore[index, operator, arg-type]
        return f"{norm_name}.running_mean", ""
    weight = layer.weight
    setattr(layer, attribute, nn.Parameter(mean.to(weight), requires_grad=weight.requires_grad))  # type: ignore[arg-type]
    return f"{name}.{attribute}", "new bias"


def _count_holders(module: nn.Module, tensor: torch.Tensor) -> int:
    """How many modules hold a parameter or buffer."""
    return sum(
        held is tensor for part in module.modules() for held in (*part._parameters.values(), *part._buffers.values())
    )


def _find_following_norm(module: fx.GraphModule, units: ChannelUnits, name: str, width: int) -> tuple[str, int] | None:
    """The BatchNorm that all of a layer's output goes to and to nothing else, and the layer's first channel in it.

    Between the two there may be concatenations along the channels.
    """
    calls = [node for node in module.graph.nodes if node.op == "call_module" and node.target == name]
    offset = 0
    node = calls[0]
    output = units.tensors[node.name]
    # A linear layer over the last axis of three does not have its channels where a BatchNorm looks for them.
    if not isinstance(output, TensorUnits) or output.shape[1] != width or _is_linear_over_series(module, node, output):
        return None
    while len(calls) == 1 and len(node.users) == 1:
        user = next(iter(node.users))
        if user.op == "call_module":
            norm = module.get_submodule(str(user.target))
            uses = [other for other in module.graph.nodes if other.target == user.target]
            if isinstance(norm, NORMS) and norm.running_mean is not None and len(uses) == 1:
                return (str(user.target), offset) if _count_holders(module, norm.running_mean) == 1 else None
            return None
        if user.target is not aten.cat.default or (user.args[1] if len(user.args) > 1 else 0) != 1:
            return None
        operands = list(user.args[0])
        if operands.count(node) != 1:
            return None
        for operand in operands[: operands.index(node)]:
            tensor = units.tensors[operand.name]
            if not isinstance(tensor, TensorUnits):
                return None
            offset += tensor.shape[1]
        node = user
    return None


def _is_linear_over_series(module: fx.GraphModule, node: fx.Node, output: TensorUnits) -> bool:
    return isinstance(module.get_submodule(str(node.target)), nn.Linear) and len(output.shape) > 2
