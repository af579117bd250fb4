"""Factors and shifts by constants (BatchNorm, learned scales) become part of a neighbouring layer, or a layer.

A chain of `mul` and `add` with constants is y = a x + b. Behind a layer with weights W and bias c that nobody else
reads, per channel: a (W x + c) + b = (a W) x + (a c + b). In front of one: W (a x + b) + c = (W a) x + (W b + c), exact
only where the layer sees no zero padding. Sums are done in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.export.passes.concats import split_concat
from edgeprune.export.passes.editor import Editor
from edgeprune.graph import Graph, Op

LAYER_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected")
# the axis of the weights that runs over output channels
_OUTPUT_AXIS = {"conv_2d": 0, "depthwise_conv_2d": 3, "fully_connected": 0}


@dataclass(frozen=True, eq=False)
class Affine:
    """ops in order, from `source` to `result`: result = scale * source + shift (float64, broadcast to the tensor)."""

    ops: tuple[Op, ...]
    source: str
    scale: np.ndarray
    shift: np.ndarray

    @property
    def result(self) -> str:
        return self.ops[-1].outputs[0]

    def per_channel(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """scale and shift as vectors (channels,); the chain must not vary along other axes."""
        return tuple(np.broadcast_to(values.reshape(-1), (channels,)) for values in (self.scale, self.shift))  # type: ignore[return-value]


def fold_affine(graph: Graph) -> Graph:
    """Fold chains into the layer in front of them, also through a concat (each branch takes its slice)."""
    editor = Editor(graph)
    _repeat(editor, _fold_back, per_channel=True)
    return editor.finish()


def fold_affine_forward(graph: Graph) -> Graph:
    """Fold chains into the layer behind them, where it is the only reader and pads nothing."""
    editor = Editor(graph)
    _repeat(editor, _fold_forward, per_channel=False)
    return editor.finish()


def lower_affine(graph: Graph) -> Graph:
    """What is left as a pair of factor and shift over a map becomes one depthwise 1x1 convolution."""
    editor = Editor(graph)
    _repeat(editor, _lower, per_channel=True)
    return editor.finish()


def _repeat(editor: Editor, rewrite: Callable[[Editor, Affine], bool], *, per_channel: bool) -> None:
    """Rewrite every chain that is still there, until nothing changes: one rewriting can make way for another."""
    changed = True
    while changed:
        changed = False
        for chain in find_chains(editor, per_channel=per_channel):
            changed |= editor.holds(chain.ops) and rewrite(editor, chain)


def find_chains(editor: Editor, *, per_channel: bool) -> list[Affine]:
    """All chains, each as long as it goes. per_channel: only of constants that vary along the last axis alone."""
    chains: list[Affine] = []
    used: set[int] = set()
    for op in editor.ops:
        if id(op) in used or _find_operands(editor, op, per_channel) is None:
            continue
        ops = [op]
        while True:
            following = editor.sole_consumer(ops[-1].outputs[0])
            if following is None or _find_operands(editor, following, per_channel) is None:
                break
            ops.append(following)
        used.update(map(id, ops))
        chains.append(_combine(editor, ops, per_channel))
    return chains


def _combine(editor: Editor, ops: Sequence[Op], per_channel: bool) -> Affine:
    scale, shift = np.ones(()), np.zeros(())
    source = ""
    for op in ops:
        operands = _find_operands(editor, op, per_channel)
        assert operands is not None
        tensor, constant = operands
        source = source or tensor
        if op.kind == "mul":
            scale, shift = scale * constant, shift * constant
        else:
            shift = shift + constant
    return Affine(tuple(ops), source, scale, shift)


def _find_operands(editor: Editor, op: Op, per_channel: bool) -> tuple[str, np.ndarray] | None:
    """The tensor and the constant (float64) of an add or mul of both; None for any other op."""
    if op.kind not in ("add", "mul") or op.attrs["activation"] != "none":
        return None
    constants = [editor.data(name) for name in op.inputs]
    if (constants[0] is None) == (constants[1] is None):
        return None
    place = 1 if constants[0] is None else 0
    constant, tensor = constants[place], op.inputs[1 - place]
    assert constant is not None
    if editor.shape(tensor) != editor.shape(op.outputs[0]):
        return None
    if per_channel and math.prod(constant.shape) != (constant.shape[-1] if constant.ndim else 1):
        return None
    return tensor, constant.astype(np.float64)


def _fold_back(editor: Editor, chain: Affine) -> bool:
    if not editor.can_bypass(chain.ops, chain.source):
        return False
    scale, shift = chain.per_channel(editor.shape(chain.source)[-1])
    if _absorbs_back(editor, chain.source):
        _scale_outputs(editor, chain.source, scale, shift)
        editor.bypass(chain.ops, chain.source)
        return True
    concat = editor.producer(chain.source)
    if concat is None or not _splits(editor, concat):
        return False
    absorbs = [_absorbs_back(editor, tensor) or _splits(editor, editor.producer(tensor)) for tensor in concat.inputs]
    name = chain.ops[0].name
    result = editor.bypass(chain.ops, chain.source)

    def apply(tensor: str, first: int, last: int) -> str:
        if _absorbs_back(editor, tensor):
            _scale_outputs(editor, tensor, scale[first:last], shift[first:last])
            return tensor
        per_channel = (*(1,) * (len(editor.shape(tensor)) - 1), -1)
        factor = editor.add_constant(f"{name}/scale", scale[first:last].reshape(per_channel))
        mul = editor.make_op("mul", name, [tensor, factor], activation="none")
        offset = editor.add_constant(f"{name}/offset", shift[first:last].reshape(per_channel))
        add = editor.make_op("add", f"{name}/shift", [mul.outputs[0], offset], activation="none")
        editor.insert_before(result, mul, add)
        return add.outputs[0]

    split_concat(editor, result, absorbs, apply, name)
    return True


def _splits(editor: Editor, concat: Op | None) -> bool:
    """Whether it is a concat of channels, read by one op alone, with a branch that absorbs a factor (at any depth)."""
    if concat is None or concat.kind != "concat":
        return False
    if concat.attrs["axis"] != len(editor.shape(concat.outputs[0])) - 1:
        return False
    if editor.sole_consumer(concat.outputs[0]) is None:
        return False
    return any(_absorbs_back(editor, tensor) or _splits(editor, editor.producer(tensor)) for tensor in concat.inputs)


def _absorbs_back(editor: Editor, tensor: str) -> bool:
    """Whether the tensor is a layer's bare result that one op alone reads."""
    layer = editor.producer(tensor)
    return (
        layer is not None
        and layer.kind in LAYER_KINDS
        and layer.attrs["activation"] == "none"
        and editor.sole_consumer(tensor) is not None
    )


