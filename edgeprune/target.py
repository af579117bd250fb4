"""Targets: what a core or board has, read from targets/*.toml, every figure with its source.

    description = "my sensor board, STM32L4R5 at 80 MHz"
    inherit = "nucleo-l4r5zi"                     # a shipped target, or another .toml file beside this one
    clock_hz = { value = 80_000_000, source = "clock tree of our firmware" }
    ram_bytes = 393_216                           # a plain value works too; its source is then "not stated"

A core alone (cortex-m4) has no clock, flash or RAM: these stay None until a board states them. Features that a core has
as an option (FPU, DSP, MVE, ...) are taken as present in the core's own file, as compilers take them for -mcpu=NAME; a
board file says otherwise.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.toml_file import read_toml, suggest

FAMILIES = ("cortex-m", "cortex-a", "host")
FPUS = ("none", "single", "double")

# What a file may state with a source, and its range: (smallest, largest), choices, bool or any text.
FIGURES: Mapping[str, Any] = {
    "architecture": str,
    "clock_hz": (100_000, 10_000_000_000),
    "flash_bytes": (1024, 2**40),
    "ram_bytes": (256, 2**40),
    "dsp": bool,
    "mve": bool,
    "neon": bool,
    "dotprod": bool,
    "fpu": FPUS,
}
_WORDS = ("description", "family", "core", "inherit")
_KEYS = (*_WORDS, "aliases", *FIGURES)
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Target:
    """A core or a board. None: not known (a core alone has no memory), or without meaning for the family.

    family: 'cortex-m' (bare metal), 'cortex-a' (Linux) or 'host' (the machine edgeprune runs on).
    core: as compilers call it. architecture: as Arm calls it.
    clock_hz: the highest that the source states. flash_bytes, ram_bytes: all there is on the chip.
    dsp, mve, neon, dotprod: instruction sets for integers (Armv7E-M DSP, Helium, Advanced SIMD, SDOT and UDOT).
    fpu: 'none', 'single' or 'double' precision in hardware.
    sources: for each figure the document that states it. inherits: the names it was built on, nearest first.
    """

    name: str
    family: str
    core: str
    description: str = ""
    architecture: str | None = None
    clock_hz: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    dsp: bool | None = None
    mve: bool | None = None
    neon: bool | None = None
    dotprod: bool | None = None
    fpu: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    inherits: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError(f"target {self.name}: family is {self.family!r}; allowed: {', '.join(FAMILIES)}")
        for figure in FIGURES:
            value = getattr(self, figure)
            if value is not None:
                _check_figure(f"target {self.name}", figure, value)

    @property
    def is_microcontroller(self) -> bool:
        """True where the model runs as firmware, without an operating system."""
        return self.family == "cortex-m"

    @property
    def unknown(self) -> tuple[str, ...]:
        """Memory and clock figures that this target does not state."""
        return tuple(name for name in ("clock_hz", "flash_bytes", "ram_bytes") if getattr(self, name) is None)


def load_target(name_or_path: str) -> Target:
    """A shipped target by its name or alias, or anyone's own by the path of its .toml file.

    Raises InputError: unknown name (with the nearest ones), unknown key, value out of range, circle of `inherit`.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path or "\\" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(
                f"--target {name_or_path}: no such file; give a .toml file or a name of `edgeprune targets`"
            )
        return _resolve(path)
    return _resolve(_find_shipped(name_or_path, "--target"))


def list_targets() -> tuple[Target, ...]:
    """All shipped targets: cores before boards, families in the order of FAMILIES."""
    targets = [_resolve(path) for path in _list_files()]
    return tuple(
        sorted(targets, key=lambda target: (FAMILIES.index(target.family), bool(target.inherits), target.name))
    )


def describe_target(target: Target) -> dict[str, Any]:
    """The target as plain data for tables and reports; `unknown` names what it does not state, and why."""
    described = {item.name: getattr(target, item.name) for item in dataclasses.fields(target)}
    described.update(sources=dict(target.sources), inherits=list(target.inherits), aliases=list(target.aliases))
    described["unknown"] = list(target.unknown)
    if target.unknown and target.is_microcontroller:
        described["note"] = (
            f"{', '.join(target.unknown)} depend on the chip; name a board, or write a .toml that inherits this"
        )
    return described


