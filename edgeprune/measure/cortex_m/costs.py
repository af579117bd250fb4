"""What one inference cost, from executed blocks: instructions and modelled cycles, in all, by layer, by function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeprune.measure.cortex_m.counting import OUTSIDE, BlockCount
from edgeprune.measure.cortex_m.cycles import CYCLE_MODELS
from edgeprune.measure.cortex_m.elf import FirmwareImage
from edgeprune.measure.cortex_m.instructions import count_instructions, decode_block


@dataclass(frozen=True)
class Cost:
    """name: a layer's C function, "" for what runs outside of layers; or any function. calls: how often it was entered.

    instructions: exact. cycles: modelled; None for a core without a cycle model.
    """

    name: str
    calls: int
    instructions: int
    cycles: int | None


@dataclass(frozen=True)
class RunCosts:
    """One inference. layers: in the order asked for, then "" for the rest. functions: the most instructions first.

    loop_ends: LE and LETP among the instructions (Armv8.1-M), which cost next to nothing on silicon.
    """

    instructions: int
    cycles: int | None
    layers: tuple[Cost, ...]
    functions: tuple[Cost, ...]
    loop_ends: int = 0


def price_blocks(blocks: Iterable[BlockCount], image: FirmwareImage, core: str, layers: Iterable[str] = ()) -> RunCosts:
    """Add up executed blocks. core: whose cycle model counts. layers: C functions that must have a row."""
    pricer = _Pricer(image, core)
    names = (*dict.fromkeys(layers), OUTSIDE)
    by_layer: dict[str, list[int]] = {name: [0, 0, 0] for name in names}
    by_function: dict[str, list[int]] = {}
    loop_ends = 0
    for block in blocks:
        instructions, cycles = pricer.price(block)
        function = image.find_function(block.address)
        for table, name in ((by_layer, block.layer), (by_function, function)):
            row = table.setdefault(name, [0, 0, 0])
            row[0] += block.count if block.address == image.addresses.get(name) else 0
            row[1] += instructions
            row[2] += cycles
        loop_ends += block.count if _ends_loop(image.read_code(block.address, block.size)) else 0
    has_model = core in CYCLE_MODELS

    def list_costs(table: Mapping[str, list[int]]) -> tuple[Cost, ...]:
        return tuple(Cost(name, row[0], row[1], row[2] if has_model else None) for name, row in table.items())

    functions = sorted(list_costs(by_function), key=lambda cost: (-cost.instructions, cost.name))
    return RunCosts(
        instructions=sum(row[1] for row in by_layer.values()),
        cycles=sum(row[2] for row in by_layer.values()) if has_model else None,
        layers=list_costs(by_layer),
        functions=tuple(functions),
        loop_ends=loop_ends,
    )


class _Pricer:
    """Prices of blocks, each decoded once."""

    def __init__(self, image: FirmwareImage, core: str) -> None:
        self._image = image
        self._model = CYCLE_MODELS.get(core)
        self._known: dict[tuple[int, int], tuple[int, int, int, bool]] = {}

    def price(self, block: BlockCount) -> tuple[int, int]:
        """Instructions and cycles of all its passes (cycles 0 without a model)."""
        key = (block.address, block.size)
        if key not in self._known:
            self._known[key] = self._price_once(*key)
        instructions, taken_cycles, other_cycles, is_conditional = self._known[key]
        # a block that ends for another reason than a jump (a page's end) goes on like a branch not taken
        not_taken = block.next.get(block.address + block.size, 0) if is_conditional else 0
        cycles = taken_cycles * (block.count - not_taken) + other_cycles * not_taken
        return instructions * block.count, cycles

    def _price_once(self, address: int, size: int) -> tuple[int, int, int, bool]:
        code = self._image.read_code(address, size)
        if self._model is None:
            return count_instructions(code), 0, 0, False
        block = decode_block(code, address)
        last = block[-1]
        is_conditional = last.writes_pc and last.conditional
        return len(block), self._model.count(block, True), self._model.count(block, False), is_conditional


def _ends_loop(code: bytes) -> bool:
    """Whether the last instruction is LE or LETP: 0xF00F, 0xF01F or 0xF02F, then 0b1100... (Armv8-M manual)."""
    return len(code) >= 4 and code[-3] == 0xF0 and code[-4] in (0x0F, 0x1F, 0x2F) and code[-1] >> 4 == 0xC
