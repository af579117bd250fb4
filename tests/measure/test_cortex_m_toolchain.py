"""Firmware is built the same everywhere, for the core that the target describes, and complains clearly."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from edgeprune.errors import EdgepruneError, InputError, UnsupportedModelError
from edgeprune.measure.cortex_m import build_elf, find_toolchain, toolchain
from edgeprune.target import Target, load_target
from tests.measure.tiny_firmware import HEADER, MODEL, SOURCES, build_tiny, needs_gcc

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
TOOLCHAINS = ["zig", pytest.param("gcc", marks=needs_gcc)]


@pytest.mark.parametrize("name", TOOLCHAINS)
def test_same_sources_give_the_same_elf_in_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = MODEL + "\nconst char *model_file(void);\nconst char *model_file(void) { return __FILE__; }\n"
    named = named.replace("return 0;", "return model_file()[0] == 0;").replace(
        "#include", "const char *model_file(void);\n#include", 1
    )
    sources = {**SOURCES, "model.c": named}
    target = load_target("cortex-m4")
    first = build_elf(sources, target, toolchain=name, work=tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    second = build_elf(sources, target, toolchain=name, work=tmp_path / "a" / "much longer" / "name")
    third = build_elf(sources, target, toolchain=name)
    assert first.elf == second.elf == third.elf
    assert first.flags == third.flags
    assert b"model.c" in first.elf  # that is what __FILE__ gives
    for word in (str(tmp_path).encode(), b"/tmp", b"/home", b"/root", b"site-packages"):
        assert word not in first.elf


@needs_gcc
@pytest.mark.parametrize("core", CORES)
def test_gcc_builds_for_every_core(core: str) -> None:
    built = build_tiny(core, "gcc")
    assert built.elf.startswith(b"\x7fELF")
    assert built.toolchain.startswith("arm-none-eabi-gcc 1")
    assert f"-mcpu={core}" in built.flags


@pytest.mark.slow  # zig builds its runtime library for each core the first time: 5 s
@pytest.mark.parametrize("core", CORES)
def test_zig_builds_for_every_core(core: str) -> None:
    built = build_tiny(core)
    assert built.elf.startswith(b"\x7fELF")
    assert built.toolchain.startswith("zig 0.")
    assert "clang" in built.toolchain


@pytest.mark.parametrize(
    ("changes", "zig", "gcc"),
    [
        ({"core": "cortex-m0plus", "fpu": "none"}, ("eabi", "cortex_m0plus"), ("cortex-m0plus", "soft")),
        ({"core": "cortex-m3", "fpu": "none"}, ("eabi", "cortex_m3"), ("cortex-m3", "soft")),
        ({"core": "cortex-m4", "fpu": "single"}, ("eabihf", "cortex_m4+vfp4d16sp"), ("cortex-m4", "hard")),
        ({"core": "cortex-m4", "fpu": "none"}, ("eabi", "cortex_m4"), ("cortex-m4+nofp", "soft")),
        ({"core": "cortex-m7", "fpu": "double"}, ("eabihf", "cortex_m7+fp_armv8d16"), ("cortex-m7", "hard")),
        ({"core": "cortex-m7", "fpu": "single"}, ("eabihf", "cortex_m7+fp_armv8d16sp"), ("cortex-m7+nofp.dp", "hard")),
        (
            {"core": "cortex-m33", "fpu": "single", "dsp": True},
            ("eabihf", "cortex_m33+fp_armv8d16sp+dsp"),
            ("cortex-m33", "hard"),
        ),
        (
            {"core": "cortex-m33", "fpu": "none", "dsp": False},
            ("eabi", "cortex_m33-dsp"),
            ("cortex-m33+nodsp+nofp", "soft"),
        ),
        (
            {"core": "cortex-m55", "fpu": "double", "dsp": True, "mve": True},
            ("eabihf", "cortex_m55+fp_armv8d16+dsp+mve_fp"),
            ("cortex-m55", "hard"),
        ),
        (
            {"core": "cortex-m55", "fpu": "none", "dsp": True, "mve": True},
            ("eabi", "cortex_m55+dsp+mve"),
            ("cortex-m55+nofp", "soft"),
        ),
        (
            {"core": "cortex-m55", "fpu": "double", "dsp": True, "mve": False},
            ("eabihf", "cortex_m55+fp_armv8d16+dsp"),
            ("cortex-m55+nomve", "hard"),
        ),
    ],
)
def test_flags_say_what_the_chip_has(changes: dict[str, object], zig: tuple[str, str], gcc: tuple[str, str]) -> None:
    target = Target(name="chip", family="cortex-m", **changes)  # type: ignore[arg-type]
    assert toolchain._core_flags("zig", target) == ("-target", f"thumb-freestanding-{zig[0]}", f"-mcpu={zig[1]}")
    assert toolchain._core_flags("gcc", target) == (f"-mcpu={gcc[0]}", f"-mfloat-abi={gcc[1]}")


@needs_gcc
@pytest.mark.parametrize("core", CORES)
def test_gcc_knows_the_features_that_the_target_lacks(core: str) -> None:
    bare = dataclasses.replace(load_target(core), dsp=False, mve=False, fpu="none")
    check = "#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)\n#error has too much\n#endif\n"
    build_elf(
        {"model.h": HEADER, "model.c": check + MODEL, "layer_copy.S": SOURCES["layer_copy.S"]}, bare, toolchain="gcc"
    )


@pytest.mark.parametrize("name", TOOLCHAINS)
def test_refused_sources_are_an_error_of_our_own(name: str) -> None:
    broken = {**SOURCES, "model.c": MODEL.replace("int32_t sum = 0;", "int32_t sum = 0; int unused;")}
    with pytest.raises(EdgepruneError, match=r"refuses the sources:\n(.|\n)*model\.c:6:.*unused") as caught:
        build_elf(broken, load_target("cortex-m4"), toolchain=name)
    assert caught.value.exit_code == 1


def test_a_firmware_beyond_the_emulated_board_is_exit_6() -> None:
    big = MODEL.replace("int edgeprune", "int8_t big[5 << 20];\nint edgeprune").replace("return 0;", "return big[0];")
    with pytest.raises(EdgepruneError, match=r"too large for the emulated board: .*overflowed by") as caught:
        build_elf({**SOURCES, "model.c": big}, load_target("cortex-m4"))
    assert caught.value.exit_code == 6


def test_file_names_are_plain() -> None:
    with pytest.raises(EdgepruneError, match="a plain file name is expected"):
        build_elf({**SOURCES, "../model2.c": ""}, load_target("cortex-m4"))


def test_only_cortex_m_has_firmware() -> None:
    with pytest.raises(UnsupportedModelError, match="there is no firmware for the core cortex-a53"):
        build_elf(SOURCES, load_target("cortex-a53"))


def test_unknown_toolchain() -> None:
    with pytest.raises(InputError, match="'armcc' is not known; allowed: zig, gcc"):
        find_toolchain("armcc")


def test_missing_zig_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain._find_zig.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install 'edgeprune\[cortex-m\]'"):
        find_toolchain("zig")


def test_missing_gcc_is_exit_6(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toolchain._find_gcc.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgepruneError, match="arm-none-eabi-gcc is not installed") as caught:
        find_toolchain("gcc")
    assert caught.value.exit_code == 6


def test_zig_gets_a_cache_where_home_is_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    toolchain.make_environment.cache_clear()
    try:
        assert Path(toolchain.make_environment()["ZIG_GLOBAL_CACHE_DIR"]).is_dir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        toolchain.make_environment.cache_clear()
        assert toolchain.make_environment()["ZIG_GLOBAL_CACHE_DIR"] == str(tmp_path / "zig")
    finally:
        toolchain.make_environment.cache_clear()