def find_targets_folder() -> Path:
    """Where the shipped targets lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_targets", package.parent / "targets"):
        if (folder / "host.toml").is_file():
            return folder
    raise InputError("the target descriptions are missing from this installation; install edgeprune again")


def _list_files() -> list[Path]:
    return sorted(find_targets_folder().glob("*.toml"))


def _find_shipped(name: str, where: str) -> Path:
    files = {path.stem: path for path in _list_files()}
    aliases = {
        alias: path for path in files.values() for alias in read_toml(path, "target description").get("aliases", [])
    }
    known = {**aliases, **files}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, 3, cutoff=0.5)
    hint = f"nearest: {', '.join(close)}" if close else f"known: {', '.join(sorted(known))}"
    raise InputError(f"{where} {name}: no such target; {hint}. `edgeprune targets` lists all; your own is a .toml file")


def _resolve(path: Path) -> Target:
    """Read a target and all that it inherits; what is nearer wins."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    inherits: list[str] = []
    seen: list[Path] = []
    at: Path | None = path
    while at is not None:
        if at.resolve() in seen:
            circle = " -> ".join([path.stem, *inherits])
            raise InputError(f"{path.name}: `inherit` goes in a circle: {circle}")
        seen.append(at.resolve())
        content = read_toml(at, "target description")
        _check_keys(at.name, content)
        for key, value in content.items():
            if key in FIGURES and key not in values:
                values[key], sources[key] = _split_source(at.name, key, value)
            elif key in ("family", "core"):
                values.setdefault(key, value)
            elif key in ("description", "aliases") and at is path:  # of this very target, not of what it is built on
                values[key] = tuple(value) if key == "aliases" else value
        at = _find_parent(at, content.get("inherit"))
        if at is not None:
            inherits.append(at.stem)
    for key in ("family", "core"):
        if key not in values:
            raise InputError(f'{path.name}: {key} is missing; state it, or inherit a target: inherit = "cortex-m4"')
    values.setdefault("description", f"{path.stem}, built on {', '.join(inherits)}" if inherits else path.stem)
    return Target(name=path.stem, sources=sources, inherits=tuple(inherits), **values)


def _find_parent(path: Path, inherit: str | None) -> Path | None:
    """The file that `inherit` names: a .toml relative to this one, else a shipped target."""
    if inherit is None:
        return None
    if inherit.endswith(".toml"):
        parent = path.parent / inherit
        if not parent.is_file():
            raise InputError(f"{path.name}: inherit names {inherit}, which does not exist beside it")
        return parent
    return _find_shipped(inherit, f"{path.name}: inherit")


def _check_keys(source: str, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if key not in _KEYS:
            raise InputError(f"{source}: {key} is not known; {suggest(key, _KEYS, 'allowed: ' + ', '.join(_KEYS))}")
        if key in _WORDS and not isinstance(value, str):
            raise InputError(f"{source}: {key} is {value!r}; a text in quotes is expected")
    aliases = content.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise InputError(f"{source}: aliases is {aliases!r}; a list of names is expected")


def _split_source(source: str, key: str, stated: object) -> tuple[Any, str]:
    """A figure and where it is from, out of `value` or `{ value = ..., source = "..." }`."""
    if not isinstance(stated, dict):
        return _check_figure(source, key, stated), NOT_STATED
    for name in stated:
        if name not in ("value", "source"):
            raise InputError(f'{source}: {key} has {name}; allowed: {{ value = ..., source = "..." }}')
    if "value" not in stated:
        raise InputError(f'{source}: {key} has no value; write {key} = {{ value = ..., source = "..." }}')
    origin = stated.get("source", NOT_STATED)
    if not isinstance(origin, str):
        raise InputError(f"{source}: the source of {key} is {origin!r}; a text in quotes is expected")
    return _check_figure(source, key, stated["value"]), origin


def _check_figure(source: str, key: str, value: Any) -> Any:
    """The value, if it is one for this figure; 120e6 Hz becomes the whole number that it is."""
    allowed = FIGURES[key]
    if allowed is bool or allowed is str:
        if not isinstance(value, allowed):
            expected = "true or false" if allowed is bool else "a text in quotes"
            raise InputError(f"{source}: {key} is {value!r}; {expected} is expected")
    elif allowed is FPUS:
        if value not in FPUS:
            raise InputError(f"{source}: {key} is {value!r}; allowed: {', '.join(FPUS)}")
    else:
        low, high = allowed
        unit = {"hz": "Hz"}.get(key.rpartition("_")[2], "bytes")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(f"{source}: {key} is {value!r}; a whole number of {unit} is expected")
        if not low <= value <= high:
            raise InputError(f"{source}: {key} is {value:,}; allowed: {low:,} to {high:,} {unit}")
    return value
