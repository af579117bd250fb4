"""The direction of imports: the foundation imports no room, a room imports only rooms to its left.

Read from the source, not from loaded modules, so that imports inside functions count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeprune

PACKAGE = Path(edgeprune.__file__).parent
# The way of the data, left to right. A room that does not exist yet has its place all the same.
ROOMS = ("load", "prune", "export", "quantize", "lower", "codegen", "measure", "report")
DATA_ROOMS = ("models",)  # nn.Modules only: any room may import it, it imports none
CONDUCTORS = (
    "cli",
    "cli_analyze",
    "cli_artifacts",
    "cli_cache",
    "cli_compile",
    "cli_gate",
    "cli_info",
    "cli_models",
    "cli_options",
    "cli_plan",
    "console",
    "settings",
    "pipeline",
    "stages",
    "__main__",
    "__init__",
)  # above the rooms: run them
FOUNDATION_PACKAGES = ("reference",)
# Starting the command line must stay quick: nothing that it imports at its top may bring these in.
HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "ai_edge_litert",
    "tflite_micro",
    "tensorflow",
    "plotly",
)


def find_room(module: str) -> str:
    """The part of edgeprune that 'edgeprune.a.b' belongs to: 'a'; '' for the package itself."""
    return [*module.split("."), ""][1]


def list_sources() -> list[tuple[str, Path]]:
    """(dotted module, file) of every source file."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found.append((".".join(part for part in parts if part != "__init__"), path))
    return found


def read_imports(module: str, path: Path, *, only_top: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; with only_top, those that are loaded when the file is."""
    tree = ast.parse(path.read_text())
    for node in _walk_top(tree) if only_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _walk_top(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run on import: not function bodies, not `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _walk_top(child)


SOURCES = list_sources()
MODULES = {module for module, _ in SOURCES}


def imported_rooms(module: str, path: Path) -> set[str]:
    return {find_room(name) for name in read_imports(module, path) if name.startswith("edgeprune.")}


@pytest.mark.parametrize(("module", "path"), SOURCES, ids=[module for module, _ in SOURCES])
def test_imports_go_one_way(module: str, path: Path) -> None:
    own = find_room(module)
    if own in CONDUCTORS or own == "":
        return
    imported = imported_rooms(module, path)
    assert not imported & set(CONDUCTORS), f"{module} imports what runs it: {imported & set(CONDUCTORS)}"
    if own in ROOMS:
        allowed = {*ROOMS[: ROOMS.index(own) + 1], *DATA_ROOMS}
    elif own in DATA_ROOMS:
        allowed = {own}
    else:
        allowed = set()  # the foundation
    wrong = imported & {*ROOMS, *DATA_ROOMS} - allowed
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}; allowed: {', '.join(sorted(allowed)) or 'no room'}"


def test_every_package_has_its_place() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {*ROOMS, *DATA_ROOMS, *CONDUCTORS, *FOUNDATION_PACKAGES}


def test_the_command_line_starts_without_heavy_libraries() -> None:
    paths = dict(SOURCES)
    seen, waiting = set(), ["edgeprune", "edgeprune.cli"]
    while waiting:
        module = waiting.pop()
        if module in seen or module not in MODULES:
            continue
        seen.add(module)
        for name in read_imports(module, paths[module], only_top=True):
            assert name.split(".")[0] not in HEAVY, f"{module} imports {name} when the command line starts"
            waiting += [name, *(name.rsplit(".", count)[0] for count in range(1, name.count(".") + 1))]


def test_the_reader_of_imports_sees_what_it_should(tmp_path: Path) -> None:
    source = tmp_path / "probe.py"
    source.write_text(
        "import os\nfrom edgeprune.load import data\nfrom . import graph\nfrom ..prune import engine\n"
        "def late():\n    import torch\n"
    )
    names = set(read_imports("edgeprune.lower.probe", source))
    assert {"os", "edgeprune.load.data", "edgeprune.lower.graph", "edgeprune.prune.engine", "torch"} <= names
    assert "torch" not in set(read_imports("edgeprune.lower.probe", source, only_top=True))
