"""The cycle rules, frozen: short instruction sequences with cycles counted by hand from the rules in cycles.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgeprune.errors import EdgepruneError
from edgeprune.measure.cortex_m.costs import price_blocks
from edgeprune.measure.cortex_m.counting import OUTSIDE, FlowCounter
from edgeprune.measure.cortex_m.cycle_validation import CYCLE_MODEL_ERROR, VALIDATION
from edgeprune.measure.cortex_m.cycles import CYCLE_MODELS
from edgeprune.measure.cortex_m.instructions import count_instructions, decode_block

# instructions, machine code, then cycles on M4, M3, M0+, M33, M7; None: the core does not have them.
# Where the sequence ends in a conditional jump: (taken, not taken).
SEQUENCES: list[tuple[str, str, tuple[object, ...]]] = [
    # a load is 2, the next one 1
    ("ldr r0, [r1]; nop", "086800bf", (3, 3, 3, 2, 1)),
    ("ldr r0, [r1]; ldr r2, [r3]", "08681a68", (3, 3, 4, 2, 1)),
    ("ldr r0, [r1]; adds r0, r0, r2; ldr r2, [r3]; nop", "086880181a6800bf", (6, 6, 6, 5, 4)),
    # a store is 1, with a register offset 2 unless it follows a load; a load after a store is 2
    ("str r0, [r3, #4]; nop", "586000bf", (2, 2, 3, 2, 1)),
    ("str r0, [r3, r2]; nop", "985000bf", (3, 3, 3, 2, 1)),
    ("ldrsb r0, [r1, r2]; str r0, [r3, r2]", "88569850", (3, 3, 4, 3, 3)),
    ("str r0, [r3, #4]; ldr r1, [r3]", "58601968", (3, 3, 4, 2, 2)),
    # many: 1 + N; M33 N; M7 two words a cycle
    ("ldm r0!, {r1, r2, r3, r4}; nop", "1ec800bf", (6, 6, 6, 5, 3)),
    ("stm r0!, {r1, r2}; nop", "06c000bf", (4, 4, 4, 3, 1)),
    ("push {r4, r5, lr}; nop", "30b500bf", (5, 5, 5, 4, 3)),
    ("ldrd r0, r1, [r2], #8", "f2e80201", (3, 3, None, 2, 1)),
    ("vpush {d8, d9}", "2ded048b", (5, None, None, 4, 2)),
    # return: 1 + N + refill; M0+ 3 + N
    ("pop {r4, r5, pc}", "30bd", (6, 6, 6, 5, 2)),
    ("it eq; popeq {r4, pc}", "08bf10bd", ((6, 2), (6, 2), None, (5, 2), (2, 2))),
    # multiplications
    ("mul r0, r1, r2; mla r0, r1, r2, r3", "01fb02f001fb0230", (2, 3, None, 2, 2)),
    ("muls r0, r1, r0", "4843", (1, 1, 1, 1, 1)),
    ("smlad r0, r1, r2, r3; smmlar r0, r1, r2, r3", "21fb023051fb1230", (2, None, None, 2, 2)),
    ("smlad r0, r1, r2, r3; smlad r4, r1, r2, r5", "21fb023021fb0254", (2, None, None, 2, 2)),
    ("smull r0, r1, r2, r3; smlal r0, r1, r2, r3", "82fb0301c2fb0301", (2, 12, None, 2, 3)),
    ("umull r0, r1, r2, r3", "a2fb0301", (1, 5, None, 1, 1)),
    ("sdiv r0, r1, r2", "91fbf2f0", (8, 8, None, 6, 7)),
    # jumps: 1 + refill where taken
    ("b #0x100", "fee7", (3, 3, 2, 3, 1)),
    ("bx lr", "7047", (3, 3, 2, 3, 1)),
    ("bl #0x100", "fff7feff", (3, 3, 3, 3, 1)),
    ("blx r3", "9847", (3, 3, 2, 3, 1)),
    ("mov pc, r0", "8746", (3, 3, 2, 3, 1)),
    ("bne #0x100", "fed1", ((3, 1), (3, 1), (2, 1), (3, 1), (1, 1))),
    ("cbz r0, #0x104", "00b1", ((3, 1), (3, 1), None, (3, 1), (1, 1))),
    ("tbb [pc, r0]", "dfe800f0", (4, 4, None, 4, 1)),
    ("ldr pc, [sp], #4", "5df804fb", (4, 4, None, 3, 1)),
    # the rest is 1
    ("cmp r0, r1; it lt; movlt r0, r1", "8842b8bf0846", (3, 3, None, 3, 2)),
    ("ssat r0, #8, r1; sxtb16 r2, r3; pkhbt r4, r5, r6", "01f307002ffa83f2c5ea0604", (3, None, None, 3, 2)),
    ("dsb sy", "bff34f8f", (1, 1, 3, 1, 1)),
    # floating point
    (
        "vldr s0, [r0]; vldr s1, [r0, #4]; vmul.f32 s0, s0, s1; vstr s0, [r0]",
        "90ed000ad0ed010a20ee200a80ed000a",
        (6, None, None, 5, 4),
    ),
    ("vfma.f32 s0, s1, s2; vdiv.f32 s0, s1, s2", "a0ee810a80ee810a", (17, None, None, 17, 15)),
    # what the rough models know: a load's result used at once, pairs of independent neighbours
    ("ldr r0, [r1]; add.w r2, r0, r3", "086800eb0302", (3, 3, None, 3, 3)),
    ("add.w r0, r1, r2; add.w r3, r4, r5", "01eb020004eb0503", (2, 2, None, 2, 1)),
]
CORES = ("cortex-m4", "cortex-m3", "cortex-m0plus", "cortex-m33", "cortex-m7")


@pytest.mark.parametrize(("text", "code", "expected"), SEQUENCES, ids=[text for text, _, _ in SEQUENCES])
def test_cycles_counted_by_hand(text: str, code: str, expected: tuple[object, ...]) -> None:
    block = decode_block(bytes.fromhex(code), 0x100)
    assert "; ".join(instruction.text for instruction in block) == text
    assert count_instructions(bytes.fromhex(code)) == len(block) == text.count(";") + 1
    for core, cycles in zip(CORES, expected, strict=True):
        if cycles is not None:
            found = (CYCLE_MODELS[core].count(block, True), CYCLE_MODELS[core].count(block, False))
            assert found == (cycles if isinstance(cycles, tuple) else (cycles, cycles)), core


def test_unknown_bytes_are_named() -> None:
    with pytest.raises(EdgepruneError, match=r"does not know the instruction at 0x00000102: ff"):
        decode_block(bytes.fromhex("0846ffffffff"), 0x100)


def walk(counter: FlowCounter, *addresses: int) -> None:
    note = counter.make_hook(lambda error: None)
    for address in addresses:
        note(None, address, 4, None)


def test_counter_knows_blocks_edges_and_layers() -> None:
    """Layer a at 0x200 calls 0x300, which layer b at 0x240 calls too; 0x100 to 0x11f is outside."""
    counter = FlowCounter({0x200: "a", 0x240: "b"}, range(0x100, 0x120))
    walk(counter, 0x100, 0x200, 0x300, 0x300, 0x204, 0x110, 0x240, 0x300, 0x244, 0x110, 0x200, 0x300, 0x204, 0x114)
    counts = {(block.layer, block.address): (block.count, dict(block.next)) for block in counter.collect()}
    assert counts == {
        (OUTSIDE, 0x100): (1, {0x200: 1}),
        (OUTSIDE, 0x110): (2, {0x200: 1, 0x240: 1}),
        (OUTSIDE, 0x114): (1, {}),
        ("a", 0x200): (2, {0x300: 2}),
        ("a", 0x204): (2, {0x110: 1, 0x114: 1}),
        ("a", 0x300): (3, {0x204: 2, 0x300: 1}),
        ("b", 0x240): (1, {0x300: 1}),
        ("b", 0x244): (1, {0x110: 1}),
        ("b", 0x300): (1, {0x244: 1}),
    }


def test_taken_and_not_taken_branches_are_told_apart() -> None:
    """subs r0, #1; bne: ten passes, nine jumps: 10 x 2 + 9 x 2 cycles; then bx lr."""
    code = bytes.fromhex("0138fdd17047")
    image = SimpleNamespace(
        read_code=lambda address, size: code[address - 0x100 : address - 0x100 + size],
        find_function=lambda address: "loop",
        addresses={"loop": 0x100},
    )
    counter = FlowCounter({0x100: "loop"}, range(0))
    note = counter.make_hook(lambda error: None)
    for _ in range(10):
        note(None, 0x100, 4, None)
    note(None, 0x104, 2, None)
    costs = price_blocks(counter.collect(), image, "cortex-m4", ("loop",))  # type: ignore[arg-type]
    assert (costs.instructions, costs.cycles) == (21, 10 * 2 + 9 * 2 + 3)
    assert price_blocks(counter.collect(), image, "cortex-m55").cycles is None  # type: ignore[arg-type]


def test_the_model_is_optimistic_by_what_the_table_says() -> None:
    ratios = {row.network: round(row.ratio, 3) for row in VALIDATION}
    assert ratios == {"kws_dscnn": 1.094, "ic_resnet8": 1.116, "vww_mbv1": 1.048, "ad_ae": 1.344}
    assert CYCLE_MODEL_ERROR["cortex-m4"].status == "validated"
    assert {error.status for core, error in CYCLE_MODEL_ERROR.items() if core != "cortex-m4"} == {"indicative"}
    assert set(CYCLE_MODELS) < set(CYCLE_MODEL_ERROR)
