"""Bytes of generated Thumb-2 assembly without an assembler: which instructions have a 16-bit form.

In the unified syntax an assembler takes the short form wherever there is one and no `.w` forbids it (Armv7-M
Architecture Reference Manual, ARM DDI 0403, A7.7). The rules below are those of the instructions that the generated
kernels use; everything else, the DSP extension and Helium above all, has 32 bits only. Branches are taken for short
ones: where they are not, the function is longer by two bytes each.
"""

from __future__ import annotations

import re
from functools import lru_cache

_CONDITIONS = ("eq", "ne", "hs", "cs", "lo", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")
_SHORT = 2
_LONG = 4
_BRANCHES = frozenset({"b", "bx", "blx", "cbz", "cbnz", *(f"b{condition}" for condition in _CONDITIONS)})
# two or three low registers, or one with an immediate; these set flags, as the short form outside of IT blocks does
_FLAG_SETTING = frozenset({"ands", "orrs", "eors", "bics", "mvns", "muls", "rsbs", "adcs", "sbcs", "rors"})
_SHIFTS = frozenset({"lsls", "lsrs", "asrs"})
_EXTENDS = frozenset({"sxtb", "sxth", "uxtb", "uxth", "rev"})
# short loads and stores of low registers: bytes of an access, the largest immediate
_LOADS = {"ldr": (4, 124), "str": (4, 124), "ldrb": (1, 31), "strb": (1, 31), "ldrh": (2, 62), "strh": (2, 62)}
_REGISTER_LOADS = frozenset({*_LOADS, "ldrsb", "ldrsh"})
_NUMBERS = {"sp": 13, "lr": 14, "pc": 15, "ip": 12}


@lru_cache(maxsize=4096)
def count_thumb_bytes(text: str) -> int:
    """The bytes of a generated function.

    >>> count_thumb_bytes("\\tadds\\tr0, r0, r1\\n\\tsmlad\\tr0, r1, r2, r0\\n\\tbx\\tlr\\n")
    8
    """
    total = 0
    for line in text.splitlines():
        words = line.split("@")[0].split(None, 1)
        if not words or words[0].endswith(":"):
            continue
        operands = words[1].strip() if len(words) > 1 else ""
        if words[0] == ".byte":
            total += -(-len(operands.split(",")) // 2) * 2
        elif not words[0].startswith("."):
            total += _SHORT if _is_short(words[0], operands) else _LONG
    return total


def _is_short(mnemonic: str, operands: str) -> bool:
    if mnemonic.endswith(".w") or mnemonic.startswith("v"):
        return False
    if mnemonic in _BRANCHES or re.fullmatch("it[te]*", mnemonic):
        return True
    for condition in _CONDITIONS:  # in an IT block; the short forms there set no flags, as their names say
        stem = mnemonic.removesuffix(condition)
        if stem != mnemonic and stem in ("add", "sub", "mov", "cmp", *_REGISTER_LOADS):
            return _is_short({"add": "adds", "sub": "subs"}.get(stem, stem), operands)
    if mnemonic in ("push", "pop", "ldm", "stm", "ldmia", "stmia"):
        return _is_short_list(mnemonic, operands)
    if mnemonic in _REGISTER_LOADS:
        return _is_short_load(mnemonic, operands)
    parts = [part.strip() for part in operands.split(",")]
    if any(part.startswith(("lsl", "lsr", "asr", "ror")) for part in parts[1:]):
        return False
    return _is_short_arithmetic(mnemonic, parts)


def _is_short_arithmetic(mnemonic: str, parts: list[str]) -> bool:
    numbers, immediate = [_find_number(part) for part in parts if not part.startswith("#")], _find_immediate(parts[-1])
    low = all(number < 8 for number in numbers)
    in_place = len(numbers) < 2 or numbers[0] == numbers[1]
    if mnemonic == "mov":
        return immediate is None
    if mnemonic == "movs":
        return low and (immediate is None or 0 <= immediate < 256)
    if mnemonic in ("add", "sub"):
        if immediate is not None:
            if 13 in numbers:
                return immediate % 4 == 0 and (
                    (in_place and immediate < 512) or (mnemonic == "add" and numbers[0] < 8 and immediate < 1024)
                )
            return False
        return mnemonic == "add" and in_place
    if mnemonic in ("adds", "subs"):
        return low and (immediate is None or immediate < (256 if in_place else 8))
    if mnemonic in ("cmp", "tst", "cmn"):
        return (immediate is None and (low or mnemonic == "cmp")) or (
            mnemonic == "cmp" and low and (immediate or 0) < 256
        )
    if mnemonic in _SHIFTS:
        return low and (immediate is not None or in_place)
    if mnemonic in _FLAG_SETTING:
        return (
            low and (in_place or mnemonic == "rsbs") and (immediate is None or (mnemonic == "rsbs" and immediate == 0))
        )
    return mnemonic in _EXTENDS and low and len(parts) == 2


def _is_short_list(mnemonic: str, operands: str) -> bool:
    names = re.findall(r"\w+", operands[operands.index("{") :]) if "{" in operands else []
    numbers = {_find_number(name) for name in names}
    if mnemonic in ("push", "pop"):
        return all(number < 8 or number == (14 if mnemonic == "push" else 15) for number in numbers)
    base, writes_back = _find_number(operands.split(",")[0].strip(" !")), "!" in operands
    if max(numbers, default=0) > 7 or base > 7:
        return False
    return writes_back != (base in numbers) if mnemonic.startswith("ldm") else writes_back


def _is_short_load(mnemonic: str, operands: str) -> bool:
    match = re.fullmatch(r"(\w+), \[(\w+)(?:, (#-?\w+|\w+))?\]", operands)
    if match is None:  # writes back, or shifts
        return False
    register, base, offset = _find_number(match[1]), _find_number(match[2]), match[3]
    immediate = 0 if offset is None else _find_immediate(offset)
    if immediate is None:
        return max(register, base, _find_number(offset)) < 8
    if mnemonic not in _LOADS or register > 7:
        return False
    size, most = _LOADS[mnemonic]
    if base == 13:
        return size == 4 and 0 <= immediate <= 1020 and immediate % 4 == 0
    return base < 8 and 0 <= immediate <= most and immediate % size == 0


def _find_number(register: str) -> int:
    return _NUMBERS.get(register, int(register[1:]) if re.fullmatch(r"r\d+", register) else 16)


def _find_immediate(text: str) -> int | None:
    return int(text[1:], 0) if re.fullmatch(r"#-?\w+", text) else None
