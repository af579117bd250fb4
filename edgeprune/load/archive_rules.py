"""The rule of every string in an exported program's JSON, by the field that it stands in.

Which ops it may name, how its sizes are written, what its names look like: torch turns each of these strings into
something that runs, so there is no field without a rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from edgeprune.errors import UnsupportedModelError, UntrustedInputError
from edgeprune.load.archive_expressions import is_size_expression
from edgeprune.load.operators import find_op_problem

_ALLOWED_TARGETS = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_\w+",
    re.ASCII,
)


def check_target(source: str, target: Any) -> None:
    """An op of the program: aten's tensor functions and arithmetic on sizes."""
    if not isinstance(target, str):
        raise refuse_string(source, "target", repr(target))
    if _ALLOWED_TARGETS.fullmatch(target):
        return
    match = re.fullmatch(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?", target, re.ASCII)
    if match is None:
        raise refuse_string(source, "target", target)
    namespace, name, overload = match.groups()
    if namespace == "higher_order":
        raise UnsupportedModelError(
            f"{source}: the program holds {name}: control flow, or torch.no_grad() in forward(). Rewrite forward() as "
            "one straight path, and freeze parameters by requires_grad = False"
        )
    if namespace != "aten":
        raise UnsupportedModelError(
            f"{source}: the program holds the op {namespace}.{name}, which is not PyTorch's own. Replace it by "
            "standard ops, or export the model before it was quantized or compiled"
        )
    packet = getattr(torch.ops.aten, name, None)
    op = getattr(packet, overload or "default", None)
    if not isinstance(op, torch._ops.OpOverload):
        raise UnsupportedModelError(
            f"{source}: the op aten.{name}.{overload} is unknown to the installed PyTorch {torch.__version__}"
        )
    problem = find_op_problem(op)
    if problem is not None and "outside of the program" in problem:
        raise UntrustedInputError(f"{source}: the op aten.{name}.{overload} {problem}. Refused")


def _is_word(text: str) -> bool:
    """A Python name; node names become Python source."""
    return re.fullmatch(r"[A-Za-z_]\w{0,511}|", text, re.ASCII) is not None


def _is_path(text: str) -> bool:
    """A dotted name in a module; keys of a ModuleDict may hold spaces and dashes."""
    return re.fullmatch(r"[\w\-: ]{0,128}(\.[\w\-: ]{1,128}){0,64}", text) is not None


def _is_plain(text: str) -> bool:
    """A string argument of an op, such as 'same' or 'nct,oc->not'."""
    return re.fullmatch(r"[\w ,.>+\-]{0,200}", text, re.ASCII) is not None


def _is_number_word(text: str) -> bool:
    return text in ("Infinity", "-Infinity", "NaN")


_TREE_TYPES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


def _is_tree_spec(text: str) -> bool:
    """How inputs or outputs are nested: tuples, lists and dicts with plain keys."""
    try:
        version, spec = json.loads(text)
        return version == 1 and _is_tree(spec)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_tree(spec: Any) -> bool:
    if set(spec) != {"type", "context", "children_spec"}:
        return False
    context = json.loads(spec["context"]) if spec["context"] is not None else None
    is_leaf = spec["type"] is None and context is None and not spec["children_spec"]
    keys_plain = context is None or (
        isinstance(context, list)
        and all(isinstance(key, int) or (isinstance(key, str) and _is_word(key)) for key in context)
    )
    return is_leaf or (spec["type"] in _TREE_TYPES and keys_plain and all(map(_is_tree, spec["children_spec"])))


# The rule of every field that may hold a string; a string anywhere else is refused.
_STRING_RULES: dict[str, Callable[[str], bool]] = {
    "target": lambda _text: True,  # has check_target
    "stack_trace": lambda _text: True,  # cleaned of control characters; torch only carries these along
    "nn_module_stack": lambda _text: True,
    "name": _is_word,
    "as_name": _is_word,
    "user_input_name": _is_word,
    "forward_arg_names": _is_word,
    "verifiers": _is_word,
    "parameter_name": _is_path,
    "buffer_name": _is_path,
    "tensor_constant_name": _is_path,
    "fqn": _is_path,
    "as_string": _is_plain,
    "as_strings": _is_plain,
    "torch_version": _is_plain,
    "as_float": _is_number_word,
    "as_floats": _is_number_word,
    "real": _is_number_word,
    "imag": _is_number_word,
    "expr_str": is_size_expression,
    "in_spec": _is_tree_spec,
    "out_spec": _is_tree_spec,
    "path_name": lambda text: re.fullmatch(r"(weight|tensor)_\d{1,9}", text, re.ASCII) is not None,
}


def check_strings(source: str, document: Any) -> None:
    """Apply the rules to every string and key of a JSON document."""
    for field, value in _walk(document):
        if isinstance(value, str):
            if field == "type":  # of a device
                _check_device(source, value)
            elif field not in _STRING_RULES or not _STRING_RULES[field](value):
                raise refuse_string(source, field, value)
        elif isinstance(value, dict):
            for key in value:
                if not _is_path(key):
                    raise refuse_string(source, field, key)


def _walk(document: Any) -> Iterator[tuple[str, Any]]:
    """Every value with the field it stands in; the elements of a list stand in the list's field."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        field, value = waiting.pop()
        yield field, value
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((field, item) for item in value)


def _check_device(source: str, device: str) -> None:
    if device != "cpu":
        raise UnsupportedModelError(
            f"{source}: the program was exported on {device[:20]!a}; move the model to the CPU first: model.cpu()"
        )


def refuse_string(source: str, field: str, text: str) -> UntrustedInputError:
    return UntrustedInputError(
        f"{source}: the field {field[:40]!a} holds {text[:80]!a}, which no exported program needs and which could run "
        "code when it is read. Refused; save the model again with torch.export.save"
    )
