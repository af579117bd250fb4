"""A lowered op as C text: its constants, and the structure of its parameters.

    static const EP_CONST int8_t conv1_weight[6] = {1, -2, 3, 4, -5, 6};
    static const ep_conv_2d_op conv1 = {.weight = conv1_weight, .rows = 140};

The type `<function>_op` and the prototype of the function are in the header of the same name as the source that holds
it: ep_conv_2d.c, ep_conv_2d.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from edgeprune.codegen.kernel import Constant, Lowered

_LINE_WIDTH = 110


def render_constant(constant: Constant) -> str:
    """One array, its values in decimal, lines of bounded width."""
    values = np.ravel(constant.values)
    aligned = f" __attribute__((aligned({constant.alignment})))" if constant.alignment > 4 else ""
    head = f"static const EP_CONST {constant.c_type} {constant.name}[{len(values)}]{aligned} = "
    return head + "{\n" + _wrap(_render_value(constant.c_type, value) for value in values) + "\n};\n"


def _render_value(c_type: str, value: int) -> str:
    value = int(value)
    if c_type.startswith("u"):
        return f"{value}u"
    if value == -(2**31):
        return "INT32_MIN"  # -2147483648 is, in C, the negation of what does not fit int
    return str(value)


def _wrap(words: Iterable[str]) -> str:
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) + 3 > _LINE_WIDTH:
            lines.append(line)
            line = ""
        line += f"{' ' if line else '    '}{word},"
    return "\n".join([*lines, line])


def render_parameters(name: str, lowered: Lowered, aliases: Mapping[str, str] | None = None) -> str:
    """The structure of parameters under the name `name`.

    aliases: the names under which constants are stored instead of their own (equal constants are stored once).
    """
    aliases = aliases or {}
    fields = [
        f".{field} = {value if isinstance(value, int) else aliases.get(value, value)}"
        for field, value in lowered.fields.items()
    ]
    return f"static const {lowered.function}_op {name} = {{\n" + _wrap(fields) + "\n};\n"


def render_lowered(name: str, lowered: Lowered) -> str:
    """All declarations of a lowered op: prototypes of assembly, constants, parameters."""
    prototypes = [f"{assembly.prototype.rstrip(';')};\n" for assembly in lowered.assembly]
    constants = [render_constant(constant) for constant in lowered.constants]
    return "".join([*prototypes, *constants, render_parameters(name, lowered)])


def list_headers(lowered: Lowered) -> tuple[str, ...]:
    """The headers that declare the function and the type of its parameters."""
    return tuple(source.removesuffix(".c") + ".h" for source in lowered.sources if source.endswith(".c"))
