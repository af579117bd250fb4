"""The second way to TFLite: the same float `Graph`, built as a TensorFlow function, through `tf.lite.TFLiteConverter`.

It is an oracle for tests, since two converters that share no code must agree, and an option for users who want
TensorFlow's own quantization. TensorFlow is an extra: it weighs 1.6 GB and takes seconds to import.

What comes out is TensorFlow's: its scales, its fused layers, its names for tensors, each beginning with the layer's.
`read_tflite` gives the `Graph` of it, which is what its executors are to be held against.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.graph import Graph, Op, verify_graph
from edgeprune.native_log import capture_native_log
from edgeprune.reference import run_graph

TENSORFLOW_INSTALL = "pip install tensorflow-cpu"

# TensorFlow 2.21 writes these between a dequantize and a quantize op, also where all else is int8.
_LEFT_IN_FLOAT = ("elu",)


def convert_with_tensorflow(graph: Graph, samples_nhwc: np.ndarray, dtype: str = "int8") -> bytes:
    """The float32 program as a TFLite file made by TensorFlow.

    samples_nhwc: calibration samples (N, ...) in the input's shape; of no effect for dtype 'float32'.
    dtype: 'int8' (inputs and outputs too) or 'float32'.
    Raises `InputError` without TensorFlow or with unfit samples, `UnsupportedModelError` for what TensorFlow refuses.
    """
    verify_graph(graph)
    if dtype not in ("int8", "float32"):
        raise InputError(f"dtype is {dtype!r}; allowed: int8, float32")
    _check_graph(graph, dtype)
    _check_samples(graph, samples_nhwc)
    lowest = _find_lowest_values(graph, samples_nhwc, dtype)
    # what TensorFlow tells on standard error is of use only where the conversion fails
    with capture_native_log(passes_on=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside TensorFlow and Keras
        return _convert(graph, samples_nhwc, dtype, lowest)


def _convert(graph: Graph, samples: np.ndarray, dtype: str, lowest: Mapping[str, float]) -> bytes:
    tf, converter_error = _import_tensorflow()
    module = _make_module(tf, graph, lowest)
    try:
        function = module.run.get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        if dtype == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: _yield_samples(samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
            # older TFLite Micro is silently wrong with scales per output of a dense layer
            converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        data: bytes = converter.convert()
    except (converter_error, tf.errors.OpError, ValueError, TypeError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedModelError(
            f"{graph.name}: TensorFlow's converter refuses the model ({reason}); use --converter edgeprune"
        ) from error
    return data


def require_tensorflow() -> None:
    """Raise InputError where TensorFlow is not installed; it is not imported, which takes 10 seconds."""
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"the converter 'tensorflow' needs TensorFlow, which is not installed here; run {TENSORFLOW_INSTALL}, "
            "or use --converter edgeprune"
        )


def _import_tensorflow() -> tuple[Any, type[Exception]]:
    """The module and the converter's own exception."""
    require_tensorflow()
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    return tf, ConverterError


def _check_graph(graph: Graph, dtype: str) -> None:
    for op in graph.ops:
        if op.kind not in _BUILDERS:
            raise UnsupportedModelError(
                f"{op.name} ({op.kind}): TensorFlow's converter takes the float program; give it the graph as it is "
                "before quantization"
            )
        if dtype == "int8" and op.kind in _LEFT_IN_FLOAT:
            raise UnsupportedModelError(
                f"{op.name} ({op.kind}): TensorFlow's converter leaves it in float32; use --converter edgeprune"
            )
    if len(graph.inputs) != 1:
        raise UnsupportedModelError(
            f"{graph.name} has {len(graph.inputs)} inputs; the converter 'tensorflow' takes models with 1; "
            "use --converter edgeprune"
        )


def _check_samples(graph: Graph, samples: np.ndarray) -> None:
    shape = graph.tensors[graph.inputs[0]].shape
    if samples.ndim != len(shape) or samples.shape[1:] != shape[1:] or len(samples) == 0:
        raise InputError(f"calibration samples are {samples.shape}; expected {('N', *shape[1:])} with N at least 1")
    if not np.isfinite(samples).all():
        raise InputError("calibration samples hold NaN or infinity; only finite values can be quantized")


def _yield_samples(samples: np.ndarray) -> Iterator[list[np.ndarray]]:
    for index in range(len(samples)):
        yield [np.ascontiguousarray(samples[index : index + 1], np.float32)]


