"""Assembly text for Arm Thumb-2 functions, written so that both clang (zig) and GNU as take it.

    code = AssemblyBuilder("ep_example")
    code.enter(frame_bytes=16)
    code("ldr", "r4", at("r0", 8))
    code.label("next")
    code("subs", "r4", "r4", "#1")
    code("bne", code.local("next"))
    code.leave()
    assembly = code.build("void ep_example(const uint32_t *x)")

A function follows the procedure call standard (AAPCS): arguments in r0-r3, then on the stack (`argument`); r4-r11 are
kept. `enter` saves r4-r11 and lr, so that r0-r12 and lr are free between it and `leave`.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeprune.codegen.kernel import Assembly

_SAVED_BYTES = 4 * 9  # r4-r11, lr


class AssemblyBuilder:
    """The lines of one function. Calling it adds an instruction: `code("add", "r0", "r0", "#4")`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frame_bytes = 0
        self._lines: list[str] = []

    def __call__(self, mnemonic: str, *operands: str | int) -> None:
        self._lines.append(f"\t{mnemonic}\t{', '.join(map(str, operands))}".rstrip())

    def comment(self, text: str) -> None:
        """A remark on what follows."""
        self._lines.append(f"\t@ {text}")

    def local(self, name: str) -> str:
        """A label's name in the text: local to the function."""
        return f".L{self.name}_{name}"

    def label(self, name: str) -> None:
        """A place to branch to, as `code("b", code.local(name))`."""
        self._lines.append(f"{self.local(name)}:")

    def enter(self, frame_bytes: int = 0) -> None:
        """Save r4-r11 and lr; then `frame_bytes` (a multiple of 4) of the stack are the function's, from sp upwards."""
        self.frame_bytes = frame_bytes
        self("push", registers(["r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "lr"]))
        if frame_bytes:
            self("sub", "sp", "sp", f"#{frame_bytes}")

    def argument(self, index: int) -> str:
        """The address of argument `index` (4, 5, ...: those that came on the stack), between enter and leave."""
        return at("sp", self.frame_bytes + _SAVED_BYTES + 4 * (index - 4))

    def leave(self) -> None:
        """Give the frame back, restore the registers and return."""
        if self.frame_bytes:
            self("add", "sp", "sp", f"#{self.frame_bytes}")
        self("pop", registers(["r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "pc"]))

    def advance(self, register: str, amount: int, free: str | None = None) -> None:
        """register += amount, in as few instructions as it takes; `free`: a register to use beyond 12 bits."""
        mnemonic, magnitude = ("add", amount) if amount >= 0 else ("sub", -amount)
        if magnitude == 0:
            return
        if magnitude < 4096 or is_immediate(magnitude):
            self(mnemonic, register, register, f"#{magnitude}")
        elif free is None or is_immediate(magnitude & ~0xFFF):
            self(mnemonic, register, register, f"#{magnitude & ~0xFFF}")
            self(mnemonic, register, register, f"#{magnitude & 0xFFF}")
        else:
            self.load(free, magnitude)
            self(mnemonic, register, register, free)

    def load(self, register: str, value: int) -> None:
        """register = value, a 32-bit constant."""
        value &= 0xFFFFFFFF
        if is_immediate(value):
            self("mov", register, f"#{value}")
        elif is_immediate(~value & 0xFFFFFFFF):
            self("mvn", register, f"#{~value & 0xFFFFFFFF}")
        else:
            self("movw", register, f"#{value & 0xFFFF}")
            if value >> 16:
                self("movt", register, f"#{value >> 16}")

    def data_bytes(self, *values: str) -> None:
        """A table of bytes among the instructions (for tbb); padded to a whole halfword."""
        self._lines.append(f"\t.byte\t{', '.join(values)}")
        self._lines.append("\t.balign\t2")

    def build(self, prototype: str) -> Assembly:
        """The finished function in a section of its own, so that the linker drops it where it is not called."""
        head = [
            "\t.syntax\tunified",
            "\t.thumb",
            f'\t.section\t.text.{self.name},"ax",%progbits',
            "\t.balign\t4",
            f"\t.global\t{self.name}",
            f"\t.type\t{self.name}, %function",
            "\t.thumb_func",
            f"{self.name}:",
        ]
        tail = [f"\t.size\t{self.name}, . - {self.name}"]
        return Assembly(self.name, "\n".join([*head, *self._lines, *tail]) + "\n", prototype)


def at(register: str, offset: int = 0) -> str:
    """A memory operand.

    >>> at("r0"), at("sp", 8)
    ('[r0]', '[sp, #8]')
    """
    return f"[{register}, #{offset}]" if offset else f"[{register}]"


def registers(names: Iterable[str]) -> str:
    """A register list for ldm, stm, push, pop.

    >>> registers(["r4", "lr"])
    '{r4, lr}'
    """
    return "{" + ", ".join(names) + "}"


def is_immediate(value: int) -> bool:
    """Whether a data-processing instruction of Thumb-2 can hold this 32-bit constant (ARM DDI 0403, ThumbExpandImm).

    >>> [is_immediate(value) for value in (255, 0x3FC00, 0xAB00AB, 0xABABABAB, 0x101, 4097)]
    [True, True, True, True, False, False]
    """
    value &= 0xFFFFFFFF
    if value < 256:
        return True
    low, second = value & 0xFF, (value >> 8) & 0xFF
    if value in (low * 0x00010001, second * 0x01000100, low * 0x01010101):
        return True
    lowest_bit = (value & -value).bit_length() - 1
    return value >> lowest_bit < 256  # eight bits with the top one set, at any place
