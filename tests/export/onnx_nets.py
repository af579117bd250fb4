"""Small ONNX models made by hand, in milliseconds, and the check that they are read right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.export import read_onnx
from edgeprune.export.parity_checks import run_onnx
from edgeprune.graph import Graph
from edgeprune.layout import to_nhwc
from edgeprune.reference import run_graph

# Both sides compute in float32 and differ in the order of sums only; a wrong element is wrong by its own size.
TOLERANCE = 1e-4


class OnnxNet:
    """Builds a model node by node. `x` is the input; methods return the name of what they added."""

    def __init__(self, sample_shape: Sequence[int], *, opset: int = 18, batch: int | str = "N", seed: int = 0) -> None:
        self.sample_shape = tuple(sample_shape)
        self.opset = opset
        self.batch = batch
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.x = "x"

    def store(self, values: np.ndarray | Sequence[int] | float, name: str = "") -> str:
        """A constant operand; Python integers become int64."""
        array = np.asarray(values)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = name or f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def draw(self, *shape: int, low: float = -1.0, high: float = 1.0, name: str = "") -> str:
        """Random weights."""
        return self.store(self.rng.uniform(low, high, shape).astype(np.float32), name)

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """A node; returns its (first) output."""
        count = len(self.nodes)
        names = [f"v{count}" if index == 0 else f"v{count}_{index}" for index in range(outputs)]
        name = f"{op_type.lower()}{count}"
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=name, **attributes))
        return names[0]

    def conv(
        self, x: str, inputs: int, filters: int, kernel: Sequence[int], *, group: int = 1, **attributes: object
    ) -> str:
        """Conv with random weights and bias."""
        weight = self.draw(filters, inputs // group, *kernel)
        return self.add("Conv", x, weight, self.draw(filters), group=group, **attributes)

    def batchnorm(self, x: str, channels: int) -> str:
        """BatchNormalization with random statistics."""
        scale, shift, mean = (self.draw(channels, low=0.5, high=1.5), self.draw(channels), self.draw(channels))
        return self.add("BatchNormalization", x, scale, shift, mean, self.draw(channels, low=0.5, high=2.0))

    def model(self, *outputs: str, rank: int | Sequence[int] = 2) -> onnx.ModelProto:
        """The model with these outputs, each of this rank."""
        ranks = [rank] * len(outputs) if isinstance(rank, int) else rank
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, *self.sample_shape])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes)
                for name, axes in zip(outputs, ranks, strict=True)
            ],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        # an old IR version, so that every ONNX Runtime reads it
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def read_checked(model: onnx.ModelProto, sample_shape: Sequence[int], *, samples: int = 3, batch: int = 0) -> Graph:
    """Read a model and hold the program against ONNX Runtime on other samples than the reader's own check used."""
    graph = read_onnx(model)
    x = np.random.default_rng(7).standard_normal((batch or samples, *sample_shape)).astype(np.float32)
    expected = run_onnx(model, x)
    found = run_graph(graph, to_nhwc(x))
    for name, wanted in zip(graph.outputs, expected, strict=True):
        wanted = wanted.reshape(-1, 1) if wanted.ndim < 2 else to_nhwc(wanted)
        assert found[name].shape == wanted.shape
        np.testing.assert_allclose(
            found[name], wanted, rtol=TOLERANCE, atol=TOLERANCE * max(1e-2, np.abs(wanted).max())
        )
    return graph


def count_kinds(graph: Graph) -> dict[str, int]:
    """How often each kind of op occurs."""
    return dict(Counter(op.kind for op in graph.ops))
