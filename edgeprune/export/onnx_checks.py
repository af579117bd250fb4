"""Before an ONNX model is read: refuse what is malformed or foreign, fix the batch to 1, fold constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.inliner
import onnxsim
from onnx import TensorProto, numpy_helper

from edgeprune.errors import InputError, UnsupportedModelError

MIN_OPSET, MAX_OPSET = 9, 22


def check_onnx(model: onnx.ModelProto) -> None:
    """Refuse a model that can't be read at all.

    Raises InputError for a malformed file, weights outside the file or weights that are not finite, and
    UnsupportedModelError for operators outside the ONNX standard, opsets we don't know and models already quantized.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise InputError(
                f"the ONNX model keeps its weights outside the file (external data, {tensor.name}). "
                "Save it as one file: onnx.save(model, path, save_as_external_data=False)"
            )
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not MIN_OPSET <= opset.version <= MAX_OPSET:
            raise UnsupportedModelError(
                f"the ONNX model has opset {opset.version}; supported are {MIN_OPSET} to {MAX_OPSET}. "
                "Export it again with opset_version=18"
            )
    own = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") and (node.domain, node.op_type) not in own:
            raise UnsupportedModelError(
                f"{node.name or node.op_type} ({node.domain}.{node.op_type}): the operator is not of the ONNX "
                "standard. Export the model without custom operators"
            )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul"):
            raise UnsupportedModelError(
                f"{node.name or node.op_type} ({node.op_type}): the model is quantized already. "
                "Give the float32 model; edgeprune quantizes it"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker raises its own error, protobuf's, RuntimeError
        raise InputError(f"the ONNX model is malformed: {_first_line(error)}. Export it again") from error
    _check_weights(model)


def find_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The model's one input. Raises UnsupportedModelError for none, several, or one that is not float32."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UnsupportedModelError(f"the ONNX model has {len(inputs)} inputs ({names}); exactly one is supported")
    element = inputs[0].type.tensor_type.elem_type
    if element != TensorProto.FLOAT:
        raise UnsupportedModelError(
            f"the ONNX model's input {inputs[0].name} is {TensorProto.DataType.Name(element)}; only FLOAT (float32) is "
            "supported. Export the model in float32"
        )
    return inputs[0]


def find_sample_shape(model: onnx.ModelProto, input_shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """The shape of one sample, (C, T) or (C, H, W): from the model, free axes from `input_shape`.

    Raises InputError where an axis is free and not given, or both disagree; UnsupportedModelError for another rank.
    """
    value = find_input(model)
    dims = value.type.tensor_type.shape.dim
    if len(dims) not in (2, 3, 4):
        raise UnsupportedModelError(
            f"the ONNX model's input {value.name} has {len(dims)} axes; supported are (N, C), (N, C, T), (N, C, H, W)"
        )
    shape = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims[1:]]
    if input_shape is not None:
        given = [int(size) for size in input_shape]
        if len(given) != len(shape) or any(size not in (0, wanted) for size, wanted in zip(shape, given, strict=True)):
            raise InputError(
                f"the ONNX model takes samples of {_describe_shape(shape)}, the data has {_describe_shape(given)}"
            )
        shape = given
    if 0 in shape:
        raise InputError(
            f"the ONNX model's input {value.name} leaves axes free: {_describe_shape(shape)} per sample. "
            "Give the data, or export it with a fixed length; only the batch may be free"
        )
    return tuple(shape)


def fix_batch(model: onnx.ModelProto, sample_shape: Sequence[int]) -> onnx.ModelProto:
    """The same program for a batch of 1, with everything that doesn't depend on the input folded into constants."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    if fixed.functions:
        fixed = onnx.inliner.inline_local_functions(fixed)
    value = find_input(fixed)
    dims = value.type.tensor_type.shape.dim
    batch = dims[0].dim_value if dims[0].HasField("dim_value") else 0
    for dim, size in zip(dims, (1, *sample_shape), strict=True):
        dim.Clear()
        dim.dim_value = size
    if batch > 1:
        _free_baked_batch(fixed, batch)
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()
    try:
        folded, _ = onnxsim.simplify(fixed, perform_optimization=False)
    except Exception as error:  # native code raises RuntimeError, ValueError and its own
        raise InputError(
            f"the ONNX model can't be evaluated for one sample of {_describe_shape(sample_shape)}: "
            f"{_first_line(error)}. Export it with a free batch axis"
        ) from error
    return folded


def _free_baked_batch(model: onnx.ModelProto, batch: int) -> None:
    """Reshape targets that begin with a fixed batch get 1 instead."""
    targets = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in _find_stored(model):
        if tensor.name in targets:
            shape = numpy_helper.to_array(tensor).copy()
            if shape.ndim == 1 and len(shape) and shape[0] == batch:
                shape[0] = 1
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _find_stored(model: onnx.ModelProto) -> list[TensorProto]:
    stored = list(model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            node.attribute[0].t.name = node.output[0]
            stored.append(node.attribute[0].t)
    return stored


def _check_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
            raise UnsupportedModelError(
                f"{tensor.name} is {TensorProto.DataType.Name(tensor.data_type)}; only float32 models are supported. "
                "Export the model in float32"
            )
        if tensor.data_type == TensorProto.FLOAT and tensor.dims:
            values = numpy_helper.to_array(tensor)
            if not np.isfinite(values).all():
                count = int((~np.isfinite(values)).sum())
                raise InputError(
                    f"the weights {tensor.name} hold {count} values that are NaN or infinite. Train the model again"
                )


def _describe_shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(str(size) if size else "free" for size in shape) + ")"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
