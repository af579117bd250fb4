"""What does not change while training is computed once: the outputs of frozen filters on the training samples.

LITE's 17 hand-crafted filters read the input alone and are not trained, so their maps are the same in every epoch. The
program is cut in two: the frozen part runs once over the data set, the rest is trained on the samples and these maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from edgeprune.prune.observed import ACTIVATIONS
from edgeprune.prune.program_views import share_layers, view_nodes

aten = torch.ops.aten

MAX_CACHE_BYTES = 256 * 2**20
CHUNK_SAMPLES = 256
FROZEN_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True, eq=False)
class CutProgram:
    """A program in two parts: rest(x, *maps) gives what the whole program gives for x, `maps` being frozen(x).

    Both share their layers with the program they were cut from.
    """

    frozen: fx.GraphModule
    rest: fx.GraphModule

    def compute_maps(self, x: Tensor) -> tuple[Tensor, ...] | None:
        """The frozen part's outputs for all samples, or None if they would take more than 256 MB."""
        with torch.no_grad():
            one = self.frozen(x[:1])
            if len(x) * sum(part.numel() * part.element_size() for part in one) > MAX_CACHE_BYTES:
                return None
            chunks = [self.frozen(chunk) for chunk in x.split(CHUNK_SAMPLES)]
        return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def cut_frozen_prefix(module: fx.GraphModule) -> CutProgram | None:
    """Cut off what depends on the input and on frozen layers only; None if there is no such part."""
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        return None
    prefix = set(inputs)
    has_layer = False
    for node in module.graph.nodes:
        if node.op in ("call_module", "call_function") and prefix.issuperset(node.all_input_nodes):
            if not node.all_input_nodes or not _is_fixed(module, node):
                continue
            prefix.add(node)
            has_layer = has_layer or node.op == "call_module"
    # maps that trained nodes (or the output) read
    border = [node for node in module.graph.nodes if node in prefix and set(node.users) - prefix and node not in inputs]
    if not has_layer or not border:
        return None
    names = [node.name for node in border]
    return CutProgram(view_nodes(module, names), _without(module, names))


def _is_fixed(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node computes each sample by itself, with nothing that training changes."""
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return isinstance(layer, FROZEN_LAYERS) and not any(p.requires_grad for p in layer.parameters())
    if node.target is aten.cat.default:
        return node.args[1:] == (1,)
    return node.target in ACTIVATIONS and len(node.all_input_nodes) == 1


def _without(module: fx.GraphModule, names: list[str]) -> fx.GraphModule:
    """The program with the named nodes as further inputs, in this order."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
            last = copies[node]
    by_name = {node.name: node for node in module.graph.nodes}
    for name in names:
        with graph.inserting_after(last):
            last = copies[by_name[name]] = graph.placeholder(f"cached_{name}")
    for node in module.graph.nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    return share_layers(module, graph)
