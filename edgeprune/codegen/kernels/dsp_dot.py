"""Weights and constants of layers made of dot products, as the assembly of dsp_dot_code.py takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprune.codegen.kernels.dsp_dot_code import Finish
from edgeprune.codegen.requantize import LayerScales
from edgeprune.fixedpoint import multiply_by_quantized_multiplier

_LARGEST_NESTED_SUM = 2**23  # 256 times it must fit an int32


@dataclass(frozen=True, eq=False)
class Rescaling:
    """Per output channel the constants that turn sums of w * x into distances from act_min; int64 arrays.

    twice_bias, multiplier, offset, shift: as requantize.SmmlarConstants, the offset counted from act_min.
    is_fixed: channels whose output is the same for every input; their weights count as 0.
    """

    twice_bias: np.ndarray
    multiplier: np.ndarray
    offset: np.ndarray
    shift: np.ndarray
    is_fixed: np.ndarray
    finish: Finish
    act_min: int
    act_max: int

    @property
    def packed_act_min(self) -> int:
        """act_min in each byte of a word."""
        return (self.act_min & 0xFF) * 0x01010101

    @property
    def packed_excess(self) -> int:
        return (255 - (self.act_max - self.act_min)) * 0x01010101

    def take(self, channels: slice) -> Rescaling:
        """That of some of the channels."""
        arrays = ("twice_bias", "multiplier", "offset", "shift", "is_fixed")
        return replace(self, **{name: getattr(self, name)[channels] for name in arrays})


def fold_rescaling(scales: LayerScales, weight: np.ndarray, *, shared: bool = False) -> Rescaling | None:
    """The constants; None where the short form of requantize.py would not be exact for some channel.

    weight: output channels first. shared: all channels are to have one multiplier, offset and shift; otherwise those
    whose output is always the same get constants of their own (multiplier 0).
    """
    least, most = (
        multiply_by_quantized_multiplier(ends, scales.multiplier, scales.shift) + scales.zero_point
        for ends in (scales.lowest, scales.highest)
    )
    outputs = np.clip([least, most], scales.act_min, scales.act_max)
    # the rescaling is monotonic, unless a left shift wraps around
    is_fixed = (outputs[0] == outputs[1]) & (scales.shift <= 0) & (scales.largest < 2**31) & (not shared)
    shift = np.where(is_fixed, 1, -scales.shift)
    ties = not scales.clamps_negatives
    # without the correction of negative ties a shift of 0 is as good as any other
    if (shift < (1 if ties else 0)).any() or (shift > 31).any():
        return None
    zero = np.where(is_fixed, outputs[0], scales.zero_point) - scales.act_min
    offset = (np.int64(1) << shift >> 1) + (zero << shift)
    largest = np.where(is_fixed, 0, scales.largest)
    bias = np.where(is_fixed, 0, scales.bias)
    if not ((largest < 2**30) & (np.abs(bias) < 2**30) & (largest + np.abs(offset) + 1 < 2**31)).all():
        return None
    multiplier = np.where(is_fixed, 0, scales.multiplier)
    overshoot = (largest >> shift) + 256 + 2
    finish = Finish(
        ties=ties,
        clamped=(scales.act_min, scales.act_max) != (-128, 127),
        wide=bool((overshoot > 2**15 - 1).any()),
        plain=not is_nestable(weight.reshape(len(weight), -1)),
        shared=shared,
    )
    return Rescaling(2 * bias, multiplier, offset, shift, is_fixed, finish, scales.act_min, scales.act_max)


def order_inputs(count: int) -> np.ndarray:
    """(steps, 2): which inputs a step multiplies, as ep_dsp_widen_runs lays them; -1 for none.

    >>> order_inputs(7).tolist()
    [[0, 2], [1, 3], [4, 6], [5, -1]]
    >>> order_inputs(6).tolist()
    [[0, 2], [1, 3], [4, 5]]
    """
    whole, rest = count - count % 4, count % 4
    first = np.arange(0, whole, 4)[:, None, None] + np.array([[0, 2], [1, 3]])
    tails = {0: [], 1: [[0, -1]], 2: [[0, 1]], 3: [[0, 2], [1, -1]]}
    tail = np.array(tails[rest], np.int64).reshape(-1, 2)
    return np.concatenate([first.reshape(-1, 2), np.where(tail < 0, -1, tail + whole)])


def is_nestable(weight: np.ndarray) -> bool:
    """Whether no sum of weights (channels, inputs) times int8 can overflow when nested, nor 256 * a + b an int16."""
    magnitude = np.abs(weight.astype(np.int64))
    return bool((magnitude.sum(axis=1) * 128 < _LARGEST_NESTED_SUM).all() and (magnitude < 128).all())


def pack_quads(weight: np.ndarray, order: np.ndarray, *, plain: bool) -> np.ndarray:
    """Weights (channels, inputs) of whole quads as words, uint32 (quads, steps, 2), a pair of channels a and b in each.

    A half holds 256 * a + b; plain: a in its upper byte, b in the lower. order: (steps, 2), of `order_inputs`.
    """
    padded = np.concatenate([weight.astype(np.int64), np.zeros((len(weight), 1), np.int64)], axis=1)  # input -1
    pairs = padded.reshape(-1, 2, 2, padded.shape[1])  # quad, pair, channel of the pair, input
    lower = pairs[:, :, 1] & 0xFF if plain else pairs[:, :, 1]
    halves = ((256 * pairs[:, :, 0] + lower) & 0xFFFF)[:, :, order]  # quad, pair, step, half
    words = halves[..., 0] | halves[..., 1] << 16
    return words.transpose(0, 2, 1).astype(np.uint32)


def list_quad_channels(channels: int) -> np.ndarray:
    """The channels of each quad, (4 * quads,): the last quad goes back to hold the last four; fewer than four repeat.

    >>> list_quad_channels(6).tolist(), list_quad_channels(2).tolist()
    ([0, 1, 2, 3, 2, 3, 4, 5], [0, 1, 1, 1])
    """
    whole = np.arange(channels - channels % 4)
    if channels % 4 == 0:
        return whole
    return np.concatenate([whole, np.clip(np.arange(4) + max(channels - 4, 0), 0, channels - 1)])


def pack_stream(weight: np.ndarray, rescaling: Rescaling, order: np.ndarray) -> np.ndarray:
    """The stream of one group (ep_dsp_block): weights and constants quad by quad, uint32, flat.

    weight: (channels, inputs). rescaling: of these channels.
    """
    channels = list_quad_channels(len(weight))
    words = pack_quads(np.where(rescaling.is_fixed[:, None], 0, weight)[channels], order, plain=rescaling.finish.plain)
    constants = np.stack([rescaling.twice_bias, rescaling.multiplier, rescaling.offset, rescaling.shift], axis=1)
    constants = (constants[channels] & 0xFFFFFFFF).astype(np.uint32)
    return np.concatenate([words.reshape(len(words), -1), constants.reshape(len(words), -1)], axis=1).reshape(-1)
