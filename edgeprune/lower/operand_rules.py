"""Whether an op of a file that others made means anything: its types and the ranges of its attributes.

Together with the shape rules of `ops.py`, which suppose attributes in range, these are all the checks that a foreign
file gets, so that later rooms need none of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgeprune.graph import Op, Tensor

WEIGHTED_KINDS = ("conv_2d", "depthwise_conv_2d", "fully_connected")
WINDOWED_KINDS = ("conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d")
BIAS_DTYPES = {"float32": "float32", "int8": "int32", "int16": "int64"}


def find_type_fault(op: Op, tensors: Mapping[str, Tensor]) -> str | None:
    """Why an op over tensors of these types has no meaning here, as the rest of a sentence; None if it has.

    Either all of an op's tensors are float32, or all are int8 with a scale (biases int32) or int16 (biases int64).
    """
    operands, output = [tensors[name] for name in op.inputs], tensors[op.outputs[0]]
    for tensor in (*operands, output):
        if tensor.dtype in ("int8", "int16") and tensor.quant is None:
            return f"{tensor.name} is {tensor.dtype} without a scale"
    if op.kind == "quantize":
        return None if output.dtype in ("int8", "int16") else f"the output is {output.dtype}"
    if op.kind == "dequantize":
        return None if output.dtype == "float32" else f"the output is {output.dtype}"
    types = {tensor.dtype for tensor in operands[:2]} if op.kind in WEIGHTED_KINDS else {t.dtype for t in operands}
    if op.kind in WEIGHTED_KINDS and operands[0].dtype == "int16" and operands[1].dtype == "int8":
        types = {"int16"}
    if types != {output.dtype} or output.dtype not in BIAS_DTYPES:
        found = ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in (*operands, output))
        return f"its tensors are of different or unknown types ({found})"
    if op.kind in WEIGHTED_KINDS:
        bias = operands[2]
        if bias.dtype != BIAS_DTYPES[output.dtype]:
            return f"the bias is {bias.dtype}, expected {BIAS_DTYPES[output.dtype]}"
        weight = operands[1]
        if weight.quant is not None and weight.quant.zero_point.any():
            return "the weights have a zero point other than 0"
    return None


def find_attribute_fault(op: Op, tensors: Mapping[str, Tensor]) -> str | None:
    """Which attribute of an op is out of range, as the rest of a sentence; None if all are in range."""
    shape = tensors[op.inputs[0]].shape
    if not shape:
        return "its input is a single number without axes"
    if op.kind in WINDOWED_KINDS and len(shape) != 4:
        return f"its input is {shape}, expected 4 axes"
    for name in ("stride", "dilation", "kernel_size", "depth_multiplier"):
        values = op.attrs.get(name, 1)
        if min(values if isinstance(values, tuple) else (values,)) < 1:
            return f"its {name} is {values}, expected at least 1"
    if op.kind == "pad" and any(min(pair) < 0 for pair in op.attrs["paddings"]):
        return f"its paddings are {op.attrs['paddings']}, expected at least 0"
    if op.kind == "mean" and len(set(op.attrs["axes"])) != len(op.attrs["axes"]):
        return f"its axes {op.attrs['axes']} repeat"
    for name in ("alpha", "beta"):
        if not math.isfinite(op.attrs.get(name, 1.0)):
            return f"its {name} is {op.attrs[name]}"
    return None
