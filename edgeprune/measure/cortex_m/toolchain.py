"""Compilers for Cortex-M: zig (pip, the default) and arm-none-eabi-gcc (when it is on PATH).

zig compiles and links all files in one call and keeps objects in its own cache (~/.cache/zig): 0.1 to 0.3 s for a small
firmware, 0.05 s when nothing changed. The first build ever for a core takes 5 to 7 s more, while zig builds its runtime
library for it. gcc compiles each file in a call of its own, two at a time.

The same sources give the same ELF in any folder: file names are relative to the folder of the build, and no debug
information is kept.
"""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeprune.errors import EdgepruneError, InputError, MeasurementUnavailableError, UnsupportedModelError
from edgeprune.gcc_flags import list_gcc_flags
from edgeprune.target import Target

RIG = ("rig.c", "rig_calls.S")
HERE = Path(__file__).resolve().parent
ZIG_INSTALL = "pip install 'edgeprune[cortex-m]'"
GCC_INSTALL = "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
# No unwinding, no stack protector: they would be bytes that a microcontroller never uses.
_CODE = (
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-ffile-prefix-map=.=",
)
_ZIG_CODE = ("-g0", "-fno-sanitize=all", "-Wno-unused-command-line-argument")
_LINK = ("-Wl,--gc-sections", "-Wl,--entry=rig_start", "-Wl,-z,max-page-size=4096", "-Wl,-T,rig.ld")


@dataclass(frozen=True)
class Toolchain:
    """A compiler that is here. name: 'zig' or 'gcc'. version: as reports print it. command: how it is called."""

    name: str
    version: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class BuiltFirmware:
    """A linked firmware with its emulation rig.

    elf: the file. toolchain: 'zig 0.17.1 (clang 22.1.8)' or 'arm-none-eabi-gcc 12.2.1'. flags: the compiler's.
    """

    elf: bytes
    toolchain: str
    flags: tuple[str, ...]


def find_toolchain(name: str) -> Toolchain:
    """The compiler of that name, 'zig' or 'gcc'.

    Raises InputError where the package for zig is missing, or for another name; MeasurementUnavailableError where
    arm-none-eabi-gcc is not on PATH.
    """
    if name == "zig":
        return _find_zig()
    if name == "gcc":
        return _find_gcc()
    raise InputError(f"toolchain {name!r} is not known; allowed: zig, gcc")


def build_elf(
    sources: Mapping[str, str | bytes],
    target: Target,
    *,
    toolchain: str = "zig",
    optimize: str = "-Os",
    extra_flags: Sequence[str] = (),
    work: Path | None = None,
) -> BuiltFirmware:
    """Compile and link a model's firmware with the emulation rig.

    sources: file name -> content, of .c, .S and .h files; model.h must declare `edgeprune_model_run` and define
        EDGEPRUNE_MODEL_INPUT_BYTES, _OUTPUT_BYTES and _ARENA_BYTES.
    target: the core and its instruction sets. optimize, extra_flags: for the compiler.
    work: a folder for the sources and objects, which stay there; a temporary one by default.
    Raises what `find_toolchain` raises; EdgepruneError with the compiler's first lines where it refuses the sources;
    MeasurementUnavailableError where the firmware is larger than the emulated board's memory (M55: 2 MB, others 64 MB).
    """
    found = find_toolchain(toolchain)
    flags = (*_core_flags(found.name, target), optimize, *WARNINGS, *_CODE, *extra_flags)
    with nullcontext(str(work)) if work is not None else tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        units = _write_sources(Path(folder), sources, target)
        link = _link_with_zig if found.name == "zig" else _link_with_gcc
        elf = link(found, flags, units, Path(folder))
    return BuiltFirmware(elf, found.version, flags)


def _write_sources(folder: Path, sources: Mapping[str, str | bytes], target: Target) -> tuple[str, ...]:
    """Put all files into the folder, the rig and its linker script too; answers the names to compile."""
    folder.mkdir(parents=True, exist_ok=True)
    memory = "mps3.ld" if target.core == "cortex-m55" else "mps2.ld"
    rig = {
        **{name: (HERE / name).read_text(encoding="utf-8") for name in RIG},
        "rig.ld": "".join((HERE / name).read_text(encoding="utf-8") for name in (memory, "sections.ld")),
    }
    for name, content in {**sources, **rig}.items():
        if PurePosixPath(name).name != name:
            raise EdgepruneError(f"firmware source {name!r}: a plain file name is expected")
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    return tuple(name for name in sorted({*sources, *RIG}) if name.endswith((".c", ".S")))


def _link_with_zig(zig: Toolchain, flags: tuple[str, ...], units: tuple[str, ...], folder: Path) -> bytes:
    # for -Os itself zig's linker drops the symbols, by which layers are counted; so clang alone is told of it
    own = [word for flag in flags for word in (("-O2", "-Xclang", flag) if flag in ("-Os", "-Oz") else (flag,))]
    run_compiler([*zig.command, *own, *_ZIG_CODE, *units, *_LINK, "-o", "firmware.elf"], folder)
    return (folder / "firmware.elf").read_bytes()


