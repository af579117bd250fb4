"""Looking into a program while it runs: the same modules and parameters, other outputs.

A view of a raised program shares every layer with it. Training a view trains the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from edgeprune.errors import UnsupportedModelError

aten = torch.ops.aten

SOFTMAX = (aten.softmax.int, aten._softmax.default)
LOG_SOFTMAX = (aten.log_softmax.int, aten._log_softmax.default)
SIGMOID = (aten.sigmoid.default,)
HEADS = "a classifier gives (samples, classes) with at least 2 classes, as logits or softmax"
WAY_OUT = "Bring your own training with --train pkg.module:function, or deploy the model as it is with --method none"


@dataclass(frozen=True)
class Head:
    """Where a classifier's logits are.

    kind: "logits", "softmax" or "log_softmax": what the model gives out.
    node: name of the node that holds the logits: the model's first output, or what goes into its softmax.
    """

    kind: str
    node: str


def output_nodes(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """The nodes a program gives out, in order."""
    output = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    result = output.args[0]
    nodes = result if isinstance(result, (tuple, list)) else (result,)
    return tuple(node for node in nodes if isinstance(node, fx.Node))


def find_head(module: fx.GraphModule) -> Head:
    """The classifier's head: the model's first output. Further outputs (features, auxiliary heads) are not trained.

    Raises UnsupportedModelError if the first output is a sigmoid: several labels at once are not classification.
    """
    node = output_nodes(module)[0]
    layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if node.target in SIGMOID or isinstance(layer, nn.Sigmoid):
        raise UnsupportedModelError(f"output {node.name}: the head is a sigmoid; {HEADS}. {WAY_OUT}.")
    kind = "logits"
    if node.target in SOFTMAX or isinstance(layer, nn.Softmax):
        kind = "softmax"
    elif node.target in LOG_SOFTMAX or isinstance(layer, nn.LogSoftmax):
        kind = "log_softmax"
    source = node if kind == "logits" else node.args[0]
    assert isinstance(source, fx.Node)  # softmax of a constant does not come out of torch.export
    return Head(kind, source.name)


def view_nodes(module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """A program that shares all layers with `module` and gives out the named nodes' tensors, as a tuple.

    What the nodes do not need is left out. The view is in the mode (train or eval) of `module`.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(module.graph, copies)  # copies all but the output node
    by_name = {original.name: copy for original, copy in copies.items()}
    graph.output(tuple(by_name[name] for name in names))
    return share_layers(module, graph)


def share_layers(module: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """A program that runs `graph` on the layers of `module`; it holds only those that its output needs."""
    view = fx.GraphModule(module, graph)
    view.graph.eliminate_dead_code()
    view.delete_all_unused_submodules()
    view.recompile()
    view.train(module.training)
    return view
