"""Thumb instructions, decoded by capstone once per block and put into the few kinds that cycle rules speak of."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.measure.cortex_m.elf import INSTALL


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    kind: 'load', 'store' (a single one), 'load_many', 'store_many' (LDM, LDRD, POP, ...), 'multiply' (32-bit result),
        'multiply_add', 'multiply_long', 'multiply_add_long' (64-bit result), 'divide', 'branch' (B, BX, MOV PC),
        'call' (BL, BLX), 'table_branch', 'it', 'float_divide', 'float_multiply_add', 'float_load', 'float_store',
        'other'.
    words: 32-bit words that a load or store of many moves. base: the address register. writes_back: it is changed.
    indexed: the address has a register offset. conditional: B<cc>, CBZ, or in an IT block. writes_pc: ends a block.
    """

    address: int
    size: int
    name: str
    text: str
    kind: str
    words: int = 0
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    base: str = ""
    writes_back: bool = False
    indexed: bool = False
    conditional: bool = False
    writes_pc: bool = False


def count_instructions(code: bytes) -> int:
    """How many Thumb instructions these bytes hold.

    A first halfword of 0b11101, 0b11110 or 0b11111 and more begins a 32-bit instruction (Armv7-M manual, A5.1).

    >>> count_instructions(bytes.fromhex("0846 c1fb0223 7047"))
    3
    """
    count = at = 0
    while at < len(code):
        at += 4 if code[at + 1] >= 0xE8 else 2
        count += 1
    return count


def decode_block(code: bytes, address: int) -> tuple[Instruction, ...]:
    """The instructions of a block.

    Raises EdgepruneError for bytes that capstone does not know, InputError where it is missing.
    """
    decoder = _make_decoder()
    found = tuple(_describe(decoded) for decoded in decoder.disasm(code, address))
    decoded_bytes = sum(instruction.size for instruction in found)
    if decoded_bytes != len(code):
        at = address + decoded_bytes
        raise EdgepruneError(f"capstone does not know the instruction at {at:#010x}: {code[decoded_bytes:][:4].hex()}")
    return found


@functools.cache
def _make_decoder() -> Any:
    try:
        import capstone
    except ImportError as error:
        raise InputError(f"modelled cycles need capstone, which is not installed: {INSTALL}") from error
    mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, mode)
    decoder.detail = True
    return decoder


_LOAD_MANY = ("ldm", "ldmdb", "ldrd", "pop", "vldmia", "vldmdb", "vpop")
_STORE_MANY = ("stm", "stmdb", "strd", "push", "vstmia", "vstmdb", "vpush")
_KINDS = {
    **dict.fromkeys(_LOAD_MANY, "load_many"),
    **dict.fromkeys(_STORE_MANY, "store_many"),
    **dict.fromkeys(("sdiv", "udiv"), "divide"),
    **dict.fromkeys(("b", "bx", "cbz", "cbnz"), "branch"),
    **dict.fromkeys(("bl", "blx"), "call"),
    **dict.fromkeys(("tbb", "tbh"), "table_branch"),
    **dict.fromkeys(("smull", "umull"), "multiply_long"),
    **dict.fromkeys(("mla", "mls"), "multiply_add"),
    **dict.fromkeys(("vdiv", "vsqrt"), "float_divide"),
    "vldr": "float_load",
    "vstr": "float_store",
    "it": "it",
}
# first match wins: smlal and umlal before the shorter stems
_STEMS = (
    (("smlal", "umlal", "umaal", "smlsld"), "multiply_add_long"),
    (("mul", "smul", "smua", "smus", "smmul"), "multiply"),
    (("smla", "smls", "smml"), "multiply_add"),
    (("vmla", "vmls", "vfma", "vfms", "vnmla", "vnmls", "vfnma", "vfnms"), "float_multiply_add"),
    (("ldr",), "load"),
    (("str",), "store"),
)


def _find_kind(name: str) -> str:
    if name in _KINDS:
        return _KINDS[name]
    return next((kind for stems, kind in _STEMS if name.startswith(stems)), "other")


def _describe(decoded: Any) -> Instruction:
    from capstone import arm

    name = decoded.insn_name()
    kind = _find_kind(name)
    registers = [decoded.reg_name(item.reg) for item in decoded.operands if item.type == arm.ARM_OP_REG]
    memory = next((item.mem for item in decoded.operands if item.type == arm.ARM_OP_MEM), None)
    reads, writes = _find_accesses(decoded, kind, registers)
    moves_into_pc = name in ("mov", "add", "ldr") and registers[:1] == ["pc"]
    jumps = kind in ("branch", "call", "table_branch") or moves_into_pc or (kind == "load_many" and "pc" in registers)
    return Instruction(
        address=decoded.address,
        size=decoded.size,
        name=name,
        text=f"{decoded.mnemonic} {decoded.op_str}".strip(),
        kind="branch" if moves_into_pc and name != "ldr" else kind,
        words=_count_words(name, kind, registers),
        reads=reads,
        writes=writes,
        base=_find_base(decoded, memory, kind, registers),
        writes_back=bool(decoded.writeback),
        indexed=memory is not None and memory.index != 0,
        conditional=decoded.cc not in (0, arm.ARM_CC_AL) or name in ("cbz", "cbnz"),
        writes_pc=jumps,
    )


def _find_accesses(decoded: Any, kind: str, registers: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Registers read and written. Capstone 5 leaves out some sources (PKHBT's second, SMLAL's accumulator)."""
    read, written = decoded.regs_access()
    reads = {decoded.reg_name(register) for register in read}
    writes = {decoded.reg_name(register) for register in written}
    if kind == "multiply_add_long":
        reads.update(registers)
    elif kind == "other" or kind.startswith("multiply"):
        reads.update(registers[1:])
    return frozenset(reads), frozenset(writes)


def _count_words(name: str, kind: str, registers: list[str]) -> int:
    if kind not in ("load_many", "store_many"):
        return 0
    if name in ("ldrd", "strd"):
        return 2
    moved = registers if name in ("push", "pop", "vpush", "vpop") else registers[1:]
    return sum(2 if register.startswith("d") else 1 for register in moved)


def _find_base(decoded: Any, memory: Any, kind: str, registers: list[str]) -> str:
    if memory is not None:
        return str(decoded.reg_name(memory.base))
    if kind in ("load_many", "store_many"):
        return registers[0] if decoded.insn_name() in ("ldm", "ldmdb", "stm", "stmdb") else "sp"
    return ""
