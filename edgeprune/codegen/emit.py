"""The schedule written down as C: model.c, one function per layer, whole maps or streamed rows.

    static EP_LAYER void layer_conv1(const ep_call *call) { ep_conv_2d(&op_conv1, call); }
    ...
    call = (ep_call){.x = input, .y = memory + 64, .scratch = memory + 4544, .y_rows = 140};
    layer_conv1(&call);

A layer's function has its name in the ELF file, which is how the emulator counts its instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeprune.codegen.kernel import find_area
from edgeprune.codegen.program import INPUT, OUTPUT, Step
from edgeprune.codegen.render import list_headers, render_constant, render_parameters
from edgeprune.codegen.rows import is_row_reduction
from edgeprune.codegen.schedule import Schedule, Unit
from edgeprune.codegen.streaming import Segment, count_step_rows
from edgeprune.graph import count_op_macs

LAYER_PREFIX = "layer_"
_LAYER_ATTRIBUTE = """\
/* A layer keeps its name and form in the ELF file: neither inlined nor cloned. */
#if defined(__clang__)
#define EP_LAYER __attribute__((noinline))
#else
#define EP_LAYER __attribute__((noipa))
#endif
"""


def emit_model_c(schedule: Schedule, notice: str) -> str:
    """The text of model.c. notice: the comment at its head."""
    names = [step.name for step in schedule.program.steps]
    headers = dict.fromkeys(header for name in names for header in list_headers(schedule.lowered[name]))
    if schedule.is_streaming:
        headers["ep_stream.h"] = None
    parts = [
        notice,
        '#include "model.h"\n\n#include "ep.h"\n' + "".join(f'#include "{header}"\n' for header in headers),
        _LAYER_ATTRIBUTE,
        *_emit_declarations(schedule),
        *(_emit_layer(schedule, step) for step in schedule.program.steps),
        *(
            _emit_segment(schedule, number, unit.segment)
            for number, unit in enumerate(schedule.units)
            if unit.segment is not None
        ),
        _emit_run(schedule),
    ]
    return "\n".join(parts)


def _emit_declarations(schedule: Schedule) -> Iterator[str]:
    """Prototypes, constants (equal ones once) and parameters of all layers."""
    lowered = [(step.name, schedule.lowered[step.name]) for step in schedule.program.steps]
    prototypes = dict.fromkeys(
        assembly.prototype.rstrip(";") + ";" for _, item in lowered for assembly in item.assembly
    )
    if prototypes:
        yield "\n".join(prototypes) + "\n"
    stored: dict[tuple[str, int, bytes], str] = {}
    for name, item in lowered:
        aliases = {}
        for constant in item.constants:
            key = constant.c_type, constant.alignment, constant.values.tobytes()
            if key not in stored:
                stored[key] = constant.name
                yield render_constant(constant)
            aliases[constant.name] = stored[key]
        yield render_parameters(f"op_{name}", item, aliases)


def _emit_layer(schedule: Schedule, step: Step) -> str:
    return (
        f"/* {_describe(schedule, step)} */\n"
        f"static EP_LAYER void {LAYER_PREFIX}{step.name}(const ep_call *call)\n"
        f"{{\n    {schedule.lowered[step.name].function}(&op_{step.name}, call);\n}}\n"
    )


def _describe(schedule: Schedule, step: Step) -> str:
    graph = schedule.program.graph
    shapes = " + ".join(_format_shape(graph.tensors[name].shape) for name in step.inputs)
    output = graph.tensors[step.output]
    macs = count_op_macs(graph, step.op)
    text = f"{step.op.name}: {step.op.kind} {shapes} -> {_format_shape(output.shape)}"
    text += f"; {macs:,} MACs" if macs else ""
    return f"{text}; {schedule.lowered[step.name].kernel}".replace("*/", "* /")


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:])) if len(shape) > 1 else str(shape[0])


def _emit_run(schedule: Schedule) -> str:
    body = []
    for number, unit in enumerate(schedule.units):
        if unit.segment is not None:
            body.append(f"    run_segment_{number}(input, output, memory);\n")
        else:
            body.append(_emit_whole_call(schedule, unit))
    text = "".join(body)
    # one for all calls: compilers give each of many its own place on the stack
    declared = "    ep_call call;\n" if "(&call)" in text else ""
    unused = "" if "input" in text else "    (void)input;\n"
    return (
        "int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena)\n{\n"
        "    int8_t *const memory = arena;\n    (void)memory;\n"
        + declared
        + unused
        + "".join(body)
        + "    return 0;\n}\n"
    )


def _emit_whole_call(schedule: Schedule, unit: Unit) -> str:
    step = schedule.program.steps[unit.first]
    fields = [f".x = {_point(schedule, step.inputs[0])}"]
    if len(step.inputs) > 1:
        fields.append(f".x2 = {_point(schedule, step.inputs[1])}")
    fields.append(f".y = {_point_at_output(schedule, step)}")
    fields += _point_at_workspace(schedule, step)
    fields.append(f".y_rows = {count_step_rows(schedule.program, step)}")
    return _emit_call(step, fields, "    ")


def _emit_call(step: Step, fields: Iterable[str], indent: str) -> str:
    return f"{indent}call = (ep_call){{{', '.join(fields)}}};\n{indent}{LAYER_PREFIX}{step.name}(&call);\n"


def _point_at_workspace(schedule: Schedule, step: Step) -> list[str]:
    fields = []
    item = schedule.lowered[step.name]
    if item.scratch_bytes:
        fields.append(f".scratch = memory + {schedule.arena.offsets[f'scratch:{step.name}']}")
    if item.state_bytes:
        fields.append(f".state = memory + {schedule.arena.offsets[f'state:{step.name}']}")
    return fields


def _point_at_output(schedule: Schedule, step: Step) -> str:
    """Where a step writes over whole maps: the output's start, or of a concat the place of its operand."""
    extra = _find_part_offset(schedule, step)
    return _point(schedule, step.output, extra)


