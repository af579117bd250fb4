"""In-place ops of a program, replaced by their functional twins where that means the same.

`relu_(x)` becomes `relu(x)`, and whoever read x afterwards reads the result. That is wrong only where the changed
memory is also read through another tensor (a view of x, or what x is a view of): such programs are refused.
"""

from __future__ import annotations

import torch
from torch import fx

from edgeprune.errors import UnsupportedModelError
from edgeprune.load.tracing import describe_node

aten = torch.ops.aten

# in eval mode these hand their input through, which their schema doesn't say
_PASS_THROUGH = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)


def is_write(node: fx.Node) -> bool:
    """Whether the node changes a tensor in place."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def find_functional_twin(node: fx.Node) -> torch._ops.OpOverload:
    """aten.relu.default for aten.relu_.default."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    packet = getattr(aten, target._schema.name.removeprefix("aten::").rstrip("_"), None)
    twin = getattr(packet, target._overloadname, None)
    if twin is None or twin._schema.is_mutable or len(target._schema.returns) != 1:
        raise UnsupportedModelError(f"{describe_node(node)}: this op writes in place; use one that returns its result")
    return twin


class MemoryMap:
    """Which nodes of a program may share memory."""

    def __init__(self, graph: fx.Graph) -> None:
        self._order = {node: index for index, node in enumerate(graph.nodes)}
        self._root: dict[fx.Node, fx.Node] = {}
        for node in graph.nodes:
            base = _find_base(node)
            self._root[node] = node if base is None else self._root[base]
        self._written: dict[fx.Node, fx.Node] = {}  # result of a write -> the node it wrote to

    def check_write(self, node: fx.Node) -> set[fx.Node]:
        """The nodes whose value `node` replaces; raises UnsupportedModelError if the write shows elsewhere."""
        base = node.args[0]
        assert isinstance(base, fx.Node)
        self._written[node] = base
        root = self._root[base]
        if root.op == "get_attr":
            raise UnsupportedModelError(
                f"{describe_node(node)}: forward() changes the parameter or buffer {root.target!r}. "
                "Compute a new tensor instead, or keep such state outside the model"
            )
        same = self._same_tensor(base)
        for other, other_root in self._root.items():
            if other_root is not root or other in same or self._order[other] > self._order[node]:
                continue
            reader = next((user for user in other.users if self._order[user] > self._order[node]), None)
            if reader is not None:
                raise UnsupportedModelError(
                    f"{describe_node(node)}: it writes in place into memory that {other.name} shares and that is read "
                    f"later by {describe_node(reader)}. Write `x = op(x)` instead of the in-place form"
                )
        return same

    def _same_tensor(self, base: fx.Node) -> set[fx.Node]:
        """Nodes that are the tensor `base` itself: it, and the results of writes to it."""
        while base in self._written:
            base = self._written[base]
        same = {base}
        for result, written in self._written.items():  # in program order
            if written in same:
                same.add(result)
        return same


def _find_base(node: fx.Node) -> fx.Node | None:
    """The node whose memory the result may share: a view's input, a written tensor."""
    if node.op != "call_function" or not node.args:
        return None
    if not isinstance(node.target, torch._ops.OpOverload):  # getitem of a split
        return node.args[0] if isinstance(node.args[0], fx.Node) and node.target.__name__ == "getitem" else None  # type: ignore[union-attr]
    if node.target in _PASS_THROUGH:
        return node.args[0]  # type: ignore[return-value]
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        if argument.alias_info is not None and isinstance(value, fx.Node):
            return value
    return None
