"""Sizes are the model's: the rig does not count, the compiler's runtime library does."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import EdgepruneError
from edgeprune.measure.cortex_m import build_elf, read_elf
from edgeprune.measure.cortex_m.emulated import PAINT, BufferSizes, measure_painted_stack, read_buffer_sizes
from edgeprune.target import load_target
from tests.measure.tiny_firmware import SOURCES, build_tiny, needs_gcc

# constants of 1000 bytes, variables of 8 and 400 bytes; 10 instructions of 2 bytes each in assembly
MODEL = """#include "model.h"
int count(int v);
const uint8_t table[1000] __attribute__((aligned(4))) = {1, 2, 3};
const uint8_t unused[500] = {1, 2, 3};
int32_t set[2] = {5, 6};
int32_t zero[100];
int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena) {
    (void)arena;
    zero[input[0] & 63] = count(set[input[1] & 1]);
    output[0] = (int8_t)(table[input[2] & 127] + zero[input[3] & 63]);
    return 0;
}
"""
COUNT = """    .syntax unified
    .thumb
    .section .text.count, "ax", %progbits
    .global count
    .type count, %function
count:
    .rept 9
    adds r0, #1
    .endr
    bx lr
    .size count, . - count
"""


@pytest.mark.parametrize("toolchain", ["zig", pytest.param("gcc", marks=needs_gcc)])
def test_sizes_by_section_and_symbol(toolchain: str) -> None:
    sources = {"model.h": SOURCES["model.h"], "model.c": MODEL, "count.S": COUNT}
    sizes = read_elf(build_elf(sources, load_target("cortex-m4"), toolchain=toolchain).elf).sizes
    assert (sizes.rodata, sizes.data, sizes.bss) == (1000, 8, 400)
    named = {symbol.name: symbol.size for symbol in sizes.symbols}
    assert set(named) == {"edgeprune_model_run", "count", "table", "set", "zero"}
    assert (named["count"], named["table"], named["set"], named["zero"]) == (20, 1000, 8, 400)
    gaps = sizes.text - named["count"] - named["edgeprune_model_run"]
    assert 0 <= gaps <= 2  # functions begin at multiples of 4
    assert sizes.flash_bytes == sizes.text + 1000 + 8


def test_runtime_library_counts() -> None:
    copying = """#include "model.h"
int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena) {
    (void)output;
    __builtin_memcpy(arena, input, 40 + (unsigned)input[0] % 20u);
    return 0;
}
"""
    sources = {"model.h": SOURCES["model.h"], "model.c": copying}
    image = read_elf(build_elf(sources, load_target("cortex-m4")).elf)
    named = {symbol.name: symbol.size for symbol in image.sizes.symbols}
    assert named["memcpy"] > 20
    assert sum(named.values()) <= image.sizes.text <= sum(named.values()) + 8
    assert image.find_function(image.addresses["memcpy"]) == "memcpy"  # not compiler_rt's longer name for it


def test_an_image_answers_about_addresses() -> None:
    image = read_elf(build_tiny().elf)
    copy = image.get_function("layer_copy")
    assert image.find_function(copy.address + 2) == "layer_copy"
    assert image.find_function(0x7000_0000) == "?"
    assert image.read_code(copy.address, 2).hex() == "0b46"  # mov r3, r1
    assert read_buffer_sizes(image) == BufferSizes(40, 4, 64)
    with pytest.raises(EdgepruneError, match="no function layer_none"):
        image.get_function("layer_none")
    with pytest.raises(EdgepruneError, match="no code at 0x70000000"):
        image.read_code(0x7000_0000, 2)
    assert all(not symbol.name.startswith("rig") for symbol in image.sizes.symbols)


def test_a_painted_stack_is_measured_from_its_top() -> None:
    memory = np.full(100, PAINT, np.uint8)
    assert measure_painted_stack(memory.tobytes()) == 0
    memory[90] = 0
    assert measure_painted_stack(memory.tobytes()) == 10
    memory[0] = 0
    with pytest.raises(EdgepruneError, match="needs more than 100 bytes of stack"):
        measure_painted_stack(memory.tobytes())