def _scale_outputs(editor: Editor, tensor: str, scale: np.ndarray, shift: np.ndarray) -> None:
    """Give the layer that writes `tensor` weights and bias that make it scale * result + shift."""
    layer = editor.producer(tensor)
    assert layer is not None
    _, weight_name, bias_name = layer.inputs
    weight, bias = editor.constant(weight_name), editor.constant(bias_name)
    along = [1] * weight.ndim
    along[_OUTPUT_AXIS[layer.kind]] = -1
    editor.set_constant(weight_name, weight * scale.reshape(along))
    editor.set_constant(bias_name, bias * scale + shift)


def _fold_forward(editor: Editor, chain: Affine) -> bool:
    layer = editor.sole_consumer(chain.result)
    if layer is None or layer.kind not in LAYER_KINDS or layer.attrs.get("padding", "valid") != "valid":
        return False
    shape = editor.shape(chain.source)
    if shape != editor.shape(chain.result):
        return False
    _, weight_name, bias_name = layer.inputs
    weight = editor.constant(weight_name).astype(np.float64)
    bias = editor.constant(bias_name).astype(np.float64)
    if layer.kind == "fully_connected":
        scale = np.broadcast_to(chain.scale, shape).reshape(-1)
        shift = np.broadcast_to(chain.shift, shape).reshape(-1)
        bias = bias + weight @ shift
        weight = weight * scale
    else:
        if any(math.prod(values.shape[:-1]) != 1 for values in (chain.scale, chain.shift)):
            return False
        scale, shift = chain.per_channel(shape[3])
        scale, shift = _align_inputs(layer, weight, scale), _align_inputs(layer, weight, shift)
        bias = bias + (weight * shift).sum(axis=(0, 1, 2) if layer.kind == "depthwise_conv_2d" else (1, 2, 3))
        weight = weight * scale
    editor.set_constant(weight_name, weight)
    editor.set_constant(bias_name, bias)
    index = layer.inputs.index(chain.result)
    inputs = tuple(chain.source if place == index else name for place, name in enumerate(layer.inputs))
    editor.replace(layer, Op(layer.kind, layer.name, inputs, layer.outputs, layer.attrs))
    editor.remove(chain.ops)
    return True


def _lower(editor: Editor, chain: Affine) -> bool:
    shape = editor.shape(chain.source)
    if len(chain.ops) < 2 or len(shape) != 4:
        return False
    scale, shift = chain.per_channel(shape[3])
    first = chain.ops[0]
    weight = editor.add_constant(f"{first.name}/weight", scale.reshape(1, 1, 1, -1))
    bias = editor.add_constant(f"{first.name}/bias", shift)
    attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "valid", "activation": "none", "depth_multiplier": 1}
    editor.replace(first, Op("depthwise_conv_2d", first.name, (chain.source, weight, bias), first.outputs, attrs))
    editor.bypass(chain.ops[1:], first.outputs[0])
    return True


def _align_inputs(layer: Op, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values per input channel (channels,), as they lie along the weights of a convolution."""
    if layer.kind == "depthwise_conv_2d":  # 1HWO: output channel o reads input channel o // depth_multiplier
        return np.repeat(values, layer.attrs["depth_multiplier"])
    # OHWI with I = channels / groups: filter o reads the channels of its group
    groups = len(values) // weight.shape[3]
    return np.repeat(values.reshape(groups, -1), len(weight) // groups, axis=0)[:, None, None, :]
