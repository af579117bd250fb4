"""Small int8 programs for the kernels of cores with the DSP extension: many layers in one, so one build runs all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call
from edgeprune.graph import Graph, Op, Quant, Tensor, verify_graph
from edgeprune.ops import OPS
from edgeprune.target import load_target

ZERO_POINTS = (-128, -127, -5, 0, 3, 126, 127)


@dataclass(frozen=True)
class Layer:
    """A conv_2d or fully_connected over an input of its own.

    shape: (rows, columns, channels) of the input. gain: of the output over what fits int8 well; beyond 1 it saturates.
    zero_points: of input and output. extreme: weights are -127 or 127, channels now and then all zero.
    """

    shape: tuple[int, int, int]
    channels: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "same"
    groups: int = 1
    activation: str = "none"
    zero_points: tuple[int, int] = (-128, -128)
    gain: float = 1.0
    extreme: bool = False
    power_of_two: bool = False
    kind: str = "conv_2d"
    per_channel: bool = False


class ProgramMaker:
    """A program in the making. Ops are named by their kind and number."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []

    def add_input(self, shape: tuple[int, ...], quant: Quant) -> Tensor:
        return self._add(Tensor(f"input_{len(self.tensors)}", (1, *shape), "int8", None, quant))

    def add_constant(self, data: np.ndarray, quant: Quant) -> Tensor:
        return self._add(Tensor.constant(f"constant_{len(self.tensors)}", data, quant))

    def add_op(self, kind: str, operands: list[Tensor], attrs: dict[str, object], quant: Quant | None) -> Tensor:
        shape = OPS[kind].infer_shape(attrs, [operand.shape for operand in operands])
        result = self._add(Tensor(f"result_{len(self.tensors)}", shape, "int8", None, quant))
        names = tuple(operand.name for operand in operands)
        self.ops.append(Op(kind, f"{kind}_{len(self.ops)}", names, (result.name,), attrs))
        return result

    def add_layer(self, layer: Layer, x: Tensor | None = None, output: Quant | None = None) -> Tensor:
        """A layer over an input of its own, or over x."""
        rng = self.rng
        if x is None:
            x = self.add_input(layer.shape, Quant.per_tensor(0.05, layer.zero_points[0]))
        dense = layer.kind == "fully_connected"
        length = int(np.prod(layer.shape)) if dense else layer.shape[2] // layer.groups
        shape = (layer.channels, length) if dense else (layer.channels, *layer.kernel_size, length)
        data = np.clip(np.round(rng.normal(0, 40, shape)), -127, 127)
        if layer.extreme:
            data = rng.choice([-127, 127], shape)
            data[rng.random(layer.channels) < 0.2] = 0
        axis = None if dense and not layer.per_channel else 0
        scales = 0.01 * rng.uniform(0.5, 2, 1 if axis is None else layer.channels)
        if layer.power_of_two:
            scales = 2.0 ** np.round(np.log2(scales))
        assert x.quant is not None
        in_scale = float(x.quant.scale[0])
        weight = self.add_constant(data.astype(np.int8), Quant(scales, np.zeros(len(scales)), axis))
        assert weight.quant is not None
        bias_quant = Quant(np.float32(in_scale) * weight.quant.scale, np.zeros(len(scales)), axis)
        bias = self.add_constant(rng.integers(-9000, 9000, layer.channels).astype(np.int32), bias_quant)
        out_scale = in_scale * 0.01 * 40 * np.sqrt(np.prod(shape[1:])) * 74 / 60 / layer.gain
        if layer.power_of_two:
            out_scale = 2.0 ** np.round(np.log2(out_scale))
        attrs: dict[str, object] = {"activation": layer.activation}
        if not dense:
            attrs |= {"stride": layer.stride, "dilation": layer.dilation, "padding": layer.padding}
        return self.add_op(
            layer.kind, [x, weight, bias], attrs, output or Quant.per_tensor(out_scale, layer.zero_points[1])
        )

    def finish(self) -> Graph:
        """The program; its outputs are what no op reads."""
        read = {name for op in self.ops for name in op.inputs}
        inputs = tuple(tensor.name for tensor in self.tensors if tensor.name.startswith("input"))
        outputs = tuple(op.outputs[0] for op in self.ops if op.outputs[0] not in read)
        graph = Graph("layers", {tensor.name: tensor for tensor in self.tensors}, tuple(self.ops), inputs, outputs)
        verify_graph(graph)
        return graph

    def _add(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor


def make_program_of(layers: list[Layer], seed: int = 0) -> Graph:
    """A program of layers that have nothing to do with one another."""
    maker = ProgramMaker(seed)
    for layer in layers:
        maker.add_layer(layer)
    return maker.finish()


def make_call(graph: Graph, index: int = 0, target: str = "cortex-m4") -> Call:
    """A call of the op at `index`, all rows at once, no tensor a part of another."""
    op = graph.ops[index]
    y = graph.tensors[op.outputs[0]]
    strides = tuple(tensor.shape[-1] for name in op.inputs if not (tensor := graph.tensors[name]).is_constant)
    return Call("layer", op, graph, load_target(target), strides, y.shape[-1], y.shape[1])
