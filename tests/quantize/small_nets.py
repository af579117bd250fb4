"""Small float32 programs, built op by op."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.graph import Graph, Op, Tensor, verify_graph
from edgeprune.ops import OPS


class NetMaker:
    """A float32 program under construction: each method appends an op and returns its output's name (the op's)."""

    def __init__(self, *shape: int) -> None:
        """shape: of the input, NHWC without the batch."""
        self.tensors = {"input": Tensor("input", (1, *shape))}
        self.ops: list[Op] = []

    def add(self, kind: str, name: str, *inputs: str, **attrs: Any) -> str:
        shape = OPS[kind].infer_shape(attrs, [self.tensors[tensor].shape for tensor in inputs])
        self.tensors[name] = Tensor(name, shape)
        self.ops.append(Op(kind, name, inputs, (name,), attrs))
        return name

    def constant(self, name: str, data: Any) -> str:
        self.tensors[name] = Tensor.constant(name, np.asarray(data, np.float32))
        return name

    def conv(self, name: str, x: str, weight_ohwi: Any, bias: Any, activation: str = "none", **attrs: Any) -> str:
        operands = (x, self.constant(f"{name}/weight", weight_ohwi), self.constant(f"{name}/bias", bias))
        window = {"stride": (1, 1), "dilation": (1, 1), "padding": "same"}
        return self.add("conv_2d", name, *operands, **{**window, "activation": activation, **attrs})

    def depthwise(self, name: str, x: str, weight_1hwo: Any, bias: Any, activation: str = "none") -> str:
        operands = (x, self.constant(f"{name}/weight", weight_1hwo), self.constant(f"{name}/bias", bias))
        attrs = {"stride": (1, 1), "dilation": (1, 1), "padding": "same", "depth_multiplier": 1}
        return self.add("depthwise_conv_2d", name, *operands, **attrs, activation=activation)

    def dense(self, name: str, x: str, weight_oi: Any, bias: Any, activation: str = "none") -> str:
        operands = (x, self.constant(f"{name}/weight", weight_oi), self.constant(f"{name}/bias", bias))
        return self.add("fully_connected", name, *operands, activation=activation)

    def max_pool(self, name: str, x: str) -> str:
        attrs = {"kernel_size": (1, 3), "stride": (1, 1), "padding": "same", "activation": "none"}
        return self.add("max_pool_2d", name, x, **attrs)

    def finish(self, *outputs: str) -> Graph:
        graph = Graph("net", self.tensors, tuple(self.ops), ("input",), outputs or (self.ops[-1].outputs[0],))
        verify_graph(graph)
        return graph


def make_series_net(seed: int = 0, steps: int = 16, width: int = 8) -> Graph:
    """An Inception-like series net: conv, max pool + conv beside a conv, concat, depthwise, mean, fully connected."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    net = NetMaker(1, steps, 2)
    stem = net.conv("stem", "input", draw(width, 1, 5, 2), draw(width), "relu")
    left = net.conv("left", stem, draw(4, 1, 3, width), draw(4))
    right = net.conv("right", net.max_pool("pool", stem), draw(4, 1, 1, width), draw(4))
    joined = net.add("concat", "joined", left, right, axis=3)
    deep = net.depthwise("deep", joined, rng.normal(size=(1, 1, 4, 8)) / 2, draw(8), "relu")
    pooled = net.add("mean", "pooled", deep, axes=(1, 2), keep_dims=False)
    net.dense("output", pooled, draw(3, 8), draw(3))
    return net.finish()


def draw_samples(graph: Graph, count: int = 32, seed: int = 0) -> np.ndarray:
    """Normal samples for the program's input, NHWC."""
    return np.random.default_rng(seed).normal(size=(count, *graph.tensors["input"].shape[1:])).astype(np.float32)
