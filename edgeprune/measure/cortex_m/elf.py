"""What an ELF file says: segments to load, symbols, and the bytes that the model brings.

The rig's own code, stack and buffers lie in sections named .rig* and never count. What the linker took from the
compiler's runtime library (memcpy, __aeabi_*) counts as the model's: a user's firmware has it too.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from edgeprune.errors import EdgepruneError, InputError

INSTALL = "pip install 'edgeprune[cortex-m]'"


@dataclass(frozen=True)
class Symbol:
    """A function or an object: its address (without the Thumb bit), its size in bytes, the section it lies in."""

    name: str
    address: int
    size: int
    is_function: bool
    section: str

    @property
    def is_rig(self) -> bool:
        return self.section.startswith(".rig")


@dataclass(frozen=True)
class FirmwareSizes:
    """Bytes that the model's code and constants take; the rig's are left out.

    text: code. rodata: constants. data: initialised variables (they take flash and RAM). bss: zeroed variables.
    symbols: size of each function and object, largest first.
    """

    text: int
    rodata: int
    data: int
    bss: int
    symbols: tuple[Symbol, ...] = ()

    @property
    def flash_bytes(self) -> int:
        return self.text + self.rodata + self.data


@dataclass(frozen=True)
class FirmwareImage:
    """An ELF taken apart. segments: (address, bytes) to load. memory: (start, end) of all that takes address space."""

    segments: tuple[tuple[int, bytes], ...]
    symbols: tuple[Symbol, ...]
    addresses: dict[str, int]
    sizes: FirmwareSizes
    functions: tuple[Symbol, ...] = ()
    _starts: list[int] = field(default_factory=list, repr=False)

    def read_code(self, address: int, size: int) -> bytes:
        """Bytes of the loaded file."""
        for start, data in self.segments:
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise EdgepruneError(f"the firmware has no code at {address:#010x}")

    def get_function(self, name: str) -> Symbol:
        """The function of that name. Raises EdgepruneError where there is none."""
        for function in self.functions:
            if function.name == name:
                return function
        raise EdgepruneError(f"the firmware has no function {name}")

    def find_function(self, address: int) -> str:
        """The name of the function that an address lies in; '?' where none is.

        Where several names stand for one address, it is the shortest of them (memcpy, not compiler_rt.memcpy).
        """
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return "?"
        function = self.functions[index]
        return function.name if address < function.address + max(function.size, 1) else "?"


def read_elf(elf: bytes) -> FirmwareImage:
    """Take a linked firmware apart. Raises InputError where pyelftools is missing."""
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise InputError(f"firmware needs pyelftools, which is not installed: {INSTALL}") from error
    file = ELFFile(io.BytesIO(elf))
    segments = tuple(
        (segment["p_vaddr"], segment.data())
        for segment in file.iter_segments()
        if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
    )
    symbols = _read_symbols(file)
    functions = _choose_functions(symbols)
    return FirmwareImage(
        segments=segments,
        symbols=symbols,
        addresses={symbol.name: symbol.address for symbol in symbols},
        sizes=_measure_sizes(file, symbols),
        functions=functions,
        _starts=[function.address for function in functions],
    )


def _read_symbols(file: Any) -> tuple[Symbol, ...]:
    table = file.get_section_by_name(".symtab")
    names = [section.name for section in file.iter_sections()]
    found = []
    for entry in table.iter_symbols():
        kind, index = entry["st_info"]["type"], entry["st_shndx"]
        if not entry.name or entry.name.startswith("$") or kind in ("STT_FILE", "STT_SECTION"):
            continue
        is_function = kind == "STT_FUNC"
        section = names[index] if isinstance(index, int) else ""
        address = entry["st_value"] & ~1 if is_function else entry["st_value"]
        found.append(Symbol(entry.name, address, entry["st_size"], is_function, section))
    return tuple(sorted(found, key=lambda symbol: (symbol.address, symbol.name)))


def _choose_functions(symbols: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
    """One function for each address: of several names the shortest."""
    chosen: dict[int, Symbol] = {}
    for symbol in symbols:
        if symbol.is_function:
            known = chosen.get(symbol.address)
            if known is None or (len(symbol.name), symbol.name) < (len(known.name), known.name):
                chosen[symbol.address] = symbol
    return tuple(chosen[address] for address in sorted(chosen))


def _measure_sizes(file: Any, symbols: tuple[Symbol, ...]) -> FirmwareSizes:
    sizes = dict.fromkeys((".text", ".rodata", ".data", ".bss"), 0)
    for section in file.iter_sections():
        if section.name in sizes:
            sizes[section.name] += section["sh_size"]
    named: dict[tuple[int, str], Symbol] = {}
    for symbol in symbols:
        if symbol.section in sizes and symbol.size:
            known = named.get((symbol.address, symbol.section))
            if known is None or (len(symbol.name), symbol.name) < (len(known.name), known.name):
                named[symbol.address, symbol.section] = symbol
    ordered = tuple(sorted(named.values(), key=lambda symbol: (-symbol.size, symbol.name)))
    return FirmwareSizes(sizes[".text"], sizes[".rodata"], sizes[".data"], sizes[".bss"], ordered)
