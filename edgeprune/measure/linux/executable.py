"""The model as a static Linux program: portable C, a main that runs and times it (bench.c), musl, linked by zig.

Nothing need be installed on the device: no Python, no library, no loader.

Which cores it runs on is what its instructions need. `aarch64` is generic Armv8-A, and takes SDOT in the model's
layers where the target says dotprod: such a program ends in SIGILL on a core without it, so it says so in `requires`,
by the names that /proc/cpuinfo has for it. `armv7` is Armv7-A with NEON and the hard-float ABI, for 32-bit systems; it
never depends on the target, since 32-bit systems run on cores of every age. The C library is the generic one in all of
them: zig builds it once per architecture (a minute of CPU, kept in its cache), not once per core.

The same sources give the same bytes in any folder: file names are relative, no symbols, no debug information.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.measure.cortex_m.toolchain import WARNINGS, find_toolchain, run_compiler
from edgeprune.target import Target

BENCH = "bench.c"
# architecture -> what zig calls it; x86_64 is no target, but where the way over ssh can be tried
_ZIG_TARGETS: Mapping[str, str] = {
    "aarch64": "aarch64-linux-musl",
    "armv7": "arm-linux-musleabihf",
    "x86_64": "x86_64-linux-musl",
}
ARM_ARCHITECTURES = ("aarch64", "armv7")
DOTPROD = "asimddp"  # SDOT and UDOT in /proc/cpuinfo: Linux, Documentation/arch/arm64/elf_hwcaps.rst
_CODE = (
    "-O3",
    *WARNINGS,
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-ffile-prefix-map=.=",
    "-g0",
)
_LINK = ("-static", "-Wl,--gc-sections")
INSTALL = "pip install 'edgeprune[cortex-m]'"


@dataclass(frozen=True)
class Executable:
    """A program that a Linux device runs as it is.

    content: the ELF file. architecture: 'aarch64', 'armv7' or 'x86_64'. toolchain: 'zig 0.17.1 (clang 22.1.8)'.
    flags: the compiler's. requires: words that "Features" of /proc/cpuinfo must have, else it ends in SIGILL.
    """

    content: bytes
    architecture: str
    toolchain: str
    flags: tuple[str, ...]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExecutableSizes:
    """Bytes of a program, C library included. file: on disk; text, rodata, data, bss: in memory.

    ram_bytes: what it may write to, data and bss; the arena is in it. The stack and what the inputs take are not.
    """

    file: int
    text: int
    rodata: int
    data: int
    bss: int

    @property
    def ram_bytes(self) -> int:
        return self.data + self.bss


def build_executable(
    sources: Mapping[str, str],
    architecture: str,
    *,
    target: Target | None = None,
    keep_symbols: bool = False,
    work: Path | None = None,
) -> Executable:
    """Compile a model's portable C and bench.c into a static program.

    sources: file name -> text of .c and .h files: `Firmware.compiled_files` of generate_firmware(..., portable=True).
    architecture: 'aarch64', 'armv7' or 'x86_64'. target: the core whose instructions it may use; None: any Armv8-A.
    keep_symbols: for those who look into it; paths of this machine come with the C library's. work: a folder for the
    sources, which stay there; a temporary one by default.
    Raises InputError where ziglang is missing or the architecture is not known; EdgepruneError with the compiler's
    first lines where it refuses the sources.
    """
    if architecture not in _ZIG_TARGETS:
        raise InputError(f"architecture {architecture!r} is not known; allowed: {', '.join(_ZIG_TARGETS)}")
    zig = find_toolchain("zig")
    features, requires = _choose_features(architecture, target)
    flags = ("-target", _ZIG_TARGETS[architecture], *features, *_CODE)
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as temporary:
        folder = work or Path(temporary)
        units = _write_sources(folder, sources)
        strip = () if keep_symbols else ("-s",)
        run_compiler([*zig.command, *flags, *units, *_LINK, *strip, "-o", "bench"], folder)
        content = (folder / "bench").read_bytes()
    return Executable(content, architecture, zig.version, flags, requires)


def _choose_features(architecture: str, target: Target | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compiler flags for what the core has beyond its architecture's baseline, and what the device must then have.

    Told to clang itself: zig's own -mcpu would build the C library anew for each core.
    """
    if architecture == "aarch64" and target is not None and target.dotprod:
        return ("-Xclang", "-target-feature", "-Xclang", "+dotprod"), (DOTPROD,)
    return (), ()


def _write_sources(folder: Path, sources: Mapping[str, str]) -> tuple[str, ...]:
    """Put all files into the folder, bench.c too; answers the names to compile."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {**sources, BENCH: read_bench()}
    for name, text in files.items():
        if PurePosixPath(name).name != name or not name.endswith((".c", ".h")):
            raise EdgepruneError(f"source {name!r}: a plain name of a .c or .h file is expected")
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(name for name in sorted(files) if name.endswith(".c"))


def read_bench() -> str:
    """bench.c, the main program."""
    return (Path(__file__).resolve().parent / BENCH).read_text(encoding="utf-8")


def has_same_code(first: bytes, second: bytes) -> bool:
    """Whether two programs load the same bytes at the same addresses, whatever symbols they carry."""
    return _list_loaded(first) == _list_loaded(second)


def _list_loaded(content: bytes) -> list[tuple[int, bytes]]:
    from elftools.elf.elffile import ELFFile

    sections = ELFFile(io.BytesIO(content)).iter_sections()
    return [
        (section["sh_addr"], section.data())
        for section in sections
        if section["sh_flags"] & 2 and section["sh_type"] != "SHT_NOBITS"  # SHF_ALLOC
    ]


def measure_executable(content: bytes) -> ExecutableSizes:
    """Sizes that the ELF file states. Raises InputError where pyelftools is missing."""
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise InputError(f"executables need pyelftools, which is not installed: {INSTALL}") from error
    sizes = dict.fromkeys((".text", ".rodata", ".data", ".bss"), 0)
    for section in ELFFile(io.BytesIO(content)).iter_sections():
        if section.name in sizes:
            sizes[section.name] += section["sh_size"]
    return ExecutableSizes(len(content), *sizes.values())
