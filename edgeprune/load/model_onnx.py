"""ONNX files: parsed and looked at, not changed; `export.read_onnx` makes the graph of them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgeprune.errors import InputError, UnsupportedModelError

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def read_onnx_file(source: str, data: bytes, input_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Check an ONNX model; returns the shape of one sample, (C, T) or (C, H, W).

    input_shape: of one sample, where the file leaves sizes open.

    Raises InputError for damaged files, weights that are not finite or lie in other files; UnsupportedModelError for
    several inputs.
    """
    model = onnx.load_model_from_string(data)
    _check_weights(source, model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"{source} is not a valid ONNX model: {first_line}; export it again") from error
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UnsupportedModelError(f"{source} has the inputs {names}; a model of one input is needed")
    return _read_input_shape(source, inputs[0], input_shape)


def _check_weights(source: str, model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InputError(
                f"{source} keeps its weights in another file; put all into one file with "
                "onnx.save_model(onnx.load(path), path, save_as_external_data=False)"
            )
        if tensor.data_type not in _FLOATS:
            continue
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise InputError(f"{source} is damaged: the values of {tensor.name} don't have its shape") from error
        if not np.isfinite(values).all():
            raise InputError(f"{source}: {tensor.name} holds NaN or infinite values; train the model again")


def _read_input_shape(source: str, value: onnx.ValueInfoProto, input_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    tensor_type = value.type.tensor_type
    if tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise UnsupportedModelError(f"{source}: the input {value.name} is not float32; export the float model")
    sizes = [dimension.dim_value if dimension.HasField("dim_value") else None for dimension in tensor_type.shape.dim]
    if len(sizes) < 2:
        raise UnsupportedModelError(
            f"{source}: the input {value.name} has {len(sizes)} axes; samples must lie along axis 0"
        )
    sample = sizes[1:]
    if input_shape is not None:
        if len(sample) != len(input_shape) or any(
            size not in (None, 0, given) for size, given in zip(sample, input_shape, strict=True)
        ):
            shown = tuple("?" if size is None else size for size in sample)
            raise InputError(f"{source} takes samples of shape {shown}, the data has {tuple(input_shape)}")
        return tuple(input_shape)
    if not all(sample):
        raise InputError(f"{source}: the input {value.name} leaves its size open; give the data with --data")
    return tuple(size for size in sample if size is not None)
