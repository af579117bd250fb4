"""Targets: the shipped ones, inheritance, and files of one's own."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from edgeprune import target as target_module
from edgeprune.errors import InputError
from edgeprune.target import FIGURES, Target, describe_target, find_targets_folder, list_targets, load_target

SHIPPED = [
    # name, family, clock_hz, flash_bytes, ram_bytes, dsp, mve, fpu, dotprod
    ("cortex-m0plus", "cortex-m", None, None, None, False, False, "none", None),
    ("cortex-m3", "cortex-m", None, None, None, False, False, "none", None),
    ("cortex-m4", "cortex-m", None, None, None, True, False, "single", None),
    ("cortex-m7", "cortex-m", None, None, None, True, False, "double", None),
    ("cortex-m33", "cortex-m", None, None, None, True, False, "single", None),
    ("cortex-m55", "cortex-m", None, None, None, True, True, "double", None),
    ("nrf52840-dk", "cortex-m", 64_000_000, 1024 * 1024, 256 * 1024, True, False, "single", None),
    ("nucleo-l4r5zi", "cortex-m", 120_000_000, 2048 * 1024, 640 * 1024, True, False, "single", None),
    ("cortex-a53", "cortex-a", None, None, None, None, None, "double", False),
    ("cortex-a72", "cortex-a", None, None, None, None, None, "double", False),
    ("cortex-a76", "cortex-a", None, None, None, None, None, "double", True),
    ("host", "host", None, None, None, None, None, None, None),
]


def write(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def test_all_shipped_targets_are_in_the_table() -> None:
    assert sorted(target.name for target in list_targets()) == sorted(row[0] for row in SHIPPED)


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row[0])
def test_shipped_target(row: tuple) -> None:
    name, *figures = row
    target = load_target(name)
    names = ("family", "clock_hz", "flash_bytes", "ram_bytes", "dsp", "mve", "fpu", "dotprod")
    assert [getattr(target, figure) for figure in names] == figures


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_every_shipped_figure_has_a_source(target: Target) -> None:
    stated = {figure for figure in FIGURES if getattr(target, figure) is not None}
    assert stated == set(target.sources)
    assert all(len(source) > 10 and source != "not stated" for source in target.sources.values())
    assert target.description


def test_alias() -> None:
    assert load_target("cortex-m") == load_target("cortex-m4")
    aliases = [alias for target in list_targets() for alias in target.aliases]
    names = [target.name for target in list_targets()]
    assert len(set(aliases + names)) == len(aliases + names)


def test_a_core_alone_says_what_it_does_not_know() -> None:
    core, board = load_target("cortex-m4"), load_target("nucleo-l4r5zi")
    assert core.unknown == ("clock_hz", "flash_bytes", "ram_bytes")
    assert "depend on the chip" in describe_target(core)["note"]
    assert board.unknown == ()
    assert "note" not in describe_target(board)


def test_description_is_plain_json() -> None:
    for target in list_targets():
        described = json.loads(json.dumps(describe_target(target)))
        assert described["name"] == target.name
        assert set(described) >= {item.name for item in dataclasses.fields(Target)}


def test_boards_take_from_their_core() -> None:
    board = load_target("nucleo-l4r5zi")
    assert board.inherits == ("cortex-m4",)
    assert board.core == "cortex-m4"
    assert board.is_microcontroller
    assert board.aliases == ()  # cortex-m stays the core's
    assert "100166" in board.sources["dsp"]
    assert "DS12023" in board.sources["ram_bytes"]


def test_own_file_inherits_a_shipped_target(tmp_path: Path) -> None:
    text = 'inherit = "nucleo-l4r5zi"\nclock_hz = { value = 80e6, source = "our clock tree" }\nram_bytes = 393_216\n'
    target = load_target(write(tmp_path, text))
    assert target.name == "mine"
    assert target.inherits == ("nucleo-l4r5zi", "cortex-m4")
    assert (target.clock_hz, target.ram_bytes, target.flash_bytes) == (80_000_000, 393_216, 2048 * 1024)
    assert isinstance(target.clock_hz, int)
    assert target.sources["clock_hz"] == "our clock tree"
    assert target.sources["ram_bytes"] == "not stated"
    assert target.description == "mine, built on nucleo-l4r5zi, cortex-m4"


def test_own_file_inherits_another_beside_it(tmp_path: Path) -> None:
    write(tmp_path, 'family = "cortex-m"\ncore = "cortex-m4"\ndsp = false\n', "base")
    target = load_target(write(tmp_path, 'inherit = "base.toml"\ndescription = "a"\n'))
    assert (target.inherits, target.dsp, target.description) == (("base",), False, "a")


def test_own_file_stands_alone(tmp_path: Path) -> None:
    target = load_target(write(tmp_path, 'family = "cortex-a"\ncore = "cortex-a55"\n'))
    assert (target.core, target.inherits, target.neon) == ("cortex-a55", (), None)
    assert not target.is_microcontroller


BAD_FILES = [
    ('inherit = "cortex-m5"', "mine.toml: inherit cortex-m5: no such target; nearest: cortex-m55"),
    ('inherit = "base.toml"', "inherit names base.toml, which does not exist"),
    ('inherit = "mine.toml"', "goes in a circle: mine -> mine"),
    ("inherit = 3", "inherit is 3; a text in quotes"),
    ('core = "cortex-m4"', "family is missing; state it, or inherit"),
    ('family = "cortex-m"', "core is missing"),
    ('family = "riscv"\ncore = "e31"', "family is 'riscv'; allowed: cortex-m, cortex-a, host"),
    ('inherit = "host"\nclock_mhz = 80', "clock_mhz is not known; did you mean clock_hz?"),
    ('inherit = "host"\nxyzzy = 80', "xyzzy is not known; allowed: description, family"),
    ('inherit = "host"\nclock_hz = 80', "clock_hz is 80; allowed: 100,000 to 10,000,000,000 Hz"),
    ('inherit = "host"\nclock_hz = 1e6.5', "mine.toml is not valid TOML"),
    ('inherit = "host"\nclock_hz = 1000000.5', "clock_hz is 1000000.5; a whole number of Hz"),
    ('inherit = "host"\nclock_hz = nan', "clock_hz is nan; a whole number of Hz"),
    ('inherit = "host"\nflash_bytes = "64K"', "flash_bytes is '64K'; a whole number of bytes"),
    ('inherit = "host"\nram_bytes = true', "ram_bytes is True; a whole number of bytes"),
    ('inherit = "host"\nram_bytes = -1', "ram_bytes is -1; allowed: 256 to"),
    ('inherit = "host"\ndsp = 1', "dsp is 1; true or false"),
    ('inherit = "host"\nfpu = true', "fpu is True; allowed: none, single, double"),
    ('inherit = "host"\narchitecture = 7', "architecture is 7; a text in quotes"),
    ('inherit = "host"\nfpu = { value = "half", source = "x" }', "fpu is 'half'; allowed"),
    ('inherit = "host"\nfpu = { source = "x" }', "fpu has no value"),
    ('inherit = "host"\nfpu = { value = "none", page = 3 }', "fpu has page; allowed: { value"),
    ('inherit = "host"\nfpu = { value = "none", source = 3 }', "the source of fpu is 3"),
    ('inherit = "host"\naliases = "x"', "aliases is 'x'; a list of names"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_bad_target_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_target(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_circle_of_two(tmp_path: Path) -> None:
    write(tmp_path, 'inherit = "mine.toml"', "other")
    with pytest.raises(InputError, match="circle: mine -> other -> mine"):
        load_target(write(tmp_path, 'inherit = "other.toml"'))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cortex-m5", "--target cortex-m5: no such target; nearest: cortex-m55"),
        ("Cortex-M4", "nearest: cortex-m4"),
        ("esp32", "no such target; (nearest|known): "),
        ("", "no such target; known: cortex-a53"),
        ("missing.toml", r"--target missing.toml: no such file; give a \.toml file"),
        ("./boards/mine", "no such file"),
    ],
)
def test_unknown_targets(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_target(name)


def test_targets_are_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel holds them as edgeprune/_targets (pyproject.toml, force-include)."""
    shipped = find_targets_folder()
    package = tmp_path / "site-packages" / "edgeprune"
    shutil.copytree(shipped, package / "_targets")
    monkeypatch.setattr(target_module, "__file__", str(package / "target.py"))
    assert find_targets_folder() == package / "_targets"
    assert load_target("cortex-m").name == "cortex-m4"
    shutil.rmtree(package / "_targets")
    with pytest.raises(InputError, match="install edgeprune again"):
        load_target("cortex-m")
