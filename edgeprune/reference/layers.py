"""Layers with weights: conv_2d, depthwise_conv_2d, fully_connected.

Convolution is a matrix product over patches (im2col by a strided view). In int8 the integers are held in floats and
multiplied by BLAS, and the result is exact all the same: each partial sum is an integer of magnitude at most
sum|weight| * max|x - zero_point|, and float32 holds every integer up to 2**24 exactly, float64 up to 2**53; the bound
of each layer picks the type. In whatever order, fused or not, no rounding ever happens.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeprune.fixedpoint import multiply_by_quantized_multiplier, quantize_multiplier, wrap_int32
from edgeprune.graph import Tensor
from edgeprune.ops import same_padding
from edgeprune.reference.call import Call

_PATCH_BYTES = 16 * 2**20  # patches are made for as many samples at a time as fit in this: stays near the caches
_BLOCK_VALUES = 2**14  # int64 values that are rescaled at a time


def pad_window(call: Call, x: np.ndarray, kernel_size: tuple[int, int], fill: float) -> np.ndarray:
    """Pad height and width of NHWC values for a sliding window, by TFLite's 'same' or 'valid'."""
    if call["padding"] == "valid":
        return x
    stride, dilation = call["stride"], call.op.attrs.get("dilation", (1, 1))
    pads = [same_padding(x.shape[1 + axis], kernel_size[axis], stride[axis], dilation[axis]) for axis in (0, 1)]
    if not any(map(sum, pads)):
        return x
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)


def window_view(
    x: np.ndarray, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> np.ndarray:
    """A read-only view (N, H_out, W_out, C, kernel_h, kernel_w) of padded NHWC values."""
    extent = ((kernel_size[0] - 1) * dilation[0] + 1, (kernel_size[1] - 1) * dilation[1] + 1)
    windows = sliding_window_view(x, extent, axis=(1, 2))  # type: ignore[call-overload]  # the stub forgets tuples
    return windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]


# --- conv_2d ---


def conv_2d_float(call: Call) -> np.ndarray:
    """float32 convolution, weights OHWI."""
    x, weight, bias = call.values
    return call.clamp_float(_convolve(call, x, weight) + bias)


def conv_2d_int8(call: Call) -> np.ndarray:
    """ConvPerChannel: int32 accumulators, one multiplier per output channel, two roundings."""
    x, weight = _exact_operands(call, weights_per_output_axis=0)
    return _finish_int8(call, _convolve(call, x, weight), channel_axis=0)


