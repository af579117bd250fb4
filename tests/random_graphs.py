"""Random programs for property tests: float32 and int8 graphs of every op kind, from a seed.

The quantization follows TFLite's int8 rules, so that every executor may be asked to run them: weights symmetric (per
output channel for convolutions, per tensor for fully connected), biases with scale = input scale x weight scale, one
scale for input and output of concat, pools, pad, reshape, transpose, strided_slice and relu6 (TFLite Micro's RELU6 does
not rescale), softmax and logistic 1/256 and -128, tanh 1/128 and 0. Output scales are set so that few values saturate.
TFLite Micro has no RELU_N1_TO_1 (as an op of its own); every other kind runs there.

`make_op_graph("conv_2d", seed)` is a program of one op, `make_random_graph(seed)` one of several with branches, and
`make_inputs(graph, seed, batch)` draws values for its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from edgeprune.graph import DTYPES, Graph, Op, Quant, Tensor, remove_unused_tensors, verify_graph
from edgeprune.ops import OPS

_WINDOW_ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")
_FIXED_OUTPUT_QUANT = {"softmax": (1 / 256, -128), "logistic": (1 / 256, -128), "tanh": (1 / 128, 0)}
CONVERSIONS = ("quantize", "dequantize")


def make_op_graph(kind: str, seed: int, dtype: str = "int8") -> Graph:
    """A program of one op of this kind; 'quantize' and 'dequantize' exist with dtype 'int8' only."""
    maker = _GraphMaker(seed, dtype)
    if kind == "quantize" and maker.rng.random() < 0.5:
        maker.add_input("float32")
    elif kind == "concat":
        maker.add_input(dtype, copies=int(maker.rng.integers(2, 4)))
    else:
        maker.add_input(dtype)
    maker.add_op(kind)
    return maker.finish(f"one_{kind}")


def make_random_graph(
    seed: int,
    *,
    dtype: str = "int8",
    op_count: int = 8,
    kinds: Collection[str] | None = None,
    float_edges: bool = False,
) -> Graph:
    """A program of about `op_count` ops with branches and one or more outputs.

    kinds: op kinds to draw from; None for all that the dtype has.
    float_edges: an int8 program whose inputs and outputs are float32, converted inside.
    """
    maker = _GraphMaker(seed, dtype)
    maker.add_input("float32" if float_edges else dtype)
    if float_edges:
        maker.add_op("quantize", maker.live[0])
    allowed = sorted(OPS if kinds is None else kinds)
    allowed = [kind for kind in allowed if kind != "dequantize" and (dtype == "int8" or kind != "quantize")]
    for _ in range(op_count):
        maker.add_op(str(maker.rng.choice(allowed)))
    if float_edges:
        for name in maker.unread():
            maker.add_op("dequantize", name)
    return maker.finish(f"random_{seed}")


def make_random_chain(seed: int, kinds: Collection[str], op_count: int = 8) -> Graph:
    """An int8 program in which each op reads one of the two results before it; its last result is the one output."""
    maker = _GraphMaker(seed, "int8")
    maker.add_input("int8")
    while len(maker.ops) < op_count:
        kind, source = str(maker.rng.choice(sorted(kinds))), maker.live[-int(maker.rng.integers(1, 3)) :][0]
        if maker._fits(kind, source):
            maker.add_op(kind, source)
    return _keep_last_output(maker.finish(f"chain_{seed}"))


def _keep_last_output(graph: Graph) -> Graph:
    wanted = {graph.ops[-1].outputs[0]}
    ops: list[Op] = []
    for op in reversed(graph.ops):
        if op.outputs[0] in wanted:
            wanted.update(op.inputs)
            ops.insert(0, op)
    return remove_unused_tensors(replace(graph, ops=tuple(ops), outputs=graph.ops[-1].outputs))


def make_inputs(graph: Graph, seed: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Values for each input, (batch, ...): all of int8's range, or a normal distribution."""
    rng = np.random.default_rng(seed)
    values = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        shape = (batch, *tensor.shape[1:])
        if tensor.dtype == "float32":
            values[name] = rng.normal(size=shape).astype(np.float32)
        else:
            limits = np.iinfo(DTYPES[tensor.dtype])
            values[name] = rng.integers(limits.min, limits.max + 1, shape).astype(DTYPES[tensor.dtype])
    return values


