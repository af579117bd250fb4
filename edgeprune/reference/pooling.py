"""max_pool_2d, average_pool_2d and mean."""

from __future__ import annotations

import numpy as np

from edgeprune.fixedpoint import multiply_by_quantized_multiplier, quantize_multiplier
from edgeprune.reference.call import Call
from edgeprune.reference.layers import pad_window, window_view


def _pool_windows(call: Call, x: np.ndarray, fill: float) -> np.ndarray:
    kernel_size = call["kernel_size"]
    return window_view(pad_window(call, x, kernel_size, fill), kernel_size, call["stride"], (1, 1))


def _max_of_windows(windows: np.ndarray) -> np.ndarray:
    """Maximum over the kernel axes, tap by tap: faster than a reduction over a strided view."""
    result = windows[..., 0, 0].copy()
    for row in range(windows.shape[4]):
        for column in range(windows.shape[5]):
            np.maximum(result, windows[..., row, column], out=result)
    return result


def _sum_of_windows(windows: np.ndarray) -> np.ndarray:
    result = np.zeros(windows.shape[:4], windows.dtype)
    for row in range(windows.shape[4]):
        for column in range(windows.shape[5]):
            result += windows[..., row, column]
    return result


def _count_in_windows(call: Call) -> np.ndarray:
    """How many values of each window lie inside the map, (1, H_out, W_out, 1): padding is left out of the average."""
    inside = np.ones((1, *call.x.shape[1:3], 1), np.int64)
    return _sum_of_windows(_pool_windows(call, inside, 0))


def max_pool_2d_float(call: Call) -> np.ndarray:
    """float32 maximum over each window."""
    return call.clamp_float(_max_of_windows(_pool_windows(call, call.x, -np.inf)))


def max_pool_2d_int8(call: Call) -> np.ndarray:
    """Maximum of stored values."""
    call.require_same_quantization(call.inputs[0])
    return call.clamp_int8(_max_of_windows(_pool_windows(call, call.x, -128)))


def average_pool_2d_float(call: Call) -> np.ndarray:
    """float32 average over the values of each window that lie inside the map."""
    sums = _sum_of_windows(_pool_windows(call, call.x, 0))
    return call.clamp_float(sums / _count_in_windows(call).astype(np.float32))


def average_pool_2d_int8(call: Call) -> np.ndarray:
    """Average of stored values (no zero point taken off), rounded half away from zero."""
    call.require_same_quantization(call.inputs[0])
    sums = _sum_of_windows(_pool_windows(call, call.x.astype(np.int64), 0))
    return call.clamp_int8(_divide_half_away(sums, _count_in_windows(call)))


def _divide_half_away(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    """sums / count rounded half away from zero: C's (|s| + n/2) / n; Python floors, C truncates, hence the sign."""
    return np.sign(sums) * ((np.abs(sums) + count // 2) // count)


def _mean_axes(call: Call) -> tuple[int, ...]:
    axes = tuple(call["axes"])
    if 0 in axes:
        raise call.unsupported("the mean runs over the batch axis; take it over height, width or channels")
    return axes


def mean_float(call: Call) -> np.ndarray:
    """float32 mean over `axes`."""
    return call.x.mean(axis=_mean_axes(call), keepdims=bool(call["keep_dims"]), dtype=np.float32)


def mean_int8(call: Call) -> np.ndarray:
    """QuantizedMeanOrSum: the division by the count is folded into the multiplier, then two roundings."""
    axes = _mean_axes(call)
    count = int(np.prod([call.x.shape[axis] for axis in axes], dtype=np.int64))
    sums = call.x.sum(axis=axes, keepdims=bool(call["keep_dims"]), dtype=np.int64)
    sums -= call.zero_point(call.inputs[0]) * count
    multiplier, shift = quantize_multiplier(float(call.scale(call.inputs[0])) / float(call.scale(call.output)))
    # as many bits of 1 / count as fit: 2**bits <= count < 2**(bits + 1)
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    scaled = multiply_by_quantized_multiplier(sums, (multiplier << bits) // count, shift - bits)
    return np.clip(scaled + call.zero_point(call.output), -128, 127).astype(np.int8)
