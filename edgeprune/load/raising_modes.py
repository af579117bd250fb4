"""What a module does in train mode and not in eval mode, found by exporting both and comparing the two programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.errors import EdgepruneError
from edgeprune.load.operators import ASSERTIONS, get_op_name
from edgeprune.load.raising_layers import bind_arguments
from edgeprune.load.tracing import describe_node, export_module

aten = torch.ops.aten

# arguments that follow the mode by themselves once layers are modules again
_MODE_ARGUMENTS = ("train", "training", "momentum")
_FOLLOW_MODE = ("batch_norm", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "gru", "lstm")


def compare_modes(program: ExportedProgram, module: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Notes, a line each, on what raising the eval-mode `program` of `module` does not keep of its train mode."""
    notes = []
    always = [node for node in program.graph.nodes if node.target is aten.dropout.default and node.args[2]]
    if always:
        notes.append(f"{describe_node(always[0])}: dropout is active in eval mode too; here it is in train mode only")
    try:
        with _constant_momentum(module):
            trained = export_module(module, example, training=True)
    except EdgepruneError as error:
        return (*notes, f"train mode could not be compared with eval mode: {error}")
    frozen = _list_frozen_norms(trained)
    if frozen:
        notes.append(f"BatchNorm kept in eval mode by the model's train(), but trained here: {', '.join(frozen)}")
    calls, trained_calls = _list_calls(program), _list_calls(trained)
    if list(calls) != list(trained_calls):
        first = next((node for key, node in trained_calls.items() if key not in calls), None)
        where = f", from {describe_node(first)} on" if first is not None else ""
        notes.append(
            f"forward() does something else in train mode{where}; the eval form is what is trained and compiled"
        )
    return tuple(notes)


def _list_frozen_norms(program: ExportedProgram) -> list[str]:
    """Names of the BatchNorms that a train-mode program runs on their running statistics."""
    buffers = program.graph_signature.inputs_to_buffers
    names = []
    for node in program.graph.nodes:
        if node.target is aten.batch_norm.default:
            bound = bind_arguments(aten.batch_norm.default, node)
            if not bound["training"]:
                names.append(buffers[bound["running_mean"].name].rpartition(".")[0])
    return names


def _list_calls(program: ExportedProgram) -> dict[str, fx.Node]:
    """The program's calls, written so that equal programs give equal keys in equal order."""
    names: dict[fx.Node, str] = {}
    calls: dict[str, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            names[node] = node.name
        elif node.op == "call_function" and not _is_bookkeeping(node):
            names[node] = f"%{len(calls)}"
            calls[f"{len(calls)}: {_describe_call(node, names)}"] = node
        elif node.op == "output":
            calls[f"return {fx.node.map_arg(node.args, lambda other: names.get(other, other.name))}"] = node
    return calls


def _is_bookkeeping(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    counts = node.target is aten.add_.Tensor and str(node.args[0]).endswith("num_batches_tracked")
    return counts or get_op_name(node.target) in ASSERTIONS


def _describe_call(node: fx.Node, names: dict[fx.Node, str]) -> str:
    arguments: Any = (node.args, node.kwargs)
    if isinstance(node.target, torch._ops.OpOverload) and get_op_name(node.target) in _FOLLOW_MODE:
        bound = bind_arguments(node.target, node)
        arguments = {name: value for name, value in bound.items() if name not in _MODE_ARGUMENTS}
    return f"{node.target} {fx.node.map_arg(arguments, lambda other: names.get(other, other.name))}"


@contextlib.contextmanager
def _constant_momentum(module: nn.Module) -> Iterator[None]:
    """BatchNorms with momentum None read their counter's value, which torch.export can't follow in train mode."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.momentum is None]
    for layer in layers:
        layer.momentum = 0.1
    try:
        yield
    finally:
        for layer in layers:
            layer.momentum = None
