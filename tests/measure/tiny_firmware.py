"""A tiny hand-made firmware with known counts, and Python's own idea of what it computes."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest

from edgeprune.measure.cortex_m import BuiltFirmware, build_elf
from edgeprune.target import load_target

INPUT_BYTES, OUTPUT_BYTES, ARENA_BYTES = 40, 4, 64

HEADER = f"""#include <stdint.h>
#define EDGEPRUNE_MODEL_INPUT_BYTES {INPUT_BYTES}
#define EDGEPRUNE_MODEL_OUTPUT_BYTES {OUTPUT_BYTES}
#define EDGEPRUNE_MODEL_ARENA_BYTES {ARENA_BYTES}
int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena);
"""

# layer_copy runs 2 + 4 * 40 + 1 instructions: the loop 40 times, the last branch not taken
ASSEMBLY = """    .syntax unified
    .thumb
    .section .text.layer_copy, "ax", %progbits
    .global layer_copy
    .type layer_copy, %function
layer_copy: /* (x, arena): 40 bytes */
    mov r3, r1
    movs r2, #40
1:  subs r2, r2, #1
    ldrb r1, [r0, r2]
    strb r1, [r3, r2]
    bne 1b
    bx lr
    .size layer_copy, . - layer_copy
"""
COPY_INSTRUCTIONS = 2 + 4 * 40 + 1
# mov 1, movs 1; a pass: subs 1, ldrb 2, strb (register offset, after a load) 1, bne 1 + 2 when taken; bx 3
COPY_CYCLES_M4 = 2 + 40 * (1 + 2 + 1 + 1) + 39 * 2 + 3
# the same with LDRB and STRB 2, branches 2 when taken and 1 when not, BX 2
COPY_CYCLES_M0PLUS = 2 + 40 * (1 + 2 + 2 + 1) + 39 * 1 + 2

MODEL = """#include "model.h"
void layer_copy(const int8_t *x, int8_t *y);
static const int8_t weights[10] = {1, -1, 2, -2, 3, -3, 4, -4, 5, -5};
__attribute__((noinline)) static void layer_sum(const int8_t *x, int8_t *y) {
    for (int i = 0; i < 4; i++) {
        int32_t sum = 0;
        for (int j = 0; j < 10; j++) sum += x[i * 10 + j] * weights[j];
        if (sum > 127) sum = 127; /* how many instructions run depends on the data */
        if (sum < -128) sum = -128;
        y[i] = (int8_t)sum;
    }
}
int edgeprune_model_run(const int8_t *input, int8_t *output, void *arena) {
    layer_copy(input, arena);
    layer_sum(arena, output);
    return 0;
}
"""
SOURCES = {"model.h": HEADER, "model.c": MODEL, "layer_copy.S": ASSEMBLY}
LAYERS = ("layer_copy", "layer_sum")

needs_gcc = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")


def make_inputs(count: int) -> np.ndarray:
    """int8 (count, INPUT_BYTES)."""
    return np.random.default_rng(7).integers(-128, 128, (count, INPUT_BYTES)).astype(np.int8)


def compute(inputs: np.ndarray) -> np.ndarray:
    """What the firmware answers: int8 (n, OUTPUT_BYTES)."""
    weights = np.array([1, -1, 2, -2, 3, -3, 4, -4, 5, -5])
    sums = (inputs.reshape(-1, 4, 10).astype(int) * weights).sum(2)
    return np.clip(sums, -128, 127).astype(np.int8)


@functools.cache
def build_tiny(core: str = "cortex-m4", toolchain: str = "zig") -> BuiltFirmware:
    """The tiny firmware, built once per test process."""
    return build_elf(SOURCES, load_target(core), toolchain=toolchain)


def build_body(body: str, core: str = "cortex-m4", *, before: str = "", toolchain: str = "zig") -> BuiltFirmware:
    """A firmware whose `edgeprune_model_run(x, y, arena)` is `body`; it fills y with zeros first."""
    model = f"""#include "model.h"
{before}
int edgeprune_model_run(const int8_t *x, int8_t *y, void *arena) {{
    char *a = arena;
    (void)x, (void)a;
    for (int i = 0; i < {OUTPUT_BYTES}; i++) y[i] = 0;
    {body}
    return 0;
}}
"""
    return build_elf({"model.h": HEADER, "model.c": model}, load_target(core), toolchain=toolchain)
