"""One-op int8 programs at the edges of their arithmetic, for holding the reference against other executors.

`random_graphs` makes programs as models have them. These are harder: sizes around unroll widths, power-of-two scales
(ties everywhere), outputs far finer or coarser than inputs (left shifts and saturation, large right shifts), zero
points at the ends of int8, inputs that hold every stored value.

`make_edge_case(kind, seed)` is a program and a batch of inputs for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgeprune.graph import Graph, Op, Quant, Tensor, verify_graph
from edgeprune.ops import ACTIVATIONS, OPS

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33)
ZERO_POINTS = (-128, -127, -1, 0, 1, 126, 127)
RATIO_KINDS = ("near", "power_of_two", "finer", "coarser")

Inputs = dict[str, np.ndarray]


def build_one_op(kind: str, operands: Sequence[Tensor], attrs: dict[str, object], output: Quant | None) -> Graph:
    """The program of one op over `operands`; float32 where the output has no quantization."""
    shape = OPS[kind].infer_shape(attrs, [tensor.shape for tensor in operands])
    result = Tensor("output", shape, "float32" if output is None else "int8", None, output)
    unique = {tensor.name: tensor for tensor in (*operands, result)}
    op = Op(kind, "layer", tuple(tensor.name for tensor in operands), ("output",), attrs)
    inputs = tuple(dict.fromkeys(tensor.name for tensor in operands if not tensor.is_constant))
    graph = Graph(f"one_{kind}", unique, (op,), inputs, ("output",))
    verify_graph(graph)
    return graph


def make_edge_case(kind: str, seed: int, batch: int = 2) -> tuple[Graph, Inputs]:
    """A program of one int8 op and values for its inputs, (batch, ...)."""
    draw = _Draw(np.random.default_rng(seed))
    graph = _MAKERS[kind](draw, kind)
    inputs: Inputs = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        shape = (batch, *tensor.shape[1:])
        inputs[name] = draw.stored(shape) if tensor.dtype == "int8" else draw.reals(shape, graph)
    return graph, inputs


class _Draw:
    """Draws of shapes, scales and values."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, options: Sequence) -> object:
        return options[int(self.rng.integers(len(options)))]

    def size(self, limit: int = 33) -> int:
        return int(self.pick([size for size in SIZES if size <= limit]))

    def shape(self) -> tuple[int, ...]:
        """A series or an image."""
        if self.rng.random() < 0.6:
            return 1, 1, self.size(), self.size(17)
        return 1, self.size(9), self.size(9), self.size(9)

    def ratio(self, mode: str | None = None) -> float:
        """Input scale over output scale."""
        mode = mode or str(self.pick(RATIO_KINDS))
        if mode == "power_of_two":
            return float(2.0 ** self.rng.integers(-6, 7))
        low, high = {"near": (-1, 1), "finer": (0, 9), "coarser": (-12, 0)}[mode]
        return float(2.0 ** self.rng.uniform(low, high))

    def scale(self) -> float:
        """A scale of an input: any, or a power of two."""
        exponent = self.rng.uniform(-9, 0)
        return float(2.0 ** (np.round(exponent) if self.rng.random() < 0.4 else exponent))

    def quant(self, scale: float | None = None) -> Quant:
        """Per-tensor quantization with any zero point, often at the ends."""
        zero_point = int(self.pick(ZERO_POINTS)) if self.rng.random() < 0.6 else int(self.rng.integers(-128, 128))
        return Quant.per_tensor(self.scale() if scale is None else scale, zero_point)

    def stored(self, shape: tuple[int, ...]) -> np.ndarray:
        """int8 values: every one in turn, only extremes, or random."""
        count = int(np.prod(shape))
        mode = self.rng.random()
        if mode < 0.4:
            values = self.rng.permutation(np.resize(np.arange(-128, 128), max(count, 1)))[:count]
        elif mode < 0.6:
            values = self.rng.choice([-128, -127, 126, 127], count)
        else:
            values = self.rng.integers(-128, 128, count)
        return values.astype(np.int8).reshape(shape)

    def reals(self, shape: tuple[int, ...], graph: Graph) -> np.ndarray:
        """float32 values around a quantize op's range, many of them ties."""
        quant = graph.tensors[graph.outputs[0]].quant
        assert quant is not None
        steps = self.rng.integers(-300, 301, shape) / self.pick((1, 2, 3))
        return (steps * quant.scale[0]).astype(np.float32)

    def activation(self) -> str:
        return str(self.pick(ACTIVATIONS))

    def input(self, name: str = "input", shape: tuple[int, ...] | None = None, quant: Quant | None = None) -> Tensor:
        return Tensor(name, shape or self.shape(), "int8", None, quant or self.quant())

    def weight(self, shape: tuple[int, ...], axis: int | None) -> Tensor:
        """Symmetric weights, one scale per channel of `axis`; some channels all zero, some all extreme."""
        data = self.rng.integers(-127, 128, shape)
        if self.rng.random() < 0.3:
            data = self.rng.choice([-127, 127], shape)
        if self.rng.random() < 0.2:
            data = data * 0
        count = 1 if axis is None else shape[axis]
        scales = 2.0 ** self.rng.uniform(-10, -4, count)
        if self.rng.random() < 0.3:
            scales = 2.0 ** np.round(np.log2(scales))
        return Tensor.constant("weight", data.astype(np.int8), Quant(scales, np.zeros(count), axis))

    def bias(self, source: Tensor, weight: Tensor, count: int) -> Tensor:
        assert source.quant is not None
        assert weight.quant is not None
        limit = int(self.pick((1, 1000, 100_000)))
        data = self.rng.integers(-limit, limit + 1, count).astype(np.int32)
        scale = source.quant.scale[0] * weight.quant.scale
        return Tensor.constant("bias", data, Quant(scale, np.zeros(len(scale)), None if len(scale) == 1 else 0))

    def layer_output(self, source: Tensor, weight: Tensor) -> Quant:
        """An output scale that many accumulators fit, or that saturates, or that rounds nearly all away."""
        assert source.quant is not None
        assert weight.quant is not None
        terms = max(1, int(np.prod(weight.shape[1:])))
        product = float(source.quant.scale[0]) * float(weight.quant.scale.max())
        return self.quant(product * 74 * np.sqrt(terms) / self.ratio())

    def window(self, shape: tuple[int, ...], *, pool: bool) -> tuple[tuple[int, int], dict[str, object]]:
        """A kernel that fits, and the attributes of a sliding window."""
        kernel = tuple(min(size, int(self.pick((1, 2, 3, 5, 8, 10)))) for size in shape[1:3])
        spare = [
            size if length == 1 else (size - 1) // (length - 1) for size, length in zip(shape[1:3], kernel, strict=True)
        ]
        attrs: dict[str, object] = {
            "stride": (int(self.pick((1, 1, 2, 3))), int(self.pick((1, 1, 2, 3)))),
            "padding": str(self.pick(("same", "valid"))),
            "activation": self.activation(),
        }
        if not pool:
            attrs["dilation"] = tuple(max(1, min(int(self.pick((1, 1, 2, 4))), limit)) for limit in spare)
            if attrs["dilation"] != (1, 1):
                attrs["stride"] = (1, 1)  # TFLite takes no stride with a dilation
        return (kernel[0], kernel[1]), attrs