def _link_with_gcc(gcc: Toolchain, flags: tuple[str, ...], units: tuple[str, ...], folder: Path) -> bytes:
    objects = [f"{unit}.o" for unit in units]
    with ThreadPoolExecutor(2) as pool:
        commands = [[*gcc.command, *flags, "-c", unit, "-o", name] for unit, name in zip(units, objects, strict=True)]
        for _ in pool.map(lambda command: run_compiler(command, folder), commands):
            pass
    libraries = ("-nostartfiles", "-nodefaultlibs", "-Wl,--start-group", "-lc", "-lgcc", "-Wl,--end-group")
    run_compiler([*gcc.command, *flags, *objects, *_LINK, *libraries, "-o", "firmware.elf"], folder)
    return (folder / "firmware.elf").read_bytes()


def run_compiler(command: Sequence[str], folder: Path) -> None:
    """Call a compiler in a folder. Raises EdgepruneError with its first lines where it refuses the sources.

    MeasurementUnavailableError where a linker script has less memory than the firmware takes.
    """
    result = subprocess.run(
        command, cwd=folder, env=make_environment(), capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode != 0:
        lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
        too_large = next((line for line in lines if "overflowed by" in line), None)
        if too_large is not None:
            raise MeasurementUnavailableError(f"the firmware is too large for the emulated board: {too_large.strip()}")
        first = "\n".join(lines[:12])
        raise EdgepruneError(f"{Path(command[0]).name} refuses the sources:\n{first}")


@functools.cache
def make_environment() -> dict[str, str]:
    """This process's environment, with a cache folder for zig that it can write to: without one zig waits for ever.

    Where the home folder is read-only it is a temporary one that ends with this process.
    """
    environment = dict(os.environ)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", ""), ".cache")
    cache = environment.setdefault("ZIG_GLOBAL_CACHE_DIR", os.path.join(home, "zig"))
    try:
        os.makedirs(cache, exist_ok=True)
        writable = os.path.isabs(cache) and os.access(cache, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        environment["ZIG_GLOBAL_CACHE_DIR"] = temporary = tempfile.mkdtemp(prefix="edgeprune-zig-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return environment


@functools.cache
def _find_zig() -> Toolchain:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise InputError(f"the toolchain 'zig' needs ziglang, which is not installed: {ZIG_INSTALL}")
    # the program itself: `python -m ziglang` would start a second Python each time
    program = Path(spec.origin).parent / "zig"
    command = (str(program), "cc")
    clang = re.search(r"clang version (\S+)", _ask([*command, "--version"]))
    version = f"zig {importlib.metadata.version('ziglang')} (clang {clang.group(1) if clang else 'unknown'})"
    return Toolchain("zig", version, command)


@functools.cache
def _find_gcc() -> Toolchain:
    program = shutil.which("arm-none-eabi-gcc")
    if program is None:
        raise MeasurementUnavailableError(
            f"arm-none-eabi-gcc is not installed (not on PATH): {GCC_INSTALL}, or use --toolchain zig"
        )
    version = _ask([program, "-dumpfullversion"]).strip()
    return Toolchain("gcc", f"arm-none-eabi-gcc {version}", (program, "-mthumb"))


def _ask(command: Sequence[str]) -> str:
    """What a program prints."""
    return subprocess.run(
        command, env=make_environment(), capture_output=True, text=True, errors="replace", check=False
    ).stdout


def _core_flags(toolchain: str, target: Target) -> tuple[str, ...]:
    """What tells a compiler the core and which of its options the chip has."""
    if target.core not in _ZIG_CORES:
        raise UnsupportedModelError(
            f"target {target.name}: there is no firmware for the core {target.core}; allowed: {', '.join(_ZIG_CORES)}"
        )
    return _zig_core_flags(target) if toolchain == "zig" else list_gcc_flags(target)


# zig: core -> (its name, {fpu: the features that zig leaves out unless asked})
_ZIG_CORES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cortex-m0plus": ("cortex_m0plus", {}),
    "cortex-m3": ("cortex_m3", {}),
    "cortex-m4": ("cortex_m4", {"single": "+vfp4d16sp"}),
    "cortex-m7": ("cortex_m7", {"single": "+fp_armv8d16sp", "double": "+fp_armv8d16"}),
    "cortex-m33": ("cortex_m33", {"single": "+fp_armv8d16sp"}),
    "cortex-m55": ("cortex_m55", {"single": "+fp_armv8d16sp", "double": "+fp_armv8d16"}),
}


def _zig_core_flags(target: Target) -> tuple[str, ...]:
    name, fpus = _ZIG_CORES[target.core]
    fpu = fpus.get(target.fpu or "none", "")
    features = fpu
    if target.core in ("cortex-m33", "cortex-m55"):
        features += "+dsp" if target.dsp else "-dsp"
    if target.core == "cortex-m55" and target.mve:
        features += "+mve_fp" if fpu else "+mve"
    return ("-target", f"thumb-freestanding-eabi{'hf' if fpu else ''}", f"-mcpu={name}{features}")
