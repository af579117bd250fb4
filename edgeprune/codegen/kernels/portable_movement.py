"""Portable C for ops that move values: concat, pad, reshape, strided_slice, transpose: one copy over four loops.

Every one of them takes output row r, block by block, from input bytes that lie at fixed distances: rows, and within a
row up to three loops (outer, middle, inner), each with a step in the input and one in the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.codegen.kernel import Area, Call, Kernel, Lowered
from edgeprune.codegen.kernels.portable import SETUP_CYCLES, fit_int16
from edgeprune.codegen.requantize import get_zero_point

_SOURCES = ("ep_copy.c", "ep_bytes.c")


@dataclass(frozen=True)
class _Loop:
    """`count` turns; bytes from one to the next in the input and the output."""

    count: int
    x: int
    y: int


def _copy_fields(
    rows: _Loop, loops: Sequence[_Loop], *, first_row: int = 0, x_offset: int = 0, y_offset: int = 0, x_pitch: int = 0
) -> dict[str, int | str]:
    """The fields of C's ep_copy_op. loops: at most three, outermost first; those of one turn are left out."""
    inner = _merge_loops(loops)
    inner = [_Loop(1, 0, 0)] * (3 - len(inner)) + inner
    fields: dict[str, int | str] = {
        "first_row": first_row,
        "rows": rows.count,
        "x_offset": x_offset,
        "x_pitch": x_pitch,
        "x_row_step": rows.x,
        "y_pitch": rows.y,
        "y_offset": y_offset,
    }
    for name, loop in zip(("outer", "middle", "inner"), inner, strict=True):
        fields |= {name: loop.count, f"x_{name}": loop.x, f"y_{name}": loop.y}
    return fields


def _merge_loops(loops: Sequence[_Loop]) -> list[_Loop]:
    """The same copy with fewer loops: one that goes on where the next one's last turn ends is one with it."""
    merged: list[_Loop] = []
    for loop in loops:
        if loop.count == 1:
            continue
        last = merged[-1] if merged else None
        if last is not None and (last.x, last.y) == (loop.count * loop.x, loop.count * loop.y):
            merged[-1] = _Loop(last.count * loop.count, loop.x, loop.y)
        else:
            merged.append(loop)
    return merged or [_Loop(1, 1, 1)]


def _lower_copy(call: Call, fields: dict[str, int | str], function: str = "ep_copy") -> Lowered:
    bare = {name.removeprefix("copy."): value for name, value in fields.items() if isinstance(value, int)}
    runs = bare["rows"] * bare["outer"] * bare["middle"]
    is_run = bare["x_inner"] == bare["y_inner"] == 1
    per_byte = (2 if call.target.architecture in _UNALIGNED else 6) if is_run else 13
    return Lowered(
        kernel="portable",
        function=function,
        fields=fields,
        cycles=SETUP_CYCLES + round(runs * (25 + bare["inner"] * per_byte)),
        sources=_SOURCES,
    )


_UNALIGNED = ("Armv7-M", "Armv7E-M", "Armv8-M Mainline", "Armv8.1-M Mainline")


class PortableConcat(Kernel):
    """One operand of a concat, copied to its place: call->y is where its first value goes."""

    def lower(self, call: Call) -> Lowered | None:
        part = call.inputs[call.part]
        stride = call.x_strides[0] if len(call.x_strides) == 1 else call.x_strides[call.part]
        x, y = _find_area(part.shape), call.y
        if x is None:
            return None
        rows = _Loop(x.rows, x.columns * stride, y.columns * call.y_stride)
        loops = [_Loop(x.columns, stride, call.y_stride), _Loop(x.channels, 1, 1)]
        return _lower_copy(call, _copy_fields(rows, loops, x_pitch=rows.x))


