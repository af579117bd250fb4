"""What the lowerings of the portable C99 kernels share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeprune.codegen.kernel import Area, Call, find_area
from edgeprune.fixedpoint import quantize_multiplier
from edgeprune.graph import Quant, Tensor
from edgeprune.ops import same_padding

# Modelled Cortex-M4 cycles that all kernels have, fitted to the emulator: to enter and set up; to finish an output.
SETUP_CYCLES = 60
REQUANTIZE_CYCLES = 16


def fit_int16(fields: Mapping[str, int | str], except_for: Sequence[str] = ()) -> bool:
    """Whether all numbers but the named ones fit the int16_t fields of the C structures."""
    return all(
        -(2**15) <= value < 2**15 for name, value in fields.items() if isinstance(value, int) and name not in except_for
    )


def slide_fields(call: Call, kernel_size: tuple[int, int]) -> dict[str, int]:
    """The fields of all sliding windows: sizes, strides and paddings of C's ep_conv_2d_op and its kin."""
    dilation = call.op.attrs.get("dilation", (1, 1))
    stride = call.op.attrs["stride"]
    sizes = (call.x.rows, call.x.columns)
    pads = (
        [same_padding(sizes[axis], kernel_size[axis], stride[axis], dilation[axis])[0] for axis in (0, 1)]
        if call.op.attrs["padding"] == "same"
        else [0, 0]
    )
    return {
        "x_rows": call.x.rows,
        "x_columns": call.x.columns,
        "y_columns": call.y.columns,
        "x_stride": call.x_strides[0],
        "y_stride": call.y_stride,
        "kernel_rows": kernel_size[0],
        "kernel_columns": kernel_size[1],
        "stride_rows": stride[0],
        "stride_columns": stride[1],
        "pad_rows": pads[0],
        "pad_columns": pads[1],
    }


def is_padded(call: Call, kernel_size: tuple[int, int]) -> bool:
    """Whether any window reaches into the padding."""
    if call.op.attrs["padding"] == "valid":
        return False
    dilation = call.op.attrs.get("dilation", (1, 1))
    return any(
        sum(same_padding(size, kernel_size[axis], call.op.attrs["stride"][axis], dilation[axis]))
        for axis, size in enumerate((call.x.rows, call.x.columns))
    )


def split_pixels(tensor: Tensor) -> Area:
    """The tensor's area with its last axis as the channels, whatever its rank."""
    if len(tensor.shape) in (3, 4):
        return find_area(tensor.shape)
    channels = tensor.shape[-1] if tensor.shape else 1
    return Area(1, tensor.element_count // channels, channels)


def get_quant(tensor: Tensor) -> Quant:
    """The quantization of an int8 tensor."""
    assert tensor.quant is not None  # int8 programs are verified before they get here
    return tensor.quant


def is_same_quant(first: Tensor, second: Tensor) -> bool:
    """Whether two activations store the same real number as the same value."""
    a, b = get_quant(first), get_quant(second)
    return bool(a.scale[0] == b.scale[0] and a.zero_point[0] == b.zero_point[0])


def quantize_ratio(ratio: float) -> tuple[int, int]:
    """quantize_multiplier, with a factor of 0 as one that the portable form can do: 0 times whatever is 0.

    >>> quantize_ratio(1e-12)
    (0, -1)
    """
    multiplier, shift = quantize_multiplier(ratio)
    return (multiplier, shift) if multiplier else (0, -1)
