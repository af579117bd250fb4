"""Modelled cycles: rules by which a block of instructions is given a number of cycles. Nothing here was measured.

The rules are frozen: kernels are tuned against them, never the other way round. Memory answers without wait states, and
a block knows nothing of the one before it. Taken and not taken branches are counted exactly (counting.py).

**Cortex-M4** (Arm 100166, Cortex-M4 Technical Reference Manual, table 3-1 and section 3.3.3 "Load/store timings"):
  - data processing, saturation, packing, multiplications of all kinds (also 64-bit): 1; division 2 to 12: 8 here
  - LDR 2; right after another LDR 1 ("one cycle is removed from the cost of the next")
  - STR with an immediate offset 1 ("always one cycle"); with a register offset 2, right after an LDR 1
  - LDM, STM, LDRD, STRD, PUSH, POP: 1 + N words
  - B, BL, BX, BLX, conditional branches and CBZ when taken: 1 + P; not taken 1. P ("between 1 and 3") is 2 here
  - POP and LDM with PC 1 + N + P; LDR PC 2 + P; TBB, TBH 2 + P
  - IT 1 (it may be folded to 0); an instruction in an IT block costs the same whether executed or not
  - VDIV, VSQRT 14; VMLA, VFMA 3; VLDR like LDR; VSTR 2, after a load or another VSTR 1; other floating point 1
  Left out, all of it optimistic: flash wait states; unaligned accesses (1 or 2 more); P of 3; one more cycle where an
  address was computed by the instruction just before, or loaded by the LDR just before (together 0.02 to 0.9 % of the
  cycles of six networks' firmware made by edgeprune).
  Validated against boards on kernels of others: see cycle_validation.py.

**Cortex-M3** (Arm 100165, Cortex-M3 TRM, table 3-1): as M4 but MLA, MLS 2; SMULL, UMULL 3 to 5: 5 here; SMLAL, UMLAL 4
  to 7: 7 here (early termination is not modelled: pessimistic).

**Cortex-M0+** (Arm DDI 0484, Cortex-M0+ TRM, table 3-1, fast multiplier, AHB memory): 1; LDR, STR 2; LDM, STM, PUSH,
  POP 1 + N, POP with PC 3 + N; B, BX, BLX and MOV PC 2, a conditional branch not taken 1; BL 3; DSB, MRS 3.

**Cortex-M33** (no cycle table is published): every instruction 1; LDM and STM N; a value used right after its load 1
  more; taken branches + 2; division 6.

**Cortex-M7** (none is published either): in-order pairs of independent neighbours, one multiplication and one store per
  pair, loads and multiplications usable after 2 cycles, branches predicted. This and M33's are rough.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from edgeprune.measure.cortex_m.instructions import Instruction

REFILL = 2  # P, cycles to refill the pipeline after a taken branch


class CycleModel(ABC):
    """One core's rules."""

    @abstractmethod
    def count(self, block: Sequence[Instruction], taken: bool) -> int:
        """Cycles of one pass. taken: where the block ends in a conditional jump, whether it is taken."""


def _is_jump(instruction: Instruction, taken: bool) -> bool:
    return instruction.writes_pc and (taken or not instruction.conditional)


class CortexM4(CycleModel):
    """Armv7E-M with a single-cycle multiplier."""

    other: Mapping[str, int] = {"divide": 8, "float_divide": 14, "float_multiply_add": 3}

    def count(self, block: Sequence[Instruction], taken: bool) -> int:
        total = 0
        before = ""
        for instruction in block:
            total += self._count_one(instruction, before, taken)
            before = instruction.kind
        return total

    def _count_one(self, instruction: Instruction, before: str, taken: bool) -> int:
        if instruction.writes_pc and not _is_jump(instruction, taken):
            return 1
        refill = REFILL if instruction.writes_pc else 0
        after_load = before in ("load", "float_load")
        match instruction.kind:
            case "load" | "float_load":
                cycles = 1 if after_load and not instruction.writes_pc else 2
            case "store":
                cycles = 2 if instruction.indexed and before != "load" else 1
            case "float_store":
                cycles = 1 if after_load or before == "float_store" else 2
            case "load_many" | "store_many":
                cycles = 1 + instruction.words
            case "table_branch":
                cycles = 2
            case kind:
                cycles = self.other.get(kind, 1)
        return cycles + refill


