"""From accumulator to stored int8: multiplier, shift, zero points and bias folded into the constants of kernels.

What TFLite Micro computes for an accumulator `a` = bias + sum w * (x - zero point of x), per output channel:

    v = SaturatingRoundingDoublingHighMul(a << left, m)          = (a * m + 2**30) >> 31, ties upwards
    q = RoundingDivideByPOT(v, e)                                ties away from zero
    y = clamp(q + zero point of y, act_min, act_max)

with m, shift = quantize_multiplier(s_x * s_w / s_y), left = max(shift, 0), e = max(-shift, 0). Three exact foldings:

1. The zero point of x goes into the bias: a = (bias - z_x * sum w) + sum w * x. Taps in the padding count as x = z_x.

2. The short form, for e >= 1. With (v < 0) as 0 or 1, RoundingDivideByPOT(v, e) = (v + 2**(e - 1) - (v < 0)) >> e. The
   test may look at `a` instead of v: they differ in sign only where v = 0 and a < 0, and (2**(e - 1) - 1) >> e = 0 too.
   On cores with the DSP extension, SMMLAR(p, m, C) = C + ((p * m + 2**31) >> 32), so with p = 2 * a it gives v + C, and

       t = SMMLAR(2 * a, m, C)      C = 2**(e - 1) + (z_y << e)
       t = t + (2 * a >> 31)        the negative ties
       t = t >> e
       y = clamp(t)                 SSAT where the range is -128..127

   `fold_smmlar` gives 2 * bias, m, C, e where this is exact: e >= 1, |a| < 2**30 (so that 2 * a fits), and |v| + |C| <
   2**31, |v| <= |a|. Where z_y = act_min the second line can go: a negative y is clamped anyway (`clamps_negatives`).

3. The portable form, in C, without C per channel: t = v - (v < 0); y = ((t >> (e - 1)) + 2 * z_y + 1) >> 1. It cannot
   overflow, and needs e >= 1 and |a| < 2**30 (v is the upper word of 2 * a * m, rounded). `encode_shift` marks what
   needs the general route instead (left shifts, e = 0, huge accumulators).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call
from edgeprune.fixedpoint import quantize_multiplier, wrap_int32
from edgeprune.graph import Tensor
from edgeprune.reference.call import Call as ReferenceCall

# The axis of output channels in the weights of each kind of layer.
WEIGHT_AXES = {"conv_2d": 0, "depthwise_conv_2d": 3, "fully_connected": 0}

# ep_fixed_point.h (EP_GENERAL): an encoded shift of -64 - s stands for TFLite's shift s by the general route.
GENERAL_ROUTE = -64
LARGEST_LEFT_SHIFT = 30


def describe_operands(call: Call) -> ReferenceCall:
    """The op as the reference sees it, for scales, zero points and activation ranges; without values."""
    return ReferenceCall(call.op, call.inputs, call.output, ())


def get_scale(tensor: Tensor) -> float:
    """The per-tensor scale of an int8 activation."""
    assert tensor.quant is not None  # int8 programs are verified before they get here
    return float(tensor.quant.scale[0])


def get_zero_point(tensor: Tensor) -> int:
    """The per-tensor zero point of an int8 activation."""
    assert tensor.quant is not None
    return int(tensor.quant.zero_point[0])


def find_output_range(call: Call) -> tuple[int, int]:
    """Stored act_min and act_max of the fused activation, as TFLite computes them."""
    reference = describe_operands(call)
    return reference.stored_range(reference.activation())


@dataclass(frozen=True, eq=False)
class LayerScales:
    """How a layer with weights gets from sums of w * x to stored outputs; arrays: int64, one value per output channel.

    bias: int32 bias - zero point of x * sum of weights, wrapped to int32: where sums start.
    multiplier, shift: of quantize_multiplier; positive shifts go left.
    lowest, highest: the least and the greatest accumulator that any input can give.
    zero_point, act_min, act_max: of the output.
    """

    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    zero_point: int
    act_min: int
    act_max: int

    @property
    def is_uniform(self) -> bool:
        """Whether all channels share multiplier and shift."""
        return bool((self.multiplier == self.multiplier[0]).all() and (self.shift == self.shift[0]).all())

    @property
    def clamps_negatives(self) -> bool:
        """Whether whatever lies below the zero point is clamped to it, so that negative ties don't matter."""
        return self.act_min >= self.zero_point

    @property
    def largest(self) -> np.ndarray:
        """The greatest magnitude of an accumulator."""
        return np.maximum(-self.lowest, self.highest)


