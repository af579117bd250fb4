"""Execute a graph, or one op of it, on a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from edgeprune.errors import UnsupportedModelError
from edgeprune.graph import DTYPES, Graph, GraphError, Op, Tensor, infer_output_shape
from edgeprune.ops import OPS
from edgeprune.reference import activations, elementwise, layers, movement, pooling, values
from edgeprune.reference.call import Call

Kernel = Callable[[Call], np.ndarray]

# op kind -> the kernel for each (type of the first operand, type of the output)
KERNELS: Mapping[str, Mapping[tuple[str, str], Kernel]] = {
    kind: {("float32", "float32"): float_kernel, ("int8", "int8"): int8_kernel}
    for kind, float_kernel, int8_kernel in (
        ("conv_2d", layers.conv_2d_float, layers.conv_2d_int8),
        ("depthwise_conv_2d", layers.depthwise_conv_2d_float, layers.depthwise_conv_2d_int8),
        ("fully_connected", layers.fully_connected_float, layers.fully_connected_int8),
        ("add", elementwise.add_float, elementwise.add_int8),
        ("sub", elementwise.sub_float, elementwise.sub_int8),
        ("mul", elementwise.mul_float, elementwise.mul_int8),
        ("max_pool_2d", pooling.max_pool_2d_float, pooling.max_pool_2d_int8),
        ("average_pool_2d", pooling.average_pool_2d_float, pooling.average_pool_2d_int8),
        ("mean", pooling.mean_float, pooling.mean_int8),
        ("concat", movement.concat, movement.concat),
        ("pad", movement.pad, movement.pad),
        ("relu", activations.clamp_float, activations.clamp_int8),
        ("relu6", activations.clamp_float, activations.clamp_int8),
        ("relu_n1_to_1", activations.clamp_float, activations.clamp_int8),
        ("leaky_relu", activations.leaky_relu_float, activations.leaky_relu_int8),
        ("prelu", elementwise.prelu_float, elementwise.prelu_int8),
        ("logistic", activations.logistic_float, activations.logistic_int8),
        ("tanh", activations.tanh_float, activations.tanh_int8),
        ("elu", activations.elu_float, activations.elu_int8),
        ("hard_swish", activations.hard_swish_float, activations.hard_swish_int8),
        ("softmax", activations.softmax_float, activations.softmax_int8),
        ("reshape", movement.reshape, movement.reshape),
        ("transpose", movement.transpose, movement.transpose),
        ("strided_slice", movement.strided_slice, movement.strided_slice),
    )
} | {
    "quantize": {("float32", "int8"): values.quantize_float32, ("int8", "int8"): values.quantize_int8},
    "dequantize": {("int8", "float32"): values.dequantize_int8},
}


def run_graph(
    graph: Graph, inputs: Mapping[str, np.ndarray] | np.ndarray, *, keep: Collection[str] | str | None = None
) -> dict[str, np.ndarray]:
    """Run the program on a batch.

    inputs: values by input name, or the array alone where the graph has one input; (N, *declared shape[1:]) of the
        declared type. int8 inputs are made with `quantize_values`.
    keep: names of tensors to return besides the outputs; "all" for every activation, inputs included.

    Returns values by tensor name, each with N samples along axis 0. Raises GraphError when inputs or graph don't fit
    together, UnsupportedModelError for what this reference doesn't cover (int16, ops that mix samples).
    """
    known = _check_inputs(graph, inputs)
    kept = _names_to_keep(graph, keep)
    last_use = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    for index, op in enumerate(graph.ops):
        operands = [_constant_or(graph.tensors[name], known) for name in op.inputs]
        known[op.outputs[0]] = run_op(op, graph, operands)
        for name in op.inputs:  # frees what no later op reads
            if last_use[name] == index and name not in kept:
                known.pop(name, None)
    return {name: _constant_or(graph.tensors[name], known) for name in kept}


def run_joined(graph: Graph, inputs: Mapping[str, np.ndarray] | np.ndarray) -> np.ndarray:
    """The outputs of `run_graph` as the C of a program gives them: side by side, (N, values), each output once."""
    results = run_graph(graph, inputs)
    return np.concatenate(
        [results[name].reshape(len(results[name]), -1) for name in dict.fromkeys(graph.outputs)], axis=1
    )


def run_op(op: Op, graph: Graph, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Run one op of the graph.

    inputs: the values of `op.inputs` in order, constants included; activations with N samples along axis 0.

    Returns the output's values, (N, *declared shape[1:]). Raises as `run_graph`.
    """
    where = f"{op.name} ({op.kind})"
    if len(op.outputs) != 1:
        raise GraphError(f"{where}: it has {len(op.outputs)} outputs; every op has one")
    infer_output_shape(graph, op)  # the kernels rely on operands and attributes that fit together
    if len(inputs) != len(op.inputs):
        raise GraphError(f"{where}: {len(inputs)} operands were given for {len(op.inputs)} inputs")
    tensors = tuple(graph.tensors[name] for name in op.inputs)
    output = graph.tensors[op.outputs[0]]
    for tensor, array in zip(tensors, inputs, strict=True):
        _check_value(where, tensor, array)
    kernel = _find_kernel(where, op, tensors, output)
    result = kernel(Call(op, tensors, output, tuple(inputs)))
    if result.shape[1:] != output.shape[1:] or result.dtype != DTYPES[output.dtype]:
        raise GraphError(
            f"{where}: the result is {result.dtype}{result.shape}, but {output.name} is declared "
            f"{output.dtype}{output.shape} (axis 0 is free)"
        )
    return result


