"""What the depthwise kernels of packed pairs have in common: folded constants, sizes of planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call
from edgeprune.codegen.kernels.dsp_depthwise_code import LARGEST_PLANE_BYTES, Finish
from edgeprune.codegen.requantize import fold_smmlar, scale_layer
from edgeprune.ops import same_padding

USUAL_PLANE_BYTES = 504  # four of them are the scratch of most layers


@dataclass(frozen=True, eq=False)
class Folded:
    """A layer's constants. taps: (channels, kernel rows, kernel columns)."""

    taps: np.ndarray
    twice_bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    finish: Finish


def fold(call: Call) -> Folded | None:
    """None where packed pairs would not be exact, or the core has no SMLAL of one cycle and no SMMLAR."""
    if not call.target.dsp or call.target.mve:
        return None
    weight = call.inputs[1].data
    assert weight is not None
    scales = scale_layer(call)
    constants = fold_smmlar(scales)
    if constants is None:
        return None
    taps = weight[0].transpose(2, 0, 1).astype(np.int64)
    sums = np.abs(taps).sum(axis=(1, 2))
    if (sums * 128 >= 2**20).any():
        return None
    # twice the bias, less what the field L holds too much, starts in the 22 bits of the field H
    fits = (sums * 256 < 2**20) & (np.abs(constants.twice_bias) + 2**20 + 256 * sums < 2**21)
    finish = Finish(not fits.all(), not scales.clamps_negatives, scales.act_min, scales.act_max)
    return Folded(taps, constants.twice_bias, constants.multiplier, constants.shift, finish)


def count_planes(call: Call) -> int:
    """Input channels that are gathered together."""
    return min(4, call.x.channels)


def round_plane(plane_bytes: int) -> int:
    """Layers share the gathering code of a plane's size: few sizes, but small ones, that of four planes being RAM."""
    if plane_bytes <= 256:
        return -(-plane_bytes // 16) * 16
    return USUAL_PLANE_BYTES if plane_bytes <= USUAL_PLANE_BYTES else max(plane_bytes, LARGEST_PLANE_BYTES)


def count_padding(call: Call, axis: int, kernel: int) -> int:
    """Rows (axis 0) or columns of padding before the map."""
    if call.op.attrs["padding"] == "valid":
        return 0
    size = (call.x.rows, call.x.columns)[axis]
    return same_padding(size, kernel, call.op.attrs["stride"][axis], call.op.attrs["dilation"][axis])[0]