def _find_lowest_values(graph: Graph, samples: np.ndarray, dtype: str) -> dict[str, float]:
    """What each pad op with mode 'lowest' fills in, by the op's output.

    In float that is the lowest float32. For int8 it would stretch the range of the tensor to 1e38; the least value that
    the calibration sees becomes the least int8 value, which no stored value is below: padding with it is exact.
    """
    pads = [op for op in graph.ops if op.kind == "pad" and op.attrs["mode"] == "lowest"]
    if dtype == "float32" or not pads:
        return {op.outputs[0]: float(np.finfo(np.float32).min) for op in pads}
    sources = {op.inputs[0] for op in pads}
    activations = run_graph(graph, samples, keep=sources - set(graph.inputs))
    activations = {**activations, graph.inputs[0]: samples}
    return {op.outputs[0]: float(activations[op.inputs[0]].min()) for op in pads}


def _make_module(tf: Any, graph: Graph, lowest: Mapping[str, float]) -> Any:
    """A tf.Module whose `run` computes the program, each layer's ops under a scope of the layer's name."""
    shape = graph.tensors[graph.inputs[0]].shape
    scopes = _name_scopes(graph)

    def run(source: Any) -> tuple[Any, ...]:
        values: dict[str, Any] = {name: tensor.data for name, tensor in graph.tensors.items() if tensor.is_constant}
        values[graph.inputs[0]] = source
        for op, scope in zip(graph.ops, scopes, strict=True):
            with tf.name_scope(scope):
                operands = [values[name] for name in op.inputs]
                result = _BUILDERS[op.kind](_Layer(tf, op, graph, lowest), *operands)
                activation = op.attrs.get("activation", "none")
                values[op.outputs[0]] = result if activation == "none" else _ACTIVATIONS[activation](tf, result)
        return tuple(tf.identity(values[name], name="output") for name in graph.outputs)

    module = tf.Module()
    module.run = tf.function(run, input_signature=[tf.TensorSpec(shape, tf.float32, name="input")])
    return module