def _find_kernel(where: str, op: Op, tensors: Sequence[Tensor], output: Tensor) -> Kernel:
    types = (tensors[0].dtype, output.dtype)
    if types not in KERNELS[op.kind]:
        allowed = ", ".join(f"{first} -> {second}" for first, second in KERNELS[op.kind])
        raise UnsupportedModelError(f"{where}: types are {types[0]} -> {types[1]}; supported: {allowed}")
    operands = OPS[op.kind].operands
    names = operands * len(tensors) if operands[-1].endswith("*") else operands
    for name, tensor in zip(names, tensors, strict=True):
        wanted = "int32" if name == "bias" and types[0] == "int8" else types[0]
        if tensor.dtype != wanted:
            raise UnsupportedModelError(f"{where}: {tensor.name} is {tensor.dtype}; beside {types[0]} it is {wanted}")
    return KERNELS[op.kind][types]


def _check_inputs(graph: Graph, inputs: Mapping[str, np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
    if isinstance(inputs, np.ndarray):
        if len(graph.inputs) != 1:
            raise GraphError(f"{graph.name} has inputs {', '.join(graph.inputs)}; give a value for each by name")
        inputs = {graph.inputs[0]: inputs}
    if set(inputs) != set(graph.inputs):
        raise GraphError(
            f"{graph.name}: values were given for {', '.join(sorted(inputs)) or 'nothing'}; "
            f"its inputs are {', '.join(graph.inputs)}"
        )
    for name, array in inputs.items():
        _check_value(graph.name, graph.tensors[name], array)
    if len({array.shape[0] for array in inputs.values()}) > 1:
        counts = ", ".join(f"{name}: {array.shape[0]}" for name, array in inputs.items())
        raise GraphError(f"{graph.name}: inputs hold different numbers of samples ({counts})")
    return dict(inputs)


def _check_value(where: str, tensor: Tensor, array: np.ndarray) -> None:
    fits = array.shape == tensor.shape if tensor.is_constant else array.shape[1:] == tensor.shape[1:]
    if not fits or array.ndim != len(tensor.shape) or array.dtype != DTYPES[tensor.dtype]:
        raise GraphError(
            f"{where}: {tensor.name} was given {array.dtype}{array.shape}; "
            f"declared {tensor.dtype}{tensor.shape} (axis 0 of an activation is free)"
        )


def _constant_or(tensor: Tensor, known: Mapping[str, np.ndarray]) -> np.ndarray:
    if tensor.data is not None:
        return tensor.data
    if tensor.name not in known:
        raise GraphError(f"{tensor.name} is read before it is written")
    return known[tensor.name]


def _names_to_keep(graph: Graph, keep: Collection[str] | str | None) -> tuple[str, ...]:
    """Outputs first, then what was asked for."""
    activations_in_order = (*graph.inputs, *(name for op in graph.ops for name in op.outputs))
    if keep == "all":
        asked: tuple[str, ...] = activations_in_order
    else:
        asked = (keep,) if isinstance(keep, str) else tuple(keep or ())
    unknown = [name for name in asked if name not in graph.tensors]
    if unknown:
        raise GraphError(f"{graph.name} has no tensor {unknown[0]} to keep")
    return tuple(dict.fromkeys((*graph.outputs, *asked)))
