"""Random upright layers with weights: sizes around the vector widths, every way of requantizing."""

from __future__ import annotations

import numpy as np

from edgeprune.graph import Graph, Op, Quant, Tensor
from edgeprune.ops import ACTIVATIONS, OPS

CHANNELS = (1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 65, 67)
SERIES_KERNELS = (1, 2, 3, 5, 8, 15, 16, 17, 33, 50, 65)


def draw_layer(kind: str, seed: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """A conv_2d, depthwise_conv_2d or fully_connected and values for it; half of the maps are series of one column."""
    rng = np.random.default_rng(seed)
    channels = int(rng.choice(CHANNELS))
    if kind == "fully_connected":
        return make_layer(rng, kind, (1, 1, channels), (1, 1), int(rng.choice(CHANNELS)))
    groups = int(rng.choice([2, 3])) if kind == "conv_2d" and rng.random() < 0.15 else 1
    if groups > 1:
        channels = groups * int(rng.choice([1, 3, 8, 16]))
    outputs = groups * int(rng.choice(CHANNELS if groups == 1 else (1, 3, 4, 17)))
    if rng.random() < 0.5:
        shape, kernel = (int(rng.integers(1, 60)), 1), (int(rng.choice(SERIES_KERNELS)), 1)
    else:
        shape = (int(rng.integers(1, 13)), int(rng.integers(1, 14)))
        kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    if rng.random() < 0.15:
        kernel = (1, 1)
    stride = (1, 1) if rng.random() < 0.5 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    dilation = (1, 1) if rng.random() < 0.6 else (int(rng.integers(1, 5)), int(rng.integers(1, 4)))
    fits = all((kernel[axis] - 1) * dilation[axis] < shape[axis] for axis in (0, 1))
    padding = "valid" if fits and rng.random() < 0.5 else "same"
    window = {"stride": stride, "dilation": dilation, "padding": padding}
    if kind == "depthwise_conv_2d":
        window["depth_multiplier"] = int(rng.choice([1, 1, 1, 2, 3]))
        outputs = channels * int(window["depth_multiplier"])
    return make_layer(rng, kind, (*shape, channels), kernel, outputs, groups, **window)


def make_layer(
    rng: np.random.Generator,
    kind: str,
    shape: tuple[int, int, int],
    kernel: tuple[int, int],
    outputs: int,
    groups: int = 1,
    **window: object,
) -> tuple[Graph, dict[str, np.ndarray]]:
    """shape: (rows, columns, channels) of the input. window: stride, dilation, padding, depth_multiplier."""
    axis: int | None
    if kind == "conv_2d":
        weight_shape, axis = (outputs, *kernel, shape[2] // groups), 0
    elif kind == "depthwise_conv_2d":
        weight_shape, axis = (1, *kernel, outputs), 3
    else:
        weight_shape, axis = (outputs, int(np.prod(shape))), None
    weights = np.clip(np.round(rng.normal(0, 60, weight_shape)), -127, 127).astype(np.int8)
    if rng.random() < 0.1:
        weights = rng.choice(np.array([-127, 127], np.int8), weight_shape)
    taps = weights.size // outputs
    weight_scales = rng.uniform(0.005, 0.02, 1 if axis is None else outputs).astype(np.float32)
    if rng.random() < 0.2:
        weight_scales = (2.0 ** np.round(np.log2(weight_scales))).astype(np.float32)  # ties
    scale_x, scale_y = 0.05, 0.05 * 0.012 * 75 * float(np.sqrt(taps))
    if rng.random() < 0.2:
        scale_y = 2.0 ** round(np.log2(scale_y))
    if rng.random() < 0.15:
        scale_y /= 10 ** rng.uniform(1, 5)  # factors of 1 and more: shifts to the left
    zero_x, zero_y = (-128, -128) if rng.random() < 0.3 else (int(rng.integers(-128, 128)) for _ in range(2))
    largest = int(3000 * np.sqrt(taps))
    none = np.zeros_like(weight_scales, dtype=np.int32)
    bias = rng.integers(-largest, largest + 1, outputs).astype(np.int32)
    tensors = [
        Tensor("x", (1, *shape), "int8", quant=Quant.per_tensor(scale_x, zero_x)),
        Tensor.constant("w", weights, Quant(weight_scales, none, axis)),
        Tensor.constant("b", bias, Quant(weight_scales * np.float32(scale_x), none, None if axis is None else 0)),
    ]
    attrs = {"activation": str(rng.choice(ACTIVATIONS)), **window}
    result = OPS[kind].infer_shape(attrs, [tensor.shape for tensor in tensors])
    tensors.append(Tensor("y", result, "int8", quant=Quant.per_tensor(scale_y, zero_y)))
    op = Op(kind, "layer", ("x", "w", "b"), ("y",), attrs)
    values = rng.integers(-128, 128, (1, *shape)).astype(np.int8)
    if rng.random() < 0.2:
        values = rng.choice(np.array([-128, 127], np.int8), (1, *shape))
    return Graph("layer", {tensor.name: tensor for tensor in tensors}, (op,), ("x",), ("y",)), {"x": values}