class _GraphMaker:
    """A program under construction. `live` holds the activations that ops may read."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.inputs: list[str] = []
        self.live: list[str] = []

    # -- the program

    def add_input(self, dtype: str, copies: int = 1) -> None:
        """A random image or series, `copies` times with one shape and scale."""
        height = 1 if self.rng.random() < 0.5 else int(self.rng.integers(2, 7))
        shape = (1, height, int(self.rng.integers(2, 13)), int(self.rng.integers(1, 6)))
        quant = self.draw_quant(0.02) if dtype == "int8" else None
        for index in range(copies):
            name = "input" if copies == 1 else f"input_{index}"
            self.tensors[name] = Tensor(name, shape, dtype, None, quant)
            self.inputs.append(name)
            self.live.append(name)

    def add_op(self, kind: str, source: str | None = None) -> None:
        """Append an op of this kind over a random live activation (or `source`); skipped where none fits."""
        candidates = [source] if source is not None else [name for name in self.live if self._fits(kind, name)]
        if candidates:
            _ADDERS[kind](self, kind, str(self.rng.choice(candidates)))

    def unread(self) -> list[str]:
        """Activations that no op reads yet."""
        read = {name for op in self.ops for name in op.inputs}
        return [name for name in self.live if name not in read]

    def finish(self, name: str) -> Graph:
        """The verified program; what nobody reads are its outputs, named output or output_0, output_1, ..."""
        outputs = [output for output in self.unread() if output not in self.inputs]
        if not outputs:  # only where no op could be added
            self.add_op("relu")
            outputs = [self.ops[-1].outputs[0]]
        names = {old: "output" if len(outputs) == 1 else f"output_{index}" for index, old in enumerate(outputs)}
        ops = [replace(op, outputs=tuple(names.get(output, output) for output in op.outputs)) for op in self.ops]
        tensors = [replace(tensor, name=names.get(tensor.name, tensor.name)) for tensor in self.tensors.values()]
        used = {*self.inputs, *names.values(), *(operand for op in ops for operand in (*op.inputs, *op.outputs))}
        graph = Graph(
            name,
            {tensor.name: tensor for tensor in tensors if tensor.name in used},
            tuple(ops),
            tuple(self.inputs),
            tuple(names.values()),
        )
        verify_graph(graph)
        return graph

    def _fits(self, kind: str, name: str) -> bool:
        tensor = self.tensors[name]
        if kind == "quantize":
            return tensor.dtype == "float32" or self.dtype == "int8"
        if kind in ("concat", "pad", "softmax") and len(tensor.shape) < 2:
            return False  # nothing but the batch axis, which stays as it is
        needs_image = kind.endswith("_2d") or kind in ("mean", "prelu")
        return tensor.dtype == self.dtype and (len(tensor.shape) == 4 or not needs_image)

    # -- parts of ops

    def emit(
        self,
        kind: str,
        inputs: tuple[str, ...],
        attrs: dict[str, object],
        quant: Quant | None,
        layer: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Append an op; its output shape follows from the table. Half of the ops are named apart from their output."""
        layer = layer or self.layer_name(kind)
        shape = OPS[kind].infer_shape(attrs, [self.tensors[name].shape for name in inputs])
        output = layer if self.rng.random() < 0.5 else f"{layer}/out"
        self.tensors[output] = Tensor(output, shape, dtype or self.dtype, None, quant)
        self.ops.append(Op(kind, layer, inputs, (output,), attrs))
        self.live.append(output)

    def layer_name(self, kind: str) -> str:
        """A fresh layer name."""
        return f"layer{len(self.ops)}.{kind}"

    def draw_quant(self, scale: float) -> Quant | None:
        """Per-tensor quantization of an activation, near `scale`; None in a float32 program."""
        return Quant.per_tensor(scale * self.rng.uniform(0.7, 1.4), int(self.rng.integers(-128, 128)))

    def output_quant(self, scale: float) -> Quant | None:
        """`draw_quant` where the program is int8."""
        return self.draw_quant(scale) if self.dtype == "int8" else None

    def scale_of(self, name: str) -> float:
        """The scale of an int8 activation, 1 for float32."""
        quant = self.tensors[name].quant
        return 1.0 if quant is None else float(quant.scale[0])

    def add_weight(self, layer: str, shape: tuple[int, ...], axis: int | None) -> tuple[str, np.ndarray]:
        """A weight constant quantized along `axis`; its name and scales."""
        name = f"{layer}/weight"
        if self.dtype == "float32":
            self.tensors[name] = Tensor.constant(name, self.rng.normal(size=shape).astype(np.float32))
            return name, np.ones(1, np.float32)
        scale = self.rng.uniform(0.002, 0.02, 1 if axis is None else shape[axis]).astype(np.float32)
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        self.tensors[name] = Tensor.constant(name, data, Quant(scale, np.zeros(len(scale)), axis))
        return name, scale

    def add_bias(self, layer: str, size: int, source: str, weight_scale: np.ndarray, axis: int | None) -> str:
        """A bias constant of `size` values."""
        name = f"{layer}/bias"
        if self.dtype == "float32":
            self.tensors[name] = Tensor.constant(name, self.rng.normal(size=size).astype(np.float32))
        else:
            scale = np.float32(self.scale_of(source)) * weight_scale
            data = self.rng.integers(-3000, 3001, size).astype(np.int32)
            self.tensors[name] = Tensor.constant(name, data, Quant(scale, np.zeros(len(scale)), axis))
        return name

    def draw_activation(self) -> str:
        """A fused activation, often none."""
        return str(self.rng.choice(_WINDOW_ACTIVATIONS, p=(0.4, 0.4, 0.15, 0.05)))

    def draw_window(self, source: str) -> tuple[tuple[int, int], dict[str, object]]:
        """A kernel size that fits the activation and the attributes of a sliding window."""
        padding = str(self.rng.choice(("same", "valid")))
        kernel, dilation = [], []
        for size in self.tensors[source].shape[1:3]:
            length = int(self.rng.integers(1, min(size, 5) + 1))
            limit = (size - 1) // max(length - 1, 1)  # a dilated kernel still fits
            kernel.append(length)
            dilation.append(int(self.rng.integers(1, max(min(limit, 3), 1) + 1)) if self.rng.random() < 0.4 else 1)
        stride = int(self.rng.integers(1, 3))
        attrs = {
            "stride": (stride, stride),
            "dilation": tuple(dilation) if stride == 1 else (1, 1),
            "padding": padding,
            "activation": self.draw_activation(),
        }
        return (kernel[0], kernel[1]), attrs