def _convolve(call: Call, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Convolution sums without bias, NHWC, in the operands' type."""
    channels_out, kernel_h, kernel_w, group_in = weight.shape
    groups = x.shape[3] // group_in
    padded = pad_window(call, x, (kernel_h, kernel_w), 0)
    windows = window_view(padded, (kernel_h, kernel_w), call["stride"], call["dilation"])
    result = np.empty((*windows.shape[:3], channels_out), x.dtype)
    group_out = channels_out // groups
    for group in range(groups):
        inputs = slice(group * group_in, (group + 1) * group_in)
        outputs = slice(group * group_out, (group + 1) * group_out)
        matrix = weight[outputs].transpose(1, 2, 3, 0).reshape(-1, group_out)  # (kernel_h * kernel_w * in, out)
        for samples in _split_batch(windows, group_in):
            patches = windows[samples, :, :, inputs].transpose(0, 1, 2, 4, 5, 3)  # innermost axis: channels, as stored
            product = patches.reshape(-1, matrix.shape[0]) @ matrix
            result[samples, :, :, outputs] = product.reshape(*patches.shape[:3], group_out)
    return result


def _split_batch(windows: np.ndarray, channels: int) -> Iterator[slice]:
    """Slices of the batch whose patches need at most _PATCH_BYTES."""
    patch_bytes = int(np.prod(windows.shape[1:3])) * channels * int(np.prod(windows.shape[4:])) * windows.itemsize
    step = max(1, _PATCH_BYTES // max(1, patch_bytes))
    for start in range(0, windows.shape[0], step):
        yield slice(start, start + step)


# --- depthwise_conv_2d ---


def depthwise_conv_2d_float(call: Call) -> np.ndarray:
    """float32 depthwise convolution, weights 1HWO; output channel = input channel * depth_multiplier + m."""
    x, weight, bias = call.values
    return call.clamp_float(_convolve_depthwise(call, x, weight) + bias)


def depthwise_conv_2d_int8(call: Call) -> np.ndarray:
    """DepthwiseConvPerChannel."""
    x, weight = _exact_operands(call, weights_per_output_axis=3)
    return _finish_int8(call, _convolve_depthwise(call, x, weight), channel_axis=3)


def _convolve_depthwise(call: Call, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Depthwise sums without bias: one multiply-add of the whole map per kernel tap."""
    _, kernel_h, kernel_w, channels_out = weight.shape
    multiplier = call["depth_multiplier"]
    padded = pad_window(call, x, (kernel_h, kernel_w), 0)
    windows = window_view(padded, (kernel_h, kernel_w), call["stride"], call["dilation"])
    taps = weight.reshape(kernel_h, kernel_w, x.shape[3], multiplier)
    result = np.zeros((*windows.shape[:4], multiplier), x.dtype)
    for row in range(kernel_h):
        for column in range(kernel_w):
            result += windows[..., row, column, None] * taps[row, column]
    return result.reshape(*windows.shape[:3], channels_out)


# --- fully_connected ---


def fully_connected_float(call: Call) -> np.ndarray:
    """float32 product with weights OI over the flattened input."""
    x, weight, bias = call.values
    return call.clamp_float(x.reshape(len(x), -1) @ weight.T + bias)


def fully_connected_int8(call: Call) -> np.ndarray:
    """FullyConnected and FullyConnectedPerChannel, two roundings (LiteRT's reference kernel rounds once here).

    Weights per output channel have a meaning here, but older TFLite Micro reads them as per tensor, without a word:
    what is lowered has one scale.
    """
    x, weight = _exact_operands(call, weights_per_output_axis=0)
    return _finish_int8(call, x.reshape(len(x), -1) @ weight.T, channel_axis=0)


# --- what the int8 layers share ---


def _exact_operands(call: Call, weights_per_output_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """x - zero_point and the weights as floats of a type in which all their sums are exact (see the head)."""
    x, weight = call.values[:2]
    weight_tensor = call.inputs[1]
    if call.quant(weight_tensor).zero_point.any():
        raise call.fault(f"the weights {weight_tensor.name} must be quantized symmetrically (zero point 0)")
    magnitude = np.abs(weight.astype(np.int64))
    other_axes = tuple(axis for axis in range(weight.ndim) if axis != weights_per_output_axis)
    zero_point = call.zero_point(call.inputs[0])
    largest_sum = int(magnitude.sum(axis=other_axes).max(initial=0)) * max(127 - zero_point, 128 + zero_point)
    dtype = np.dtype(np.float32 if largest_sum < 2**24 else np.float64)
    centred = x.astype(dtype)
    centred -= zero_point
    return centred, weight.astype(dtype)


def _finish_int8(call: Call, sums: np.ndarray, channel_axis: int) -> np.ndarray:
    """Add the bias, rescale per output channel, clamp; blocks of rows, whose int64 temporaries stay in the cache."""
    multipliers, shifts = _channel_multipliers(call, call.inputs[1], channel_axis, sums.shape[-1])
    bias, zero_point = call.values[2].astype(np.int64), call.zero_point(call.output)
    rows = sums.reshape(-1, sums.shape[-1])
    result = np.empty(rows.shape, np.int8)
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        accumulators = wrap_int32(rows[block].astype(np.int64) + bias)
        scaled = multiply_by_quantized_multiplier(accumulators, multipliers, shifts)
        result[block] = call.clamp_int8(wrap_int32(scaled + zero_point))
    return result.reshape(sums.shape)


def _channel_multipliers(call: Call, weight: Tensor, axis: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Multiplier and shift of each output channel; a per-tensor weight scale counts for all of them."""
    quant = call.quant(weight)
    if quant.axis not in (None, axis):
        raise call.unsupported(f"the weights are quantized along axis {quant.axis}; the kernel needs {axis}")
    if quant.axis == axis and len(quant.scale) != channels:
        raise call.fault(f"{len(quant.scale)} weight scales for {channels} output channels")
    scale_in, scale_out = float(call.scale(call.inputs[0])), float(call.scale(call.output))
    pairs = [quantize_multiplier(scale_in * float(scale) / scale_out) for scale in quant.scale]
    multipliers, shifts = np.array(pairs, np.int64).T
    return np.broadcast_to(multipliers, (channels,)), np.broadcast_to(shifts, (channels,))