def _name_scopes(graph: Graph) -> list[str]:
    """A scope per op: the layer's name in the characters that TensorFlow allows."""
    return [re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", re.sub(r"^[^A-Za-z0-9.]", "L", op.name)) or "layer" for op in graph.ops]


# -- one builder per op kind: (layer, operands...) -> TensorFlow tensor, without the fused activation


class _Layer:
    """An op with what its builder needs."""

    def __init__(self, tf: Any, op: Op, graph: Graph, lowest: Mapping[str, float]) -> None:
        self.tf = tf
        self.attrs = op.attrs
        self.name = op.name
        self.output = op.outputs[0]
        self.shapes = [graph.tensors[name].shape for name in op.inputs]
        self.output_shape = graph.tensors[self.output].shape
        self.lowest = lowest

    @property
    def padding(self) -> str:
        """TensorFlow's word for the padding."""
        return str(self.attrs["padding"]).upper()

    @property
    def dilations(self) -> list[int]:
        """Per axis of NHWC."""
        return [1, *self.attrs["dilation"], 1]


def _build_conv(layer: _Layer, source: Any, weight_ohwi: np.ndarray, bias: np.ndarray) -> Any:
    weight_hwio = weight_ohwi.transpose(1, 2, 3, 0)
    strides = [1, *layer.attrs["stride"], 1]
    value = layer.tf.nn.conv2d(source, weight_hwio, strides, layer.padding, dilations=layer.dilations)
    return layer.tf.nn.bias_add(value, bias)


def _build_depthwise(layer: _Layer, source: Any, weight_1hwo: np.ndarray, bias: np.ndarray) -> Any:
    _, height, width, filters = weight_1hwo.shape
    multiplier = layer.attrs["depth_multiplier"]
    weight = weight_1hwo.reshape(height, width, filters // multiplier, multiplier)
    # The raw op keeps the dilation as an attribute; tf.nn.depthwise_conv2d would surround it with SPACE_TO_BATCH_ND.
    value = layer.tf.raw_ops.DepthwiseConv2dNative(
        input=source,
        filter=layer.tf.constant(weight),
        strides=[1, *_find_square_stride(layer), 1],
        padding=layer.padding,
        dilations=layer.dilations,
    )
    return layer.tf.nn.bias_add(value, bias)


def _find_square_stride(layer: _Layer) -> tuple[int, int]:
    """TensorFlow's depthwise op wants equal strides; along an axis with one output position any stride will do."""
    height, width = layer.attrs["stride"]
    if height == width:
        return height, width
    for axis, stride in ((1, width), (2, height)):
        if layer.output_shape[axis] == 1 and (layer.attrs["padding"] == "valid" or layer.shapes[0][axis] == 1):
            return stride, stride
    raise UnsupportedModelError(
        f"{layer.name} (depthwise_conv_2d): its stride is {height}x{width}; TensorFlow takes equal strides only; "
        "use --converter edgeprune"
    )


def _build_fully_connected(layer: _Layer, source: Any, weight_oi: np.ndarray, bias: np.ndarray) -> Any:
    if len(layer.shapes[0]) != 2:
        source = layer.tf.reshape(source, (1, weight_oi.shape[1]))
    return layer.tf.nn.bias_add(layer.tf.matmul(source, weight_oi, transpose_b=True), bias)


def _build_max_pool(layer: _Layer, source: Any) -> Any:
    return layer.tf.nn.max_pool2d(source, layer.attrs["kernel_size"], layer.attrs["stride"], layer.padding)


def _build_average_pool(layer: _Layer, source: Any) -> Any:
    return layer.tf.nn.avg_pool2d(source, layer.attrs["kernel_size"], layer.attrs["stride"], layer.padding)


def _build_pad(layer: _Layer, source: Any) -> Any:
    value = layer.lowest.get(layer.output, 0.0)
    return layer.tf.pad(source, layer.attrs["paddings"], constant_values=value)


def _build_prelu(layer: _Layer, source: Any, alpha: np.ndarray) -> Any:
    # the form in which the converter recognises PRELU
    tf = layer.tf
    return tf.nn.relu(source) + tf.nn.relu(-source) * tf.constant(-alpha)


def _build_hard_swish(layer: _Layer, source: Any) -> Any:
    # the form in which the converter recognises HARD_SWISH
    return source * layer.tf.nn.relu6(source + 3.0) * (1.0 / 6.0)


def _build_softmax(layer: _Layer, source: Any) -> Any:
    beta = layer.attrs["beta"]
    return layer.tf.nn.softmax(source if beta == 1.0 else source * beta)


def _build_strided_slice(layer: _Layer, source: Any) -> Any:
    return layer.tf.strided_slice(source, layer.attrs["begin"], layer.attrs["end"], layer.attrs["stride"])


_ACTIVATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "relu": lambda tf, value: tf.nn.relu(value),
    "relu6": lambda tf, value: tf.nn.relu6(value),
    "relu_n1_to_1": lambda tf, value: tf.minimum(tf.maximum(value, -1.0), 1.0),
}

_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "conv_2d": _build_conv,
    "depthwise_conv_2d": _build_depthwise,
    "fully_connected": _build_fully_connected,
    "add": lambda layer, first, second: layer.tf.add(first, second),
    "sub": lambda layer, first, second: layer.tf.subtract(first, second),
    "mul": lambda layer, first, second: layer.tf.multiply(first, second),
    "max_pool_2d": _build_max_pool,
    "average_pool_2d": _build_average_pool,
    "mean": lambda layer, value: layer.tf.reduce_mean(value, layer.attrs["axes"], keepdims=layer.attrs["keep_dims"]),
    "concat": lambda layer, *values: layer.tf.concat(values, layer.attrs["axis"]),
    "pad": _build_pad,
    "relu": lambda layer, value: layer.tf.nn.relu(value),
    "relu6": lambda layer, value: layer.tf.nn.relu6(value),
    "relu_n1_to_1": lambda layer, value: _ACTIVATIONS["relu_n1_to_1"](layer.tf, value),
    "leaky_relu": lambda layer, value: layer.tf.nn.leaky_relu(value, layer.attrs["alpha"]),
    "prelu": _build_prelu,
    "logistic": lambda layer, value: layer.tf.sigmoid(value),
    "tanh": lambda layer, value: layer.tf.tanh(value),
    "elu": lambda layer, value: layer.tf.nn.elu(value),
    "hard_swish": _build_hard_swish,
    "softmax": _build_softmax,
    "reshape": lambda layer, value: layer.tf.reshape(value, layer.attrs["shape"]),
    "transpose": lambda layer, value: layer.tf.transpose(value, layer.attrs["perm"]),
    "strided_slice": _build_strided_slice,
}
