"""Ops with drawn arithmetic, hard on purpose: what random_layers.py and random_networks.py put together.

Zero points at the ends of int8, weights that are all -127 and 127 (or -128, as files of others may hold), scales that
are powers of two (ties everywhere), outputs that saturate or hardly move, biases far larger than the sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.graph import Graph, Op, Quant, Tensor, remove_unused_tensors, verify_graph
from edgeprune.ops import ACTIVATIONS, OPS

ZERO_POINTS = (-128, -128, -127, -1, 0, 3, 126, 127)
GAINS = (0.2, 1.0, 1.0, 1.0, 3.0, 40.0)  # of the output over what fits int8 well
FIXED_QUANT = {"softmax": (1 / 256, -128), "logistic": (1 / 256, -128), "tanh": (1 / 128, 0)}
SAME_SCALE = ("relu6", "max_pool_2d", "average_pool_2d")  # TFLite Micro does not rescale them


class OpMaker:
    """A program in the making: each method adds an op and answers its output.

    prefix: of all names. rng: where everything is drawn from.
    """

    def __init__(self, rng: np.random.Generator, prefix: str = "") -> None:
        self.rng, self.prefix = rng, prefix
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.inputs: list[str] = []
        self.has_ties = rng.random() < 0.3

    # -- draws

    def pick(self, options: Sequence) -> object:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def draw_quant(self, scale: float) -> Quant:
        """Near `scale`, any zero point."""
        zero_point = self.pick(ZERO_POINTS) if self.chance(0.7) else self.rng.integers(-128, 128)
        return Quant.per_tensor(float(self._round_scales(scale * self.rng.uniform(0.7, 1.4))), int(zero_point))

    def draw_activation(self) -> str:
        return str(self.pick(("none", "none", *ACTIVATIONS)))

    def _round_scales(self, scales: np.ndarray | float) -> np.ndarray:
        return 2.0 ** np.round(np.log2(scales)) if self.has_ties else np.asarray(scales)

    # -- tensors

    def add_input(self, shape: tuple[int, ...], quant: Quant | None = None) -> Tensor:
        name = f"{self.prefix}input_{len(self.inputs)}"
        self.inputs.append(name)
        return self._add(Tensor(name, shape, "int8", None, quant or self.draw_quant(0.05)))

    def add_op(self, kind: str, operands: Sequence[Tensor], attrs: dict[str, object], quant: Quant | None) -> Tensor:
        """Any op; the output's shape follows from the table."""
        layer = f"{self.prefix}{kind}_{len(self.ops)}"
        shape = OPS[kind].infer_shape(attrs, [operand.shape for operand in operands])
        result = self._add(Tensor(f"{layer}/out", shape, "int8", None, quant))
        self.ops.append(Op(kind, layer, tuple(operand.name for operand in operands), (result.name,), attrs))
        return result

    def add_constant(self, data: np.ndarray, quant: Quant) -> Tensor:
        return self._add(Tensor.constant(f"{self.prefix}constant_{len(self.tensors)}", data, quant))

    def _add(self, tensor: Tensor) -> Tensor:
        self.tensors[tensor.name] = tensor
        return tensor

    # -- layers with weights

    def add_conv(
        self,
        x: Tensor,
        filters: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str = "same",
        groups: int = 1,
        quant: Quant | None = None,
    ) -> Tensor:
        attrs = {"stride": stride, "dilation": dilation, "padding": padding, "activation": self.draw_activation()}
        return self._add_weighted("conv_2d", x, (filters, *kernel, x.shape[3] // groups), attrs, 0, quant)

    def add_depthwise(
        self,
        x: Tensor,
        kernel: tuple[int, int],
        *,
        multiplier: int = 1,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: str = "same",
        quant: Quant | None = None,
    ) -> Tensor:
        attrs = {"stride": stride, "dilation": dilation, "padding": padding, "activation": self.draw_activation()}
        attrs["depth_multiplier"] = multiplier
        return self._add_weighted("depthwise_conv_2d", x, (1, *kernel, x.shape[3] * multiplier), attrs, 3, quant)

    def add_dense(self, x: Tensor, units: int, *, quant: Quant | None = None) -> Tensor:
        axis = 0 if self.chance(0.3) else None
        attrs: dict[str, object] = {"activation": self.draw_activation()}
        return self._add_weighted("fully_connected", x, (units, x.element_count), attrs, axis, quant)

    def _add_weighted(
        self,
        kind: str,
        x: Tensor,
        shape: tuple[int, ...],
        attrs: dict[str, object],
        axis: int | None,
        quant: Quant | None,
    ) -> Tensor:
        channels = shape[3] if kind == "depthwise_conv_2d" else shape[0]
        terms = int(np.prod(shape)) // channels
        data = self._draw_weights(shape, -1 if kind == "depthwise_conv_2d" else 0)
        scales = self._round_scales(0.01 * self.rng.uniform(0.4, 2.5, 1 if axis is None else channels))
        weight = self.add_constant(data, Quant(scales, np.zeros(len(scales)), axis))
        assert x.quant is not None
        assert weight.quant is not None
        steps = np.float32(x.quant.scale[0]) * weight.quant.scale
        spread = 74 * max(float(np.sqrt(np.mean(data.astype(float) ** 2))), 1.0) * np.sqrt(terms)
        reach = 2**26 if self.chance(0.03) else 2 * spread
        bias = self.rng.uniform(-reach, reach, channels).astype(np.int32)
        biases = self.add_constant(bias, Quant(steps, np.zeros(len(steps)), None if axis is None else 0))
        gain = float(self.pick(GAINS))  # type: ignore[arg-type]
        fitting = float(steps.mean()) * spread * 3 / 127 / gain
        return self.add_op(kind, [x, weight, biases], attrs, quant or self.draw_quant(fitting))

    def _draw_weights(self, shape: tuple[int, ...], axis: int) -> np.ndarray:
        rng = self.rng
        style = rng.random()
        if style < 0.5:
            data = np.clip(np.round(rng.normal(0, 40, shape)), -127, 127)
        elif style < 0.65:
            data = rng.choice([-127, 127], shape)
        elif style < 0.75:
            data = np.full(shape, self.pick((-127, 127)))
        elif style < 0.85:
            data = rng.integers(-128, 128, shape)
            data.reshape(-1)[0] = -128
        else:
            data = rng.integers(-127, 128, shape)
            gone = rng.random(shape[axis]) < 0.4  # channels that are all zero
            data[(..., gone) if axis == -1 else gone] = 0
        return np.ascontiguousarray(data).astype(np.int8)

    # -- other ops

    def add_pool(
        self, x: Tensor, kind: str, kernel: tuple[int, int], stride: tuple[int, int], padding: str = "same"
    ) -> Tensor:
        attrs = {"kernel_size": kernel, "stride": stride, "padding": padding, "activation": self.draw_activation()}
        return self.add_op(kind, [x], attrs, x.quant)

    def add_binary(self, kind: str, a: Tensor, b: Tensor, quant: Quant | None = None) -> Tensor:
        assert a.quant is not None
        assert b.quant is not None
        scales = float(a.quant.scale[0]), float(b.quant.scale[0])
        gain = float(self.pick(GAINS))  # type: ignore[arg-type]
        wide = (100 * scales[0] * scales[1] if kind == "mul" else 1.5 * max(scales)) / min(gain, 8)
        return self.add_op(kind, [a, b], {"activation": self.draw_activation()}, quant or self.draw_quant(wide))

    def add_operand(self, shape: tuple[int, ...], scale: float) -> Tensor:
        """A constant operand of add, sub, mul."""
        return self.add_constant(self.rng.integers(-128, 128, shape).astype(np.int8), self.draw_quant(scale))

    def add_unary(self, kind: str, x: Tensor, quant: Quant | None = None) -> Tensor:
        """A function of each value, or softmax."""
        attrs: dict[str, object] = {}
        if kind == "leaky_relu":
            attrs = {"alpha": float(np.float32(self.rng.uniform(0.01, 0.5)))}
        if kind == "softmax":
            attrs = {"beta": 1.0}
        assert x.quant is not None
        if kind in FIXED_QUANT:
            quant = Quant.per_tensor(*FIXED_QUANT[kind])
        elif kind in SAME_SCALE:
            quant = x.quant
        return self.add_op(kind, [x], attrs, quant or self.draw_quant(float(x.quant.scale[0])))

    def add_prelu(self, x: Tensor, quant: Quant | None = None) -> Tensor:
        data = self.rng.integers(-127, 128, (1, 1, x.shape[3])).astype(np.int8)
        alpha = self.add_constant(data, Quant.per_tensor(0.004, 0))
        assert x.quant is not None
        return self.add_op("prelu", [x, alpha], {}, quant or self.draw_quant(float(x.quant.scale[0])))

    def add_mean(self, x: Tensor, axes: tuple[int, ...] = (1, 2), *, keep_dims: bool = False) -> Tensor:
        assert x.quant is not None
        quant = self.draw_quant(float(x.quant.scale[0])) if self.chance(0.7) else x.quant
        return self.add_op("mean", [x], {"axes": axes, "keep_dims": keep_dims}, quant)

    def add_concat(self, parts: Sequence[Tensor], axis: int = 3) -> Tensor:
        return self.add_op("concat", parts, {"axis": axis}, parts[0].quant)

    def add_slice(self, x: Tensor, axis: int, begin: int, end: int, step: int = 1) -> Tensor:
        """What lies from `begin` to `end` along one axis."""
        firsts, lasts, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        firsts[axis], lasts[axis], steps[axis] = begin, end, step
        return self.add_op(
            "strided_slice", [x], {"begin": tuple(firsts), "end": tuple(lasts), "stride": tuple(steps)}, x.quant
        )

    def add_pad(self, x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        attrs = {"paddings": ((0, 0), rows, columns, (0, 0)), "mode": str(self.pick(("zero", "lowest")))}
        return self.add_op("pad", [x], attrs, x.quant)

    def add_reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.add_op("reshape", [x], {"shape": shape}, x.quant)

    def finish(self, name: str, outputs: Sequence[Tensor]) -> Graph:
        """The verified program."""
        graph = Graph(name, self.tensors, tuple(self.ops), tuple(self.inputs), tuple(item.name for item in outputs))
        graph = remove_unused_tensors(graph)
        verify_graph(graph)
        return graph