class CortexM3(CortexM4):
    """Armv7-M: the same pipeline, a slower multiplier."""

    other: Mapping[str, int] = {"divide": 8, "multiply_add": 2, "multiply_long": 5, "multiply_add_long": 7}


class CortexM0Plus(CycleModel):
    """Armv6-M, two-stage pipeline."""

    def count(self, block: Sequence[Instruction], taken: bool) -> int:
        return sum(self._count_one(instruction, taken) for instruction in block)

    def _count_one(self, instruction: Instruction, taken: bool) -> int:
        match instruction.kind:
            case "load" | "store":
                return 2
            case "load_many" | "store_many":
                return instruction.words + (3 if instruction.writes_pc else 1)
            case "call":
                return 3 if instruction.name == "bl" else 2
            case "branch":
                return 2 if _is_jump(instruction, taken) else 1
            case _:
                return 3 if instruction.name in ("dsb", "dmb", "isb", "mrs", "msr") else 1


class CortexM33(CycleModel):
    """Armv8-M Mainline, three-stage pipeline; indicative."""

    other: Mapping[str, int] = {"divide": 6, "float_divide": 14, "float_multiply_add": 3, "table_branch": 2}

    def count(self, block: Sequence[Instruction], taken: bool) -> int:
        total = 0
        loaded: frozenset[str] = frozenset()
        for instruction in block:
            total += 1 if loaded & instruction.reads else 0
            if instruction.writes_pc and not _is_jump(instruction, taken):
                total += 1
                continue  # it ends the block
            many = instruction.kind in ("load_many", "store_many")
            total += instruction.words if many else self.other.get(instruction.kind, 1)
            total += REFILL if instruction.writes_pc else 0
            loaded = frozenset()
            if instruction.kind in ("load", "float_load"):
                loaded = instruction.writes - ({instruction.base} if instruction.writes_back else set())
        return total


class CortexM7(CycleModel):
    """Armv7E-M, in-order dual issue; indicative."""

    other: Mapping[str, int] = {"divide": 7, "float_divide": 14}

    def count(self, block: Sequence[Instruction], taken: bool) -> int:
        now = at = 0
        ready: dict[str, int] = {}

        def wait_for(instruction: Instruction) -> int:
            return max((ready.get(register, 0) for register in instruction.reads), default=0)

        def issue(instruction: Instruction) -> None:
            slow = "load" in instruction.kind or instruction.kind.startswith("multiply")
            for register in instruction.writes:
                is_address = instruction.writes_back and register == instruction.base
                ready[register] = now + (2 if slow and not is_address else 1)

        while at < len(block):
            first = block[at]
            now = max(now, wait_for(first))
            issue(first)
            cycles = self._count_alone(first)
            if cycles == 1 and at + 1 < len(block):
                second = block[at + 1]
                if self._can_pair(first, second) and wait_for(second) <= now:
                    issue(second)
                    at += 1
            now += cycles
            at += 1
        return now

    def _count_alone(self, instruction: Instruction) -> int:
        if instruction.kind in ("load_many", "store_many"):
            return max(1, (instruction.words + 1) // 2)
        return self.other.get(instruction.kind, 1)

    def _can_pair(self, first: Instruction, second: Instruction) -> bool:
        kinds = (first.kind, second.kind)
        multiplications = sum(kind.startswith("multiply") for kind in kinds)
        stores = kinds.count("store")
        loads = kinds.count("load")
        alone = ("load_many", "store_many", "divide", "float_divide", "it")
        if multiplications > 1 or stores > 1 or (loads and stores) or first.writes_pc or second.kind in alone:
            return False
        return not first.writes & (second.reads | second.writes)


CYCLE_MODELS: Mapping[str, CycleModel] = {
    "cortex-m0plus": CortexM0Plus(),
    "cortex-m3": CortexM3(),
    "cortex-m4": CortexM4(),
    "cortex-m7": CortexM7(),
    "cortex-m33": CortexM33(),
}
