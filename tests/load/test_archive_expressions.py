"""The grammar of size expressions: everything torch writes, nothing that computes anything else."""

import pytest
import sympy
from torch.utils._sympy.functions import FloorDiv, Mod

from edgeprune.load.archive_expressions import is_size_expression, is_size_symbol

SIZE = sympy.Symbol("s77", positive=True, integer=True)


@pytest.mark.parametrize(
    "expression",
    [
        SIZE,
        2 * SIZE + 1,
        FloorDiv(SIZE - 3, 2),
        Mod(SIZE, 4),
        sympy.Max(1, SIZE),
        SIZE**2,
        sympy.Eq(SIZE, 3),
        SIZE >= 2,
        sympy.Integer(5),
    ],
)
def test_what_torch_writes(expression):
    assert is_size_expression(sympy.srepr(expression))
    assert is_size_expression(str(expression))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "open('x', 'w')",
        "s0.__class__",
        "s0[0]",
        "(lambda: 1)()",
        "[s0 for s0 in (1, 2)]",
        "f'{s0}'",
        "'s0'",
        "Symbol('os')",
        "Symbol('s0', positive=open('x'))",
        "Symbol('s0', cls=True)",
        "Max(s0, key=1)",
        "Max(*s0)",
        "s0 if s0 else s1",
        "9**9**9",
        "2**s0",
        "Pow(2, Pow(2, 99))",
        "10000000000000000000000",
        "1 << 9999",
        "s0 @ s1",
        "s0, s1",
        "s12345678",
        "",
        "s0 +",
        "(" * 5000,
        "1" * 5000,
        "\x00",
    ],
)
def test_what_no_program_needs(text):
    assert not is_size_expression(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("s0", True), ("u12", True), ("zuf3", True), ("S0", False), ("s", False)]
)
def test_symbols(text, expected):
    assert is_size_symbol(text) is expected
