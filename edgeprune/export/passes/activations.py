"""ReLU and its kin become part of the op in front of them; the parts of a hard-swish become one op."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeprune.export.passes.concats import split_concat
from edgeprune.export.passes.editor import Editor
from edgeprune.graph import Graph, Op

CLAMPS = ("relu", "relu6", "relu_n1_to_1")
FUSING_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected", "add", "sub", "mul")
# what one clamp after another amounts to, where that is a clamp of the table
_AFTER = {
    ("none", "relu"): "relu",
    ("none", "relu6"): "relu6",
    ("none", "relu_n1_to_1"): "relu_n1_to_1",
    ("relu", "relu"): "relu",
    ("relu", "relu6"): "relu6",
    ("relu6", "relu"): "relu6",
    ("relu6", "relu6"): "relu6",
    ("relu_n1_to_1", "relu_n1_to_1"): "relu_n1_to_1",
}


def fuse_activations(graph: Graph) -> Graph:
    """Fuse each clamp into the op that alone feeds it, through max_pool_2d and concat where that gains something."""
    editor = Editor(graph)
    changed = True
    while changed:
        changed = False
        for op in list(editor.ops):
            changed |= op.kind in CLAMPS and editor.holds([op]) and _fuse(editor, op)
    return editor.finish()


def fuse_hard_swish(graph: Graph) -> Graph:
    """x * relu6(x + 3) / 6, as exporters before opset 14 write it -> hard_swish."""
    editor = Editor(graph)
    for last in list(editor.ops):
        if editor.producer(last.outputs[0]) is not last:
            continue  # went with an earlier match
        match = _match_hard_swish(editor, last)
        if match is not None:
            source, ops = match
            editor.replace(last, Op("hard_swish", last.name, (source,), last.outputs))
            editor.remove(ops)
    return editor.finish()


def _fuse(editor: Editor, clamp: Op) -> bool:
    tensor = clamp.inputs[0]
    if not editor.can_bypass([clamp], tensor):
        return False
    if _absorbs(editor, tensor, clamp.kind):
        _absorb(editor, tensor, clamp.kind)
        editor.bypass([clamp], tensor)
        return True
    concat = editor.producer(tensor)
    if concat is None or concat.kind != "concat" or editor.sole_consumer(tensor) is None:
        return False
    absorbs = [_absorbs(editor, name, clamp.kind) for name in concat.inputs]
    if not any(absorbs):
        return False
    result = editor.bypass([clamp], tensor)

    def apply(piece: str, _first: int, _last: int) -> str:
        if _absorbs(editor, piece, clamp.kind):
            _absorb(editor, piece, clamp.kind)
            return piece
        op = editor.make_op(clamp.kind, clamp.name, [piece])
        editor.insert_before(result, op)
        return op.outputs[0]

    split_concat(editor, result, absorbs, apply, clamp.name)
    return True


def _absorbs(editor: Editor, tensor: str, kind: str) -> bool:
    """Whether the clamp can be done by the op that writes `tensor`, or by the one behind a max pool."""
    op = editor.producer(tensor)
    if op is None or editor.sole_consumer(tensor) is None:
        return False
    if op.kind == "max_pool_2d":  # the maximum of clamped values is the clamped maximum
        return _absorbs(editor, op.inputs[0], kind)
    return op.kind in FUSING_KINDS and (op.attrs["activation"], kind) in _AFTER


def _absorb(editor: Editor, tensor: str, kind: str) -> None:
    op = editor.producer(tensor)
    assert op is not None
    if op.kind == "max_pool_2d":
        _absorb(editor, op.inputs[0], kind)
        return
    activation = _AFTER[op.attrs["activation"], kind]
    editor.replace(op, replace(op, attrs={**op.attrs, "activation": activation}))


def _match_hard_swish(editor: Editor, last: Op) -> tuple[str, list[Op]] | None:
    """(x, the inner ops) if `last` ends x * (relu6(x + 3) * 1/6) or (x * relu6(x + 3)) * 1/6."""
    scaled = _match_scaled(editor, last)
    if scaled is not None:
        product = editor.producer(scaled)
        if product is None or editor.sole_consumer(scaled) is None:
            return None
        for x, gate in _operand_pairs(product):
            inner = _match_gate(editor, gate, x)
            if inner is not None:
                return x, [product, *inner]
        return None
    for x, factor in _operand_pairs(last):
        scaling = editor.producer(factor)
        gate_of = None if scaling is None else _match_scaled(editor, scaling)
        if scaling is None or gate_of is None or editor.sole_consumer(factor) is None:
            continue
        inner = _match_gate(editor, gate_of, x)
        if inner is not None:
            return x, [scaling, *inner]
    return None


def _match_gate(editor: Editor, gate: str, x: str) -> list[Op] | None:
    """The ops of relu6(x + 3), read once."""
    clamp = editor.producer(gate)
    if clamp is None or clamp.kind != "relu6" or editor.sole_consumer(gate) is None:
        return None
    shift = editor.producer(clamp.inputs[0])
    if shift is None or shift.kind != "add" or editor.sole_consumer(clamp.inputs[0]) is None:
        return None
    for tensor, constant in _operand_pairs(shift):
        if tensor == x and _is_number(editor, constant, 3.0):
            return [clamp, shift]
    return None


def _match_scaled(editor: Editor, op: Op) -> str | None:
    """The tensor that a `mul` multiplies by 1/6."""
    if op.kind != "mul":
        return None
    return next((tensor for tensor, other in _operand_pairs(op) if _is_number(editor, other, 1 / 6)), None)


def _operand_pairs(op: Op) -> tuple[tuple[str, str], ...]:
    if op.kind not in ("add", "mul") or op.attrs["activation"] != "none":
        return ()
    first, second = op.inputs
    return (first, second), (second, first)


def _is_number(editor: Editor, tensor: str, wanted: float) -> bool:
    data = editor.data(tensor)
    return data is not None and data.size == 1 and math.isclose(float(data.reshape(-1)[0]), wanted, rel_tol=1e-6)
