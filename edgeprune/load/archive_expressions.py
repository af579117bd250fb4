"""Size expressions of an exported program, such as '2*s77 + 1', by grammar.

torch.export.load hands these strings to sympy, which evaluates them as Python. Only integers, size symbols, arithmetic
and a few named functions may reach it.
"""

from __future__ import annotations

import ast
import re

# torch.utils._sympy.functions, and sympy's own as sympy.srepr and str write them
_FUNCTIONS = {
    *("FloorDiv", "ModularIndexing", "PythonMod", "Mod", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv"),
    *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat", "Identity"),
    *("Add", "Mul", "Pow", "Integer", "Rational", "Max", "Min", "Abs", "floor", "ceiling", "And", "Or", "Not"),
    *("Eq", "Ne", "Ge", "Gt", "Le", "Lt", "Equality", "Unequality"),
    *("GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan"),
}
_CONSTANTS = {"oo", "int_oo", "True", "False", "true", "false"}
_ASSUMPTIONS = {"positive", "nonnegative", "integer", "real", "finite"}
_SYMBOL = re.compile(r"z?[su]\d{1,6}|zu?f\d{1,6}", re.ASCII)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_MAX_CHARACTERS = 4000
_MAX_NUMBER = 1 << 63
_MAX_POWER = 8


def is_size_symbol(text: str) -> bool:
    """Whether this is the name of a free size.

    >>> is_size_symbol("s77"), is_size_symbol("os")
    (True, False)
    """
    return _SYMBOL.fullmatch(text) is not None


def is_size_expression(text: str) -> bool:
    """Whether this is arithmetic on sizes and nothing else, as torch (sympy.srepr) or a person would write it.

    >>> is_size_expression("Add(Symbol('s77', positive=True, integer=True), Integer(-1))")
    True
    >>> is_size_expression("Max(1, s77//2 - 3)"), is_size_expression("open('x', 'w')"), is_size_expression("9**9**9")
    (True, False, False)
    """
    if len(text) > _MAX_CHARACTERS:
        return False
    try:
        return _is_arithmetic(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return abs(value) < _MAX_NUMBER
        case ast.Name(id=name):
            return name in _CONSTANTS or is_size_symbol(name)
        case ast.UnaryOp(op=op, operand=operand):
            return isinstance(op, _OPERATORS) and _is_arithmetic(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=power):
            return _is_arithmetic(left) and _is_small_integer(power)
        case ast.BinOp(left=left, op=op, right=right):
            return isinstance(op, _OPERATORS) and _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Compare(left=left, ops=ops, comparators=others):
            return all(isinstance(op, _COMPARISONS) for op in ops) and all(map(_is_arithmetic, [left, *others]))
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str() as name)], keywords=keywords):
            return is_size_symbol(name) and all(map(_is_assumption, keywords))
        case ast.Call(func=ast.Name(id="Pow"), args=[base, power], keywords=[]):
            return _is_arithmetic(base) and _is_small_integer(power)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in _FUNCTIONS - {"Pow"} and all(map(_is_arithmetic, arguments))
    return False


def _is_assumption(keyword: ast.keyword) -> bool:
    return (
        keyword.arg in _ASSUMPTIONS
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, bool)
    )


def _is_small_integer(node: ast.expr) -> bool:
    """A power that can't blow up: 2, -1, Integer(2)."""
    match node:
        case ast.Call(func=ast.Name(id="Integer"), args=[inner], keywords=[]):
            return _is_small_integer(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return _is_small_integer(inner)
        case ast.Constant(value=int() as value):
            return value <= _MAX_POWER
    return False