def _accumulated_scale(maker: _GraphMaker, source: str, weight_scale: np.ndarray, terms: int) -> float:
    """An output scale that holds 3 standard deviations of a sum of `terms` products of random int8 values."""
    return 3 * 74 * 73 * np.sqrt(terms) * maker.scale_of(source) * float(weight_scale.mean()) / 127


def _add_conv(maker: _GraphMaker, kind: str, source: str) -> None:
    layer = maker.layer_name(kind)
    channels = maker.tensors[source].shape[3]
    divisors = [count for count in range(1, channels + 1) if channels % count == 0]
    groups = int(maker.rng.choice(divisors)) if maker.rng.random() < 0.25 else 1
    filters = groups * int(maker.rng.integers(1, 5))
    kernel, attrs = maker.draw_window(source)
    weight, scale = maker.add_weight(layer, (filters, *kernel, channels // groups), 0)
    bias = maker.add_bias(layer, filters, source, scale, 0)
    terms = kernel[0] * kernel[1] * channels // groups
    quant = maker.output_quant(_accumulated_scale(maker, source, scale, terms))
    maker.emit(kind, (source, weight, bias), attrs, quant, layer)


def _add_depthwise(maker: _GraphMaker, kind: str, source: str) -> None:
    layer = maker.layer_name(kind)
    multiplier = int(maker.rng.choice((1, 1, 2, 3)))
    filters = maker.tensors[source].shape[3] * multiplier
    kernel, attrs = maker.draw_window(source)
    weight, scale = maker.add_weight(layer, (1, *kernel, filters), 3)
    bias = maker.add_bias(layer, filters, source, scale, 0)
    quant = maker.output_quant(_accumulated_scale(maker, source, scale, kernel[0] * kernel[1]))
    maker.emit(kind, (source, weight, bias), {**attrs, "depth_multiplier": multiplier}, quant, layer)


def _add_fully_connected(maker: _GraphMaker, kind: str, source: str) -> None:
    layer = maker.layer_name(kind)
    features = maker.tensors[source].element_count
    units = int(maker.rng.integers(1, 7))
    weight, scale = maker.add_weight(layer, (units, features), None)
    bias = maker.add_bias(layer, units, source, scale, None)
    quant = maker.output_quant(_accumulated_scale(maker, source, scale, features))
    maker.emit(kind, (source, weight, bias), {"activation": maker.draw_activation()}, quant, layer)


def _add_binary(maker: _GraphMaker, kind: str, source: str) -> None:
    layer = maker.layer_name(kind)
    shape = maker.tensors[source].shape
    partners = [name for name in maker.live if maker.tensors[name].shape == shape and maker._fits(kind, name)]
    if maker.rng.random() < 0.5:
        other = str(maker.rng.choice(partners))  # may be `source` itself
    else:
        other = f"{layer}/operand"
        small = (1,) * (len(shape) - 1) + shape[-1:]
        operand_shape = shape if maker.rng.random() < 0.3 else small
        if maker.dtype == "float32":
            data = maker.rng.normal(size=operand_shape).astype(np.float32)
        else:
            data = maker.rng.integers(-128, 128, operand_shape).astype(np.int8)
        maker.tensors[other] = Tensor.constant(other, data, maker.output_quant(0.02))
    scales = maker.scale_of(source), maker.scale_of(other)
    wide = 2 * max(scales) if kind != "mul" else 100 * scales[0] * scales[1]
    inputs = (source, other) if maker.rng.random() < 0.7 else (other, source)
    maker.emit(kind, inputs, {"activation": maker.draw_activation()}, maker.output_quant(wide), layer)


def _add_pool(maker: _GraphMaker, kind: str, source: str) -> None:
    kernel, attrs = maker.draw_window(source)
    del attrs["dilation"]
    maker.emit(kind, (source,), {"kernel_size": kernel, **attrs}, maker.tensors[source].quant)


def _add_mean(maker: _GraphMaker, kind: str, source: str) -> None:
    axes = ((1, 2), (2,), (1,), (3,), (1, 2, 3))[int(maker.rng.choice(5, p=(0.6, 0.1, 0.1, 0.1, 0.1)))]
    attrs = {"axes": axes, "keep_dims": bool(maker.rng.random() < 0.5)}
    maker.emit(kind, (source,), attrs, maker.output_quant(maker.scale_of(source)))


def _add_concat(maker: _GraphMaker, kind: str, source: str) -> None:
    shape, quant = maker.tensors[source].shape, maker.tensors[source].quant
    axis = int(maker.rng.integers(1, len(shape)))

    def joins(name: str) -> bool:
        other = maker.tensors[name]
        same = [size for index, size in enumerate(other.shape) if index != axis]
        return (
            len(other.shape) == len(shape)
            and other.dtype == maker.dtype
            and same == [size for index, size in enumerate(shape) if index != axis]
            and _has_same_scale(other.quant, quant)
        )

    partners = [name for name in maker.live if joins(name)]
    inputs = (source, *(str(name) for name in maker.rng.choice(partners, int(maker.rng.integers(1, 3)))))
    maker.emit(kind, inputs, {"axis": axis}, quant)


def _has_same_scale(first: Quant | None, second: Quant | None) -> bool:
    if first is None or second is None:
        return first is second
    return (first.scale[0], first.zero_point[0]) == (second.scale[0], second.zero_point[0])


def _add_pad(maker: _GraphMaker, kind: str, source: str) -> None:
    rank = len(maker.tensors[source].shape)
    spatial = (1, 2) if rank == 4 else (rank - 1,)
    paddings = tuple(
        (int(maker.rng.integers(0, 3)), int(maker.rng.integers(0, 3))) if axis in spatial else (0, 0)
        for axis in range(rank)
    )
    attrs = {"paddings": paddings, "mode": str(maker.rng.choice(("zero", "lowest")))}
    maker.emit(kind, (source,), attrs, maker.tensors[source].quant)


def _add_rescaling(maker: _GraphMaker, kind: str, source: str) -> None:
    attrs = {"leaky_relu": {"alpha": float(np.float32(maker.rng.uniform(0.01, 0.5)))}, "softmax": {"beta": 1.0}}
    if kind in _FIXED_OUTPUT_QUANT:
        quant = Quant.per_tensor(*_FIXED_OUTPUT_QUANT[kind]) if maker.dtype == "int8" else None
    else:
        quant = maker.output_quant(maker.scale_of(source))
    maker.emit(kind, (source,), attrs.get(kind, {}), quant)


def _add_same_scale(maker: _GraphMaker, kind: str, source: str) -> None:
    maker.emit(kind, (source,), {}, maker.tensors[source].quant)


def _add_prelu(maker: _GraphMaker, kind: str, source: str) -> None:
    layer = maker.layer_name(kind)
    shape = (1, 1, maker.tensors[source].shape[3])
    if maker.dtype == "float32":
        alpha = Tensor.constant(f"{layer}/alpha", maker.rng.uniform(0, 0.5, shape).astype(np.float32))
    else:
        data = maker.rng.integers(-127, 128, shape).astype(np.int8)
        alpha = Tensor.constant(f"{layer}/alpha", data, Quant.per_tensor(0.004, 0))
    maker.tensors[alpha.name] = alpha
    maker.emit(kind, (source, alpha.name), {}, maker.output_quant(maker.scale_of(source)), layer)


def _add_reshape(maker: _GraphMaker, kind: str, source: str) -> None:
    tensor = maker.tensors[source]
    shapes = [(1, tensor.element_count), (1, 1, tensor.element_count // tensor.shape[-1], tensor.shape[-1])]
    maker.emit(kind, (source,), {"shape": shapes[int(maker.rng.integers(2))]}, tensor.quant)


def _add_transpose(maker: _GraphMaker, kind: str, source: str) -> None:
    rank = len(maker.tensors[source].shape)
    perm = (0, *(1 + int(axis) for axis in maker.rng.permutation(rank - 1)))
    maker.emit(kind, (source,), {"perm": perm}, maker.tensors[source].quant)


def _add_strided_slice(maker: _GraphMaker, kind: str, source: str) -> None:
    begin, end, stride = [0], [1], [1]
    for size in maker.tensors[source].shape[1:]:
        first = int(maker.rng.integers(0, size))
        begin.append(first)
        end.append(int(maker.rng.integers(first + 1, size + 1)))
        stride.append(int(maker.rng.integers(1, 3)))
    attrs = {"begin": tuple(begin), "end": tuple(end), "stride": tuple(stride)}
    maker.emit(kind, (source,), attrs, maker.tensors[source].quant)


def _add_quantize(maker: _GraphMaker, kind: str, source: str) -> None:
    scale = 0.03 if maker.tensors[source].dtype == "float32" else maker.scale_of(source)
    maker.emit(kind, (source,), {}, maker.draw_quant(scale), dtype="int8")


def _add_dequantize(maker: _GraphMaker, kind: str, source: str) -> None:
    maker.emit(kind, (source,), {}, None, dtype="float32")


_ADDERS: dict[str, Callable[[_GraphMaker, str, str], None]] = {
    "conv_2d": _add_conv,
    "depthwise_conv_2d": _add_depthwise,
    "fully_connected": _add_fully_connected,
    "add": _add_binary,
    "sub": _add_binary,
    "mul": _add_binary,
    "max_pool_2d": _add_pool,
    "average_pool_2d": _add_pool,
    "mean": _add_mean,
    "concat": _add_concat,
    "pad": _add_pad,
    "relu": _add_rescaling,
    "relu6": _add_same_scale,
    "relu_n1_to_1": _add_same_scale,
    "leaky_relu": _add_rescaling,
    "prelu": _add_prelu,
    "logistic": _add_rescaling,
    "tanh": _add_rescaling,
    "elu": _add_rescaling,
    "hard_swish": _add_rescaling,
    "softmax": _add_rescaling,
    "reshape": _add_reshape,
    "transpose": _add_transpose,
    "strided_slice": _add_strided_slice,
    "quantize": _add_quantize,
    "dequantize": _add_dequantize,
}
