"""The ways from the float program to an int8 TFLite file, by the name that `--converter` takes.

There is room for an adapter to TinyNeuralNetwork (github.com/alibaba/TinyNeuralNetwork): a function of the same two
arguments, one more row. It is not on PyPI: the package `tinynn` there is another project, so nothing here installs or
imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgeprune.graph import Graph
from edgeprune.lower.tensorflow_converter import convert_with_tensorflow
from edgeprune.lower.tflite_writer import write_tflite
from edgeprune.quantize import calibrate, quantize_graph


def convert_with_edgeprune(graph: Graph, samples_nhwc: np.ndarray) -> bytes:
    """The float32 program, quantized over the full range of the calibration samples (N, ...), as a TFLite file."""
    return write_tflite(quantize_graph(graph, calibrate(graph, samples_nhwc)))


CONVERTERS: Mapping[str, Callable[[Graph, np.ndarray], bytes]] = {
    "edgeprune": convert_with_edgeprune,
    "tensorflow": convert_with_tensorflow,
}
