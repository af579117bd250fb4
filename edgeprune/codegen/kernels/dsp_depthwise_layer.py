"""What the depthwise kernels of packed pairs have in common: constants, records, planes, parts of the cost.

Weights lie in flash as they are (int8) and are packed by each call, or as words ready for use, which costs twice the
bytes: chosen where packing would take a noticeable part of the time (few rows per call) and the layer is small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.codegen.kernel import Call, Constant
from edgeprune.codegen.kernels.dsp_depthwise_code import LARGEST_PLANE_BYTES, Finish
from edgeprune.codegen.kernels.dsp_depthwise_record_code import RecordCode
from edgeprune.codegen.requantize import fold_smmlar, get_zero_point, scale_layer
from edgeprune.ops import same_padding

USUAL_PLANE_BYTES = 504  # four of them are the scratch of most layers
# Ready-made words cost two bytes more than a pair of int8, and save five cycles a call.
_PACKED_GAIN = 0.04  # the part of the time that they must save
_PACKED_BYTES = 4096  # what they may cost
_PACKED_CALLS = 3  # an inference has at least so many


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


def _pair_taps(lines: list[np.ndarray]) -> np.ndarray:
    """(channels, words, 2): the odd and the even tap of each word; lines: (channels, taps) each."""
    words = []
    for taps in lines:
        even = np.pad(taps, ((0, 0), (0, taps.shape[1] % 2)))
        words.append(even.reshape(len(taps), -1, 2)[:, :, ::-1])
    return np.concatenate(words, axis=1)


def lower_channels(
    call: Call,
    folded: Folded,
    lines: list[np.ndarray],
    *,
    plane_bytes: int,
    start_words: int,
    run: str,
    output_cycles: float,
) -> tuple[dict[str, int | str], tuple[Constant, ...], RecordCode, float]:
    """Fields of C's ep_dsp_channels, their constants, the records' code, its cycles in one call."""
    pairs = _pair_taps(lines)
    channels, words, _ = pairs.shape
    packing = channels * 5 * words
    is_packed = (
        -(-call.y.rows // call.rows) >= _PACKED_CALLS
        and 2 * channels * words <= _PACKED_BYTES
        and packing > _PACKED_GAIN * output_cycles
    )
    if is_packed:
        values = (pairs[:, :, 0] + pairs[:, :, 1] * 2**21) << (not folded.finish.wide)
        weight = Constant(f"{call.name}_weight", "uint32_t", (values & 0xFFFFFFFF).astype(np.uint32).reshape(-1))
    else:
        weight = Constant(f"{call.name}_weight", "int8_t", pairs.astype(np.int8).reshape(-1))
    scale = np.stack([folded.twice_bias, folded.multiplier], axis=1).astype(np.int32).reshape(-1)
    records = RecordCode(start_words, words, is_packed, folded.finish.wide)
    fields: dict[str, int | str] = {
        "run": run,
        "records": records.name,
        "weight": weight.name,
        "scale": f"{call.name}_scale",
        "shift": f"{call.name}_shift",
        "x_channels": call.x.channels,
        "multiplier": call.op.attrs["depth_multiplier"],
        "x_stride": call.x_strides[0],
        "y_stride": call.y_stride,
        "plane_bytes": plane_bytes,
        "record_words": records.words,
        "y_zero_point": get_zero_point(call.output),
        "x_zero_point": get_zero_point(call.inputs[0]),
    }
    constants = (
        weight,
        Constant(f"{call.name}_scale", "int32_t", scale),
        Constant(f"{call.name}_shift", "int8_t", folded.shift.astype(np.int8), alignment=1),
    )
    record_cycles = channels * (20 + 1.5 * start_words + (2.4 if is_packed else 7) * words)
    return {f"channels.{name}": value for name, value in fields.items()}, constants, records, record_cycles


def count_records_bytes(call: Call, record_words: int) -> int:
    return 4 * min(4, call.x.channels) * call.op.attrs["depth_multiplier"] * record_words


def count_finish_cycles(finish: Finish) -> float:
    """Modelled cycles from the sums of an output to its byte, extraction included."""
    clamp = 0 if (finish.act_min, finish.act_max) == (-128, 127) else 5
    return 6.5 + 0.5 * finish.wide + finish.ties + clamp


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