def _find_part_offset(schedule: Schedule, step: Step) -> int:
    """Bytes from the concat's output to the place of the operand that this step copies."""
    if step.op.kind != "concat":
        return 0
    graph, axis = schedule.program.graph, step.op.attrs["axis"]
    shape = graph.tensors[step.output].shape
    before = sum(graph.tensors[name].shape[axis] for name in step.op.inputs[: step.part])
    stride = schedule.program.places[step.output].stride
    if axis == len(shape) - 1:
        return before
    inner = 1
    for size in shape[axis + 1 : -1]:
        inner *= size
    return before * inner * stride


def _point(schedule: Schedule, tensor: str, extra: int = 0) -> str:
    """The address of a tensor's first byte."""
    place = schedule.program.places[tensor]
    root = schedule.shared[place.buffer]
    if root in (INPUT, OUTPUT):
        base, offset = root, place.offset + extra
    else:
        base, offset = "memory", schedule.arena.offsets[root] + place.offset + extra
    return f"{base} + {offset}" if offset else base


def _emit_segment(schedule: Schedule, number: int, segment: Segment) -> str:
    """A streamed segment as a function: ticks outside, steps inside."""
    steps = schedule.program.steps[segment.first : segment.last + 1]
    lines = [
        f"/* Steps {steps[0].name} to {steps[-1].name}, {segment.pace} rows of {steps[-1].name} in a tick. */",
        f"static void run_segment_{number}(const int8_t *input, int8_t *output, int8_t *memory)",
        "{",
        "    (void)input;",
        "    (void)output;",
        "    (void)memory;",
        "    ep_call call;",
        *(f"    int32_t made_{step.name} = 0;" for step in steps),
        *(
            f"    int32_t first_{index} = {-(window.anchor or 0)};"
            for index, window in enumerate(segment.windows.values())
        ),
        f"    for (int32_t tick = 0; tick < {segment.ticks}; tick++) {{",
        *_emit_slides(schedule, segment),
    ]
    for step in steps:
        lines += _emit_streamed_step(schedule, segment, step)
    return "\n".join([*lines, "    }", "}", ""])


def _emit_slides(schedule: Schedule, segment: Segment) -> Iterator[str]:
    for index, window in enumerate(segment.windows.values()):
        keep = [
            f"made_{reader} * {rows.stride} - {rows.before}"
            if window.anchor is not None
            else f"ep_most(made_{reader} * {rows.stride} - {rows.before}, 0)"
            for reader in window.readers
            for rows in [segment.row_windows[reader]]
        ]
        keep += [f"made_{writer}" for writer in window.writers]
        made = [f"made_{writer}" for writer in window.writers]
        yield (
            f"        first_{index} = ep_slide(memory + {schedule.arena.offsets[window.buffer]}, {window.row_bytes}, "
            f"first_{index}, {_nest('ep_least', keep)}, {_nest('ep_most', made)});"
        )


def _nest(function: str, values: list[str]) -> str:
    """The least or most of several values, two at a time."""
    text = values[0]
    for value in values[1:]:
        text = f"{function}({text}, {value})"
    return text


def _emit_streamed_step(schedule: Schedule, segment: Segment, step: Step) -> Iterator[str]:
    progress = segment.progress[step.name]
    goal = f"ep_goal(tick, {segment.ticks}, {progress.slope}, {progress.offset}, {progress.cap})"
    made = f"made_{step.name}"
    yield f"        for (int32_t goal = {goal}; {made} < goal;) {{"
    yield f"            const int32_t rows = ep_least(goal - {made}, {segment.rows_per_call[step.name]});"
    fields = list(_point_at_rows(schedule, segment, step))
    fields += _point_at_workspace(schedule, step)
    fields += [f".y_first = {made}", ".y_rows = rows"]
    yield _emit_call(step, fields, "            ").rstrip("\n")
    yield f"            {made} += rows;"
    yield "        }"


def _point_at_rows(schedule: Schedule, segment: Segment, step: Step) -> Iterator[str]:
    """x at the first row in memory, x2 at the row that is made next, y likewise (of a reduction: its only row)."""
    made = f"made_{step.name}"
    first = _first_row(schedule, segment, step.inputs[0])
    yield f".x = {_point(schedule, step.inputs[0])}"
    if first is not None:
        yield f".x_first = {first}"
    if len(step.inputs) > 1:
        yield f".x2 = {_point_at_row(schedule, segment, step.inputs[1], made)}"
    if is_row_reduction(schedule.program.graph, step.op):
        yield f".y = {_point(schedule, step.output)}"
    else:
        yield f".y = {_point_at_row(schedule, segment, step.output, made, _find_part_offset(schedule, step))}"


def _point_at_row(schedule: Schedule, segment: Segment, tensor: str, row: str, extra: int = 0) -> str:
    area, place = find_area(schedule.program.graph.tensors[tensor].shape), schedule.program.places[tensor]
    first = _first_row(schedule, segment, tensor)
    rows = row if first is None else f"({row} - {first})"
    return f"{_point(schedule, tensor, extra)} + {rows} * {area.columns * place.stride}"


def _first_row(schedule: Schedule, segment: Segment, tensor: str) -> str | None:
    """The variable that holds the first row of the tensor's window; None where the whole tensor is in memory."""
    root = schedule.shared[schedule.program.places[tensor].buffer]
    roots = list(segment.windows)
    return f"first_{roots.index(root)}" if root in roots else None


__all__ = ["LAYER_PREFIX", "emit_model_c"]
