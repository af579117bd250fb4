"""Float networks built by hand, of the shapes that matter: LITE-like, Inception-like, FCN-like, a 2-D residual net."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeprune.graph import Graph, Op, Tensor, verify_graph
from edgeprune.ops import OPS


class _Network:
    """A float32 program that grows a layer at a time; each method returns its output's name."""

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(7)
        self.tensors = {"input": Tensor("input", input_shape)}
        self.ops: list[Op] = []

    def _add(self, kind: str, inputs: tuple[str, ...], constants: dict[str, np.ndarray], **attrs: object) -> str:
        name = f"{kind}{len(self.ops)}"
        for key, data in constants.items():
            self.tensors[f"{name}/{key}"] = Tensor.constant(f"{name}/{key}", data.astype(np.float32))
        operands = (*inputs, *(f"{name}/{key}" for key in constants))
        shape = OPS[kind].infer_shape(attrs, [self.tensors[operand].shape for operand in operands])
        self.tensors[name] = Tensor(name, shape)
        self.ops.append(Op(kind, name, operands, (name,), attrs))
        return name

    def conv(
        self, source: str, filters: int, kernel: tuple[int, int], activation: str = "none", stride: int = 1
    ) -> str:
        """A 'same' convolution."""
        channels = self.tensors[source].shape[3]
        weight = self.rng.normal(size=(filters, *kernel, channels)) / np.sqrt(kernel[0] * kernel[1] * channels)
        constants = {"weight": weight, "bias": 0.1 * self.rng.normal(size=filters)}
        attrs = {"stride": (stride, stride), "dilation": (1, 1), "padding": "same", "activation": activation}
        return self._add("conv_2d", (source,), constants, **attrs)

    def depthwise(self, source: str, kernel: int, dilation: int) -> str:
        """A dilated 'same' depthwise convolution over time."""
        channels = self.tensors[source].shape[3]
        constants = {
            "weight": self.rng.normal(size=(1, 1, kernel, channels)) / np.sqrt(kernel),
            "bias": np.zeros(channels),
        }
        attrs = {"stride": (1, 1), "dilation": (1, dilation), "padding": "same", "activation": "none"}
        return self._add("depthwise_conv_2d", (source,), constants, depth_multiplier=1, **attrs)

    def max_pool(self, source: str) -> str:
        """Max pooling over 3 steps, stride 1."""
        attrs = {"kernel_size": (1, 3), "stride": (1, 1), "padding": "same", "activation": "none"}
        return self._add("max_pool_2d", (source,), {}, **attrs)

    def join(self, *sources: str) -> str:
        """Concatenation of channels."""
        return self._add("concat", sources, {}, axis=3)

    def add(self, first: str, second: str) -> str:
        """A residual connection with ReLU."""
        return self._add("add", (first, second), {}, activation="relu")

    def relu(self, source: str) -> str:
        return self._add("relu", (source,), {})

    def finish(self, source: str, classes: int, name: str) -> Graph:
        """Global average pooling, a dense layer, softmax."""
        pooled = self._add("mean", (source,), {}, axes=(1, 2), keep_dims=False)
        features = self.tensors[pooled].shape[1]
        constants = {"weight": self.rng.normal(size=(classes, features)), "bias": self.rng.normal(size=classes)}
        dense = self._add("fully_connected", (pooled,), constants, activation="none")
        self._add("softmax", (dense,), {}, beta=1.0)
        last = self.ops.pop()
        del self.tensors[last.outputs[0]]
        self.tensors["output"] = Tensor("output", (1, classes))
        self.ops.append(Op(last.kind, last.name, last.inputs, ("output",), last.attrs))
        graph = Graph(name, self.tensors, tuple(self.ops), ("input",), ("output",))
        verify_graph(graph)
        return graph


def make_lite_like() -> Graph:
    """Three parallel convolutions, concat, two dilated separable convolutions."""
    net = _Network((1, 1, 64, 1))
    branches = [net.conv("input", 8, (1, kernel)) for kernel in (40, 20, 10)]
    value = net.relu(net.join(*branches))
    for kernel, dilation in ((20, 2), (10, 4)):
        value = net.conv(net.depthwise(value, kernel, dilation), 8, (1, 1), "relu")
    return net.finish(value, 5, "lite_like")


def make_inception_like() -> Graph:
    """Two Inception modules with bottleneck and pooling branch, and a residual connection."""
    net = _Network((1, 1, 48, 2))
    value = "input"
    for index in range(2):
        bottleneck = net.conv(value, 6, (1, 1)) if index else value
        branches = [net.conv(bottleneck, 6, (1, kernel)) for kernel in (40, 20, 10)]
        value = net.relu(net.join(*branches, net.conv(net.max_pool(value), 6, (1, 1))))
    return net.finish(net.add(value, net.conv("input", 24, (1, 1))), 3, "inception_like")


def make_fcn_like() -> Graph:
    """Three convolutions with ReLU."""
    net = _Network((1, 1, 50, 3))
    value = "input"
    for filters, kernel in ((16, 8), (24, 5), (16, 3)):
        value = net.conv(value, filters, (1, kernel), "relu")
    return net.finish(value, 4, "fcn_like")


def make_resnet_like() -> Graph:
    """A strided residual block over images."""
    net = _Network((1, 16, 16, 3))
    value = net.conv("input", 8, (3, 3), "relu")
    block = net.conv(net.conv(value, 12, (3, 3), "relu", stride=2), 12, (3, 3))
    return net.finish(net.add(block, net.conv(value, 12, (1, 1), stride=2)), 10, "resnet_like")


NETWORKS: dict[str, Callable[[], Graph]] = {
    "lite": make_lite_like,
    "inception": make_inception_like,
    "fcn": make_fcn_like,
    "resnet": make_resnet_like,
}