def scale_layer(call: Call) -> LayerScales:
    """Fold the quantization of a conv_2d, depthwise_conv_2d or fully_connected."""
    x, weight_tensor, bias_tensor = call.inputs
    assert weight_tensor.data is not None
    assert bias_tensor.data is not None
    assert weight_tensor.quant is not None
    axis = WEIGHT_AXES[call.op.kind]
    weight = np.moveaxis(weight_tensor.data.astype(np.int64), axis, 0)
    weight = weight.reshape(len(weight), -1)  # (output channels, weights of each)
    zero_point = get_zero_point(x)
    at_lowest, at_highest = weight * (-128 - zero_point), weight * (127 - zero_point)
    bias = bias_tensor.data.astype(np.int64)
    ratios = [get_scale(x) * float(scale) / get_scale(call.output) for scale in weight_tensor.quant.scale]
    multiplier, shift = np.array([quantize_multiplier(ratio) for ratio in ratios], np.int64).T
    act_min, act_max = find_output_range(call)
    return LayerScales(
        bias=wrap_int32(bias - zero_point * weight.sum(axis=1)),
        multiplier=np.broadcast_to(multiplier, bias.shape),
        shift=np.broadcast_to(shift, bias.shape),
        lowest=bias + np.minimum(at_lowest, at_highest).sum(axis=1),
        highest=bias + np.maximum(at_lowest, at_highest).sum(axis=1),
        zero_point=get_zero_point(call.output),
        act_min=act_min,
        act_max=act_max,
    )


@dataclass(frozen=True, eq=False)
class SmmlarConstants:
    """Constants of the short form 2 (see the head), one of each per output channel, int64 within int32.

    twice_bias: to be added to twice the sum of w * x.  offset: C.  shift: e, 1 to 31.
    """

    twice_bias: np.ndarray
    multiplier: np.ndarray
    offset: np.ndarray
    shift: np.ndarray


def fold_smmlar(scales: LayerScales) -> SmmlarConstants | None:
    """The constants of the short form; None where it would not be exact for every channel and input."""
    shift = -scales.shift
    if (shift < 1).any() or (shift > 31).any():
        return None
    offset = (np.int64(1) << (shift - 1)) + (np.int64(scales.zero_point) << shift)
    # twice the folded bias must fit as well, and so must twice every sum on the way: the core's additions wrap
    fits = (scales.largest < 2**30) & (np.abs(scales.bias) < 2**30) & (scales.largest + np.abs(offset) + 1 < 2**31)
    if not fits.all():
        return None
    return SmmlarConstants(2 * scales.bias, scales.multiplier, offset, shift)


def encode_shift(shift: int, largest: int) -> int:
    """TFLite's shift as ep_fixed_point.h wants it: e - 1 for the portable form 3, else GENERAL_ROUTE - shift.

    largest: the greatest magnitude of what is rescaled.

    >>> encode_shift(-7, 1000), encode_shift(-7, 2**30), encode_shift(0, 1000)
    (6, -57, -64)
    """
    if shift < 0 and largest < 2**30:
        return -shift - 1
    return GENERAL_ROUTE - shift


def encode_scales(scales: LayerScales) -> np.ndarray | None:
    """Pairs (multiplier, encoded shift) per output channel, one pair where they are all equal; int32, flat.

    None where a left shift is beyond what C can do.
    """
    if (scales.shift > LARGEST_LEFT_SHIFT).any():
        return None
    pairs = [
        (int(multiplier), encode_shift(int(shift), int(largest)))
        for multiplier, shift, largest in zip(scales.multiplier, scales.shift, scales.largest, strict=True)
    ]
    if len(set(pairs)) == 1:
        pairs = pairs[:1]
    return np.array(pairs, np.int32).reshape(-1)