def _make_conv(draw: _Draw, kind: str) -> Graph:
    source = draw.input()
    channels = source.shape[3]
    group_in = channels
    filters = draw.size(17)
    if draw.rng.random() < 0.3:
        group_in = int(draw.pick([size for size in range(1, channels + 1) if channels % size == 0]))
        filters = channels // group_in * int(draw.pick((1, 2, 3)))
    kernel, attrs = draw.window(source.shape, pool=False)
    weight = draw.weight((filters, *kernel, group_in), 0)
    return build_one_op(
        kind, (source, weight, draw.bias(source, weight, filters)), attrs, draw.layer_output(source, weight)
    )


def _make_depthwise(draw: _Draw, kind: str) -> Graph:
    source = draw.input()
    multiplier = int(draw.pick((1, 1, 2, 3)))
    filters = source.shape[3] * multiplier
    kernel, attrs = draw.window(source.shape, pool=False)
    attrs["depth_multiplier"] = multiplier
    weight = draw.weight((1, *kernel, filters), 3)
    return build_one_op(
        kind, (source, weight, draw.bias(source, weight, filters)), attrs, draw.layer_output(source, weight)
    )


def _make_fully_connected(draw: _Draw, kind: str) -> Graph:
    source = draw.input(shape=(1, draw.size()) if draw.rng.random() < 0.7 else None)
    units = draw.size()
    # per output channel too: what others' converters write, though edgeprune does not
    weight = draw.weight((units, source.element_count), 0 if draw.rng.random() < 0.2 else None)
    operands = (source, weight, draw.bias(source, weight, units))
    return build_one_op(kind, operands, {"activation": draw.activation()}, draw.layer_output(source, weight))


def _make_binary(draw: _Draw, kind: str) -> Graph:
    first = draw.input("input_0")
    assert first.quant is not None
    scale = float(first.quant.scale[0]) * draw.ratio()
    shape = first.shape
    if draw.rng.random() < 0.5:
        shape = (1, *(int(draw.pick((1, size))) for size in shape[1:]))
    second = draw.input("input_1", shape, draw.quant(scale))
    if draw.rng.random() < 0.4:
        if draw.rng.random() < 0.5:
            shape = shape[-1:]  # a vector along the channels
        second = Tensor.constant("operand", draw.stored(shape), draw.quant(scale))
    larger = max(float(first.quant.scale[0]), scale)
    wide = 2 * larger if kind != "mul" else 100 * float(first.quant.scale[0]) * scale
    operands = (first, second) if draw.rng.random() < 0.5 else (second, first)
    return build_one_op(kind, operands, {"activation": draw.activation()}, draw.quant(wide / draw.ratio()))


