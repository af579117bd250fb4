"""The filters of a depthwise layer of packed pairs: constants, and where their records lie (dsp_depthwise_code.py).

Weights lie in flash as they are (int8), and a call makes records of them in the scratch: of some filters at a time, or
once for all filters of the channels gathered together, where they serve several lines or tiles. Or the records lie in
flash, which costs two to four times the bytes and needs no scratch: where making them would take much of the time (few
rows per call) and the layer is small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeprune.codegen.kernel import Assembly, Call, Constant
from edgeprune.codegen.kernels.dsp_depthwise_layer import Folded, count_planes
from edgeprune.codegen.kernels.dsp_depthwise_record_code import RecordCode, build_record_code, make_records
from edgeprune.codegen.requantize import get_zero_point

# What a KB of scratch or of flash may cost: parts of a layer's cycles.
_SCRATCH_WEIGHT, _FLASH_WEIGHT = 0.03, 0.05
_MOST_BYTES = 8192  # of scratch, or more of flash
_FLASH_CALLS = 3  # an inference of a layer that takes more flash has at least so many
# Modelled cycles: of a call that makes records, of each record and its words; of a call of the lines' code, and of a
# pass through a group's filters.
_MAKING, _RECORD, _START_WORD, _WEIGHT_WORD, _RUN, _PASS = 50, 22, 1.5, 7.5, 90, 35


@dataclass(frozen=True)
class Filters:
    """All filters of a layer and where their records lie. outputs: channels.

    multiplier: filters of a plane. group: of the planes that are gathered together. record_words, weight_words: of a
    filter. passes: how often a call goes through the filters, line by line or tile by tile. chunk: filters computed by
    one call of the lines' code. in_flash: records. keeps: the scratch holds those of a group; else of a chunk.
    """

    outputs: int
    multiplier: int
    group: int
    records: RecordCode
    passes: int
    chunk: int = 0
    in_flash: bool = False
    keeps: bool = False

    @property
    def scratch_bytes(self) -> int:
        return 0 if self.in_flash else 4 * self.records.words * (self.group if self.keeps else self.chunk)

    @property
    def extra_flash_bytes(self) -> int:
        """Beyond int8 weights and 9 bytes of constants."""
        return self.outputs * (4 * self.records.words - 2 * self.records.weight_words - 9) if self.in_flash else 0

    @property
    def cycles(self) -> float:
        """Of making records and calling the lines' code, in one call of the layer."""
        whole_groups, rest = divmod(self.outputs, self.group)
        groups = whole_groups + (rest > 0)
        if self.chunk < self.multiplier:
            chunks = self.outputs // self.multiplier * -(-self.multiplier // self.chunk)
        else:
            chunks = whole_groups * -(-self.group // self.chunk) + -(-rest // self.chunk)
        makings = 0 if self.in_flash else groups if self.keeps else self.passes * chunks
        record = _RECORD + _START_WORD * self.records.start_words + _WEIGHT_WORD * self.records.weight_words
        making = makings * (_MAKING + self.outputs / (groups if self.keeps else chunks) * record)
        return making + self.passes * (_PASS * groups + _RUN * chunks)

    def choose(self, output_cycles: float, *, may_take_flash: bool) -> Filters:
        """The cheapest place for the records. output_cycles: of one call of the layer, without records and calls."""
        planes = self.group // self.multiplier
        chunks = {count * self.multiplier for count in range(1, planes + 1)}
        chunks |= {-(-self.multiplier // parts) for parts in range(2, self.multiplier + 1)}
        forms = [replace(self, chunk=chunk) for chunk in sorted(chunks)]
        forms.append(replace(self, chunk=self.group, keeps=True))
        fitting = [form for form in forms if form.scratch_bytes <= _MOST_BYTES]
        ready = replace(self, chunk=self.group, in_flash=True)
        if may_take_flash and ready.extra_flash_bytes <= _MOST_BYTES:
            fitting.append(ready)

        def weigh(form: Filters) -> float:
            kilobytes = _SCRATCH_WEIGHT * form.scratch_bytes + _FLASH_WEIGHT * form.extra_flash_bytes
            return (output_cycles + form.cycles) * (1 + kilobytes / 1024)

        return min(fitting, key=weigh)


@dataclass(frozen=True, eq=False)
class Channels:
    """C's ep_dsp_channels: fields, constants, code."""

    filters: Filters
    fields: dict[str, int | str]
    constants: tuple[Constant, ...]
    assembly: tuple[Assembly, ...]


def lower_channels(
    call: Call,
    folded: Folded,
    lines: list[np.ndarray],
    *,
    plane_bytes: int,
    start_words: int,
    run: str,
    output_cycles: float,
    passes: int,
) -> Channels:
    """The filters of a layer.

    run: the lines' code. output_cycles, passes: of what makes records once (see Filters).
    """
    pairs = _pair_taps(lines)
    outputs, words, _ = pairs.shape
    multiplier = call.op.attrs["depth_multiplier"]
    records = RecordCode(start_words, words, folded.finish.wide)
    filters = Filters(outputs, multiplier, count_planes(call) * multiplier, records, passes)
    filters = filters.choose(output_cycles, may_take_flash=-(-call.y.rows // call.rows) >= _FLASH_CALLS)
    span = max(multiplier, filters.chunk)
    scale = np.stack([folded.twice_bias, folded.multiplier], axis=1)
    fields: dict[str, int | str] = {
        "run": run,
        "records": records.name,
        "weight": f"{call.name}_weight",
        "scale": f"{call.name}_scale",
        "shift": f"{call.name}_shift",
        "x_channels": call.x.channels,
        "multiplier": multiplier,
        "x_stride": call.x_strides[0],
        "y_stride": call.y_stride,
        "plane_bytes": plane_bytes,
        "record_words": records.words,
        "y_zero_point": get_zero_point(call.output),
        "span": span,
        "span_bytes": span // multiplier * plane_bytes,
        "chunk": filters.chunk,
        "x_zero_point": get_zero_point(call.inputs[0]),
        "keeps_records": int(filters.keeps),
        "remakes_records": int(not filters.keeps and not filters.in_flash),
    }
    constants = [
        Constant(f"{call.name}_weight", "int8_t", pairs.astype(np.int8).reshape(-1)),
        Constant(f"{call.name}_scale", "int32_t", scale.astype(np.int32).reshape(-1)),
        Constant(f"{call.name}_shift", "int8_t", folded.shift.astype(np.int8), alignment=1),
    ]
    if filters.in_flash:
        fields |= dict.fromkeys(("records", "scale", "shift"), 0)
        values = make_records(records, pairs, scale, folded.shift, get_zero_point(call.output))
        constants = [Constant(f"{call.name}_weight", "uint32_t", values.reshape(-1))]
    return Channels(
        filters,
        {f"channels.{name}": value for name, value in fields.items()},
        tuple(constants),
        () if filters.in_flash else (build_record_code(records),),
    )


def _pair_taps(lines: list[np.ndarray]) -> np.ndarray:
    """(channels, words, 2): the odd and the even tap of each word; lines: (channels, taps) each."""
    words = []
    for taps in lines:
        even = np.pad(taps, ((0, 0), (0, taps.shape[1] % 2)))
        words.append(even.reshape(len(taps), -1, 2)[:, :, ::-1])
    return np.concatenate(words, axis=1)
