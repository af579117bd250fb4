"""Between maps (1, H, W, C) and vectors (1, C) without reshape."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.export.passes.editor import Editor
from edgeprune.graph import Graph, Op

_UNARY = ("relu", "relu6", "relu_n1_to_1", "leaky_relu", "logistic", "tanh", "elu", "hard_swish")


def drop_mean_axes(graph: Graph) -> Graph:
    """A mean over the map, read by fully_connected or reshaped to a vector alone, gives the vector (1, C) at once."""
    editor = Editor(graph)
    for op in list(editor.ops):
        mean = editor.producer(op.outputs[0])
        if mean is None or mean.kind != "mean" or not mean.attrs["keep_dims"] or mean.attrs["axes"] != (1, 2):
            continue
        readers = editor.consumers(mean.outputs[0])
        vector = (1, editor.shape(mean.outputs[0])[3])
        if editor.is_output(mean.outputs[0]) or not all(
            reader.kind == "fully_connected" or (reader.kind == "reshape" and reader.attrs["shape"] == vector)
            for reader in readers
        ):
            continue
        dropped = replace(mean, attrs={"axes": (1, 2), "keep_dims": False})
        editor.replace(mean, dropped)
        editor.declare(dropped)
        for reader in readers:
            if reader.kind == "reshape" and editor.can_bypass([reader], mean.outputs[0]):
                editor.bypass([reader], mean.outputs[0])
    return editor.finish()


def lift_vectors(graph: Graph) -> Graph:
    """mean -> fully_connected ... -> reshape to (1, 1, 1, C), as in squeeze-and-excitation, works on maps of 1x1.

    The layers become 1x1 convolutions, which are also quantized per channel; the reshape goes.
    """
    editor = Editor(graph)
    for op in list(editor.ops):
        reshape = editor.producer(op.outputs[0])
        if reshape is None or reshape.kind != "reshape" or editor.is_output(reshape.outputs[0]):
            continue
        if editor.shape(reshape.outputs[0]) != (1, 1, *editor.shape(reshape.inputs[0])):
            continue
        chain = _find_vector_chain(editor, reshape)
        if chain is None:
            continue
        for link in chain:
            lifted = _lift(editor, link)
            editor.replace(link, lifted)
            editor.declare(lifted)
        editor.bypass([reshape], reshape.inputs[0])
    return editor.finish()


def _find_vector_chain(editor: Editor, reshape: Op) -> list[Op] | None:
    """The ops from a mean to the reshape, in order, each read by the next alone; None if it is not such a chain."""
    chain: list[Op] = []
    tensor = reshape.inputs[0]
    while True:
        op = editor.producer(tensor)
        if op is None or editor.sole_consumer(tensor) is None:
            return None
        chain.append(op)
        if op.kind == "mean":
            return list(reversed(chain)) if op.attrs["axes"] == (1, 2) else None
        if op.kind == "fully_connected":
            source = editor.shape(op.inputs[0])
            if source not in ((1, source[-1]), (1, 1, 1, source[-1])):
                return None
        elif op.kind not in _UNARY and _find_constant(editor, op) is None:
            return None
        tensor = next(name for name in op.inputs if editor.data(name) is None)


def _find_constant(editor: Editor, op: Op) -> str | None:
    """The constant operand of arithmetic with one."""
    if op.kind not in ("add", "mul"):
        return None
    return next((name for name in op.inputs if editor.data(name) is not None), None)


def _lift(editor: Editor, op: Op) -> Op:
    if op.kind == "mean":
        return replace(op, attrs={"axes": (1, 2), "keep_dims": True})
    if op.kind == "fully_connected":
        weight = editor.constant(op.inputs[1])
        editor.set_constant(op.inputs[1], weight[:, None, None, :])
        attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "valid", "activation": op.attrs["activation"]}
        return replace(op, kind="conv_2d", attrs=attrs)
    constant = _find_constant(editor, op)
    if constant is not None:
        editor.set_constant(constant, editor.constant(constant)[:, None, None])
    return op