def _make_pool(draw: _Draw, kind: str) -> Graph:
    source = draw.input()
    kernel, attrs = draw.window(source.shape, pool=True)
    return build_one_op(kind, (source,), {"kernel_size": kernel, **attrs}, source.quant)


def _make_mean(draw: _Draw, kind: str) -> Graph:
    source = draw.input()
    assert source.quant is not None
    attrs = {"axes": draw.pick(((1, 2), (1, 2), (2,), (1,), (3,))), "keep_dims": bool(draw.rng.random() < 0.5)}
    same = draw.rng.random() < 0.3
    output = source.quant if same else draw.quant(float(source.quant.scale[0]) / draw.ratio())
    return build_one_op(kind, (source,), attrs, output)


def _make_rescaling(draw: _Draw, kind: str) -> Graph:
    """relu, leaky_relu, elu, quantize int8 -> int8."""
    source = draw.input()
    assert source.quant is not None
    attrs: dict[str, object] = {}
    if kind == "leaky_relu":
        attrs["alpha"] = float(np.float32(draw.pick((0.01, 0.25, 0.3, 1.7, -0.4))))
    return build_one_op(kind, (source,), attrs, draw.quant(float(source.quant.scale[0]) / draw.ratio()))


def _make_hard_swish(draw: _Draw, kind: str) -> Graph:
    source = draw.input()
    assert source.quant is not None
    ratio = min(draw.ratio(), 100.0)  # the kernel takes less than 128
    return build_one_op(kind, (source,), {}, draw.quant(float(source.quant.scale[0]) / ratio))


def _make_same_scale(draw: _Draw, kind: str) -> Graph:
    """relu6, relu_n1_to_1: the two scales are equal, see the table of limits."""
    source = draw.input()
    return build_one_op(kind, (source,), {}, source.quant)


def _make_prelu(draw: _Draw, kind: str) -> Graph:
    source = draw.input()
    assert source.quant is not None
    shape = draw.pick(((1, 1, source.shape[3]), (source.shape[3],), source.shape[1:], (1, *source.shape[1:])))
    alpha = Tensor.constant("alpha", draw.stored(tuple(shape)), draw.quant(float(2.0 ** draw.rng.uniform(-9, -6))))
    return build_one_op(kind, (source, alpha), {}, draw.quant(float(source.quant.scale[0]) / draw.ratio()))


def _make_fixed_output(draw: _Draw, kind: str) -> Graph:
    """logistic, tanh, softmax: the output's quantization is built into the kernel.

    Input scales stay below 2: from 4 on, TFLite Micro saturates at +-1 step and LiteRT, which does not, is 4 LSB away.
    """
    source = draw.input(quant=draw.quant(float(2.0 ** draw.rng.uniform(-12, 1))))
    output = Quant.per_tensor(1 / 128, 0) if kind == "tanh" else Quant.per_tensor(1 / 256, -128)
    attrs = {"beta": float(np.float32(draw.pick((1.0, 0.5, 2.3))))} if kind == "softmax" else {}
    return build_one_op(kind, (source,), attrs, output)


def _make_quantize(draw: _Draw, kind: str) -> Graph:
    if draw.rng.random() < 0.5:
        return _make_rescaling(draw, kind)
    return build_one_op(kind, (Tensor("input", draw.shape()),), {}, draw.quant())


def _make_dequantize(draw: _Draw, kind: str) -> Graph:
    return build_one_op(kind, (draw.input(),), {}, None)


_MAKERS: dict[str, Callable[[_Draw, str], Graph]] = {
    "conv_2d": _make_conv,
    "depthwise_conv_2d": _make_depthwise,
    "fully_connected": _make_fully_connected,
    "add": _make_binary,
    "sub": _make_binary,
    "mul": _make_binary,
    "max_pool_2d": _make_pool,
    "average_pool_2d": _make_pool,
    "mean": _make_mean,
    "relu": _make_rescaling,
    "relu6": _make_same_scale,
    "relu_n1_to_1": _make_same_scale,
    "leaky_relu": _make_rescaling,
    "prelu": _make_prelu,
    "logistic": _make_fixed_output,
    "tanh": _make_fixed_output,
    "elu": _make_rescaling,
    "hard_swish": _make_hard_swish,
    "softmax": _make_fixed_output,
    "quantize": _make_quantize,
    "dequantize": _make_dequantize,
}
EDGE_KINDS = tuple(_MAKERS)  # the rest (concat, pad, reshape, ...) only move values: `random_graphs` covers them