class PortablePad(Kernel):
    """Rows filled with the zero point, or the least value, and the input's rows copied into them."""

    def lower(self, call: Call) -> Lowered | None:
        paddings = call.op.attrs["paddings"]
        if any(paddings[0]) or _find_area(call.output.shape) is None:
            return None
        rank = len(paddings)
        before_rows = paddings[1][0] if rank >= 3 else 0
        before_columns = paddings[2][0] if rank == 4 else 0
        x, y = call.x, call.y
        rows = _Loop(x.rows, x.columns * call.x_strides[0], y.columns * call.y_stride)
        loops = [_Loop(x.columns, call.x_strides[0], call.y_stride), _Loop(x.channels, 1, 1)]
        offset = before_columns * call.y_stride + paddings[-1][0]
        copy = _copy_fields(rows, loops, first_row=before_rows, y_offset=offset, x_pitch=rows.x)
        fill: dict[str, int | str] = {
            "columns": y.columns,
            "channels": y.channels,
            "y_stride": call.y_stride,
            "fill": get_zero_point(call.output) if call.op.attrs["mode"] == "zero" else -128,
        }
        if not fit_int16(fill):
            return None
        lowered = _lower_copy(call, {f"copy.{name}": value for name, value in copy.items()} | fill, "ep_pad")
        return _add_cycles(lowered, round(y.pixels * (15 + 1.6 * y.channels)))


class PortableReshape(Kernel):
    """A copy, where the planner could not make the output another view of the input's memory."""

    def lower(self, call: Call) -> Lowered | None:
        x, y = call.x, call.y
        x_gaps, y_gaps = call.x_strides[0] != x.channels, call.y_stride != y.channels
        if x_gaps and y_gaps and x.channels != y.channels:
            return None
        channels = y.channels if y_gaps else x.channels
        count = call.output.element_count
        loops = [
            _Loop(
                count // channels,
                call.x_strides[0] if x_gaps else channels,
                call.y_stride if y_gaps else channels,
            ),
            _Loop(channels, 1, 1),
        ]
        return _lower_copy(call, _copy_fields(_Loop(1, 0, 0), loops))


class PortableStridedSlice(Kernel):
    """Every stride-th value from begin to end, per axis."""

    def lower(self, call: Call) -> Lowered | None:
        begin, step = call.op.attrs["begin"], call.op.attrs["stride"]
        steps = _find_steps(call.inputs[0].shape, call.x_strides[0])
        y_steps = _find_steps(call.output.shape, call.y_stride)
        loops = [
            _Loop(count, x * each, y) for count, x, each, y in zip(call.output.shape, steps, step, y_steps, strict=True)
        ]
        offset = sum(first * x for first, x in zip(begin, steps, strict=True))
        return _lower_loops(call, loops, offset)


class PortableTranspose(Kernel):
    """Axes in another order."""

    def lower(self, call: Call) -> Lowered | None:
        steps = _find_steps(call.inputs[0].shape, call.x_strides[0])
        y_steps = _find_steps(call.output.shape, call.y_stride)
        loops = [
            _Loop(count, steps[axis], y)
            for count, axis, y in zip(call.output.shape, call.op.attrs["perm"], y_steps, strict=True)
        ]
        return _lower_loops(call, loops, 0)


def _lower_loops(call: Call, loops: Sequence[_Loop], offset: int) -> Lowered | None:
    """A copy of the whole map in one call; None where it needs more than four loops."""
    loops = _merge_loops(loops)
    if len(loops) > 4:
        return None
    if len(loops) < 4:
        return _lower_copy(call, _copy_fields(_Loop(1, 0, 0), loops, x_offset=offset))
    # call->y_rows counts the output's rows, and only the outermost loop can be over them
    if loops[0].count != call.y.rows:
        return None
    return _lower_copy(call, _copy_fields(loops[0], loops[1:], x_offset=offset))


def _find_steps(shape: tuple[int, ...], stride: int) -> list[int]:
    """Bytes from one to the next along each axis; `stride` from one pixel to the next (kernel.find_area)."""
    steps = [0] * len(shape)
    step = 1
    for axis in reversed(range(len(shape))):
        steps[axis] = step
        step = stride if axis == len(shape) - 1 and len(shape) in (3, 4) else step * shape[axis]
    return steps


def _find_area(shape: tuple[int, ...]) -> Area | None:
    """Rows, columns and channels as kernel.find_area has them; None for ranks that these kernels don't cover."""
    if len(shape) == 4:
        return Area(shape[1], shape[2], shape[3])
    if len(shape) == 3:
        return Area(shape[1], 1, shape[2])
    return Area(1, 1, shape[1]) if len(shape) == 2 else None


def _add_cycles(lowered: Lowered, cycles: int) -> Lowered:
    return Lowered(**{**lowered.__dict__, "cycles": lowered.cycles + cycles})
