"""Both emulators: right outputs, exact counts by layer, stacks, and a clear error for whatever goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import EdgepruneError, MeasurementUnavailableError
from edgeprune.measure.cortex_m import EmulatedRun, qemu_runner, run_qemu, run_unicorn, unicorn_runner
from edgeprune.measure.cortex_m.counting import FlowCounter
from edgeprune.target import load_target
from tests.measure.tiny_firmware import (
    COPY_CYCLES_M0PLUS,
    COPY_CYCLES_M4,
    COPY_INSTRUCTIONS,
    INPUT_BYTES,
    LAYERS,
    build_body,
    build_tiny,
    compute,
    make_inputs,
    needs_gcc,
    needs_qemu,
)

INPUTS = make_inputs(5)


def run_on_unicorn(core: str = "cortex-m4", toolchain: str = "zig") -> EmulatedRun:
    return run_unicorn(build_tiny(core, toolchain), load_target(core), INPUTS, layers=LAYERS)


def list_costs(run: EmulatedRun) -> list[tuple[str, int, int]]:
    return [(cost.name, cost.calls, cost.instructions) for cost in run.costs.layers]


@pytest.mark.parametrize(
    ("core", "toolchain"),
    [
        ("cortex-m4", "zig"),
        ("cortex-m0plus", "zig"),
        *(
            pytest.param(core, "gcc", marks=needs_gcc)
            for core in ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
        ),
    ],
)
def test_unicorn_counts_each_layer(core: str, toolchain: str) -> None:
    run = run_on_unicorn(core, toolchain)
    assert np.array_equal(run.outputs, compute(INPUTS))
    assert len(run.instructions) == 3
    assert run.instructions[0] == run.costs.instructions
    copy, total, outside = run.costs.layers
    assert (copy.name, copy.calls, copy.instructions) == ("layer_copy", 1, COPY_INSTRUCTIONS)
    assert (total.name, total.calls) == ("layer_sum", 1)
    assert outside.name == ""
    assert 4 <= outside.instructions <= 20  # the calls of both layers
    assert copy.instructions + total.instructions + outside.instructions == run.costs.instructions
    if core in ("cortex-m4", "cortex-m3"):
        assert copy.cycles == COPY_CYCLES_M4
    if core == "cortex-m0plus":
        assert copy.cycles == COPY_CYCLES_M0PLUS
    functions = {cost.name: cost.instructions for cost in run.costs.functions}
    assert functions["layer_copy"] == COPY_INSTRUCTIONS
    assert sum(functions.values()) == run.costs.instructions
    assert run.emulator.startswith("unicorn 2.")


def test_unicorn_counts_what_runs_instruction_by_instruction() -> None:
    """Against Unicorn's own hook on each instruction, on inputs whose work differs."""
    built, target = build_tiny("cortex-m0plus"), load_target("cortex-m0plus")
    machine = unicorn_runner._Machine(built, target)
    buffers = machine.map_buffers("middle")
    counted = []

    def add_one(*_arguments: object) -> None:
        counted[-1] += 1

    machine.engine.hook_add(machine.unicorn.UC_HOOK_CODE, add_one)
    for values in INPUTS:
        counted.append(0)
        machine.infer(values, buffers)
    run = run_unicorn(built, target, INPUTS, counted=5)
    assert list(run.instructions) == counted


def test_layers_that_call_one_another_and_come_again() -> None:
    """Streaming calls layers in turns, many times; what a layer calls that is no layer itself counts for the layer."""
    built = build_body(
        "for (int i = 0; i < 3; i++) { layer_a(x, y); layer_b(x, y); }",
        before="""#define APART __attribute__((noinline)) static
APART int help(int v) { return v * 3 + 1; }
APART void layer_a(const int8_t *x, int8_t *y) { y[0] = (int8_t)help(x[0]); }
APART void layer_b(const int8_t *x, int8_t *y) { for (int i = 0; i < 4; i++) y[1] = (int8_t)(help(y[1]) + x[i]); }""",
    )
    run = run_unicorn(built, load_target("cortex-m4"), INPUTS, layers=("layer_a", "layer_b"))
    functions = {cost.name: cost for cost in run.costs.functions}
    layers = {cost.name: cost for cost in run.costs.layers}
    assert functions["layer_a"].calls == functions["layer_b"].calls == layers["layer_a"].calls == 3
    helped = functions["help"].instructions // functions["help"].calls
    assert functions["help"].calls == 15
    assert layers["layer_a"].instructions == functions["layer_a"].instructions + 3 * helped
    assert layers["layer_b"].instructions == functions["layer_b"].instructions + 12 * helped
    assert layers[""].instructions == functions["edgeprune_model_run"].instructions


@needs_qemu
@pytest.mark.parametrize(
    ("core", "toolchain"),
    [
        ("cortex-m4", "zig"),
        *(pytest.param(core, "gcc", marks=needs_gcc) for core in ("cortex-m3", "cortex-m4", "cortex-m7")),
    ],
)
def test_qemu_and_unicorn_agree_exactly(core: str, toolchain: str) -> None:
    expected = run_on_unicorn(core, toolchain)
    run = run_qemu(build_tiny(core, toolchain), load_target(core), INPUTS, layers=LAYERS)
    assert np.array_equal(run.outputs, expected.outputs)
    assert run.costs == expected.costs
    assert run.peak_stack_bytes == expected.peak_stack_bytes
    assert run.emulator.startswith("qemu-system-arm ")


@needs_qemu
@pytest.mark.parametrize("toolchain", ["zig", pytest.param("gcc", marks=needs_gcc)])
def test_qemu_runs_the_m55(toolchain: str) -> None:
    run = run_qemu(build_tiny("cortex-m55", toolchain), load_target("cortex-m55"), INPUTS, layers=LAYERS)
    assert np.array_equal(run.outputs, compute(INPUTS))
    assert run.costs.layers[0].instructions == COPY_INSTRUCTIONS
    assert run.costs.cycles is None


@needs_qemu
def test_qemu_counts_loop_ends() -> None:
    loop = '__asm__ volatile("dls lr, %0\\n1: adds r3, #1\\n le lr, 1b" :: "r"(10) : "lr", "r3", "cc");'
    run = run_qemu(build_body(loop, "cortex-m55"), load_target("cortex-m55"), INPUTS)
    empty = run_qemu(build_body("", "cortex-m55"), load_target("cortex-m55"), INPUTS)
    assert run.costs.loop_ends - empty.costs.loop_ends == 10


@needs_qemu
def test_many_inputs_go_through_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs(40)
    monkeypatch.setattr(qemu_runner, "_BATCH_BYTES", 1000)
    run = run_qemu(build_tiny(), load_target("cortex-m4"), inputs)
    assert np.array_equal(run.outputs, compute(inputs))


STACK = (
    "y[0] = deep(x, 100);",
    "__attribute__((noinline)) static int8_t deep(const int8_t *x, int n) {"
    " volatile int8_t space[400]; for (int i = 0; i < 400; i++) space[i] = x[i % 40]; return space[n]; }",
)


def test_stack_is_painted() -> None:
    run = run_unicorn(build_body(STACK[0], before=STACK[1]), load_target("cortex-m4"), INPUTS)
    assert 400 <= run.peak_stack_bytes <= 464  # 400 bytes and the registers of two functions


def test_firmware_uses_the_fpu() -> None:
    body = "volatile float z = (float)x[0] * 0.5f; y[0] = (int8_t)z;"
    run = run_unicorn(build_body(body), load_target("cortex-m4"), INPUTS)
    assert np.array_equal(run.outputs[:, 0], np.trunc(INPUTS[:, 0] / 2).astype(np.int8))


FAULTS = {
    "read beyond the input": ("y[0] = x[40];", "in edgeprune_model_run .*reads 1 bytes at .*, near the input"),
    "read before the input": ("y[0] = x[-1];", "in edgeprune_model_run .*reads 1 bytes at .*, near the input"),
    "read beyond the arena": ("y[0] = a[64];", "reads 1 bytes at .*, near the arena"),
    "write after the output": ("y[4] = 1;", "wrote outside of its output: 0 bytes after its end"),
    "write after the arena": ("a[66] = 1;", "wrote outside of its arena: 2 bytes after its end"),
    "write before the arena": ("a[-3] = 1;", "wrote outside of its arena: 3 bytes before it"),
    "write far away": ("*(volatile int *)0x12345678 = 1;", "writes 4 bytes at 0x12345678, where nothing of its own is"),
    "write to flash": ("*(volatile int *)0x1000 = 1;", "writes 4 bytes at 0x00001000"),
    "jump away": ("((void (*)(void))0x70000001)();", "jumps to 2 bytes at 0x70000000"),
    "stale arena": ("y[0] = a[0];", "1 of 4 outputs of the firmware depend on"),
    "undefined instruction": ('__asm__ volatile("udf #0");', "Invalid instruction"),
    "answer": ("return 3;", "edgeprune_model_run answered 3 instead of 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_unicorn_catches(name: str) -> None:
    body, message = FAULTS[name]
    with pytest.raises(EdgepruneError, match=message) as caught:
        run_unicorn(build_body(body), load_target("cortex-m4"), INPUTS)
    assert caught.value.exit_code == 1


def test_unicorn_catches_a_full_stack_and_names_the_function() -> None:
    endless = """__attribute__((noinline)) static int dive(int n) {
    volatile int v[64];
    v[0] = n;
    int below = n ? dive(n - 1) : 0;
    return below + v[0];
}"""
    with pytest.raises(EdgepruneError, match=r"failed in dive .*near the stack"):
        run_unicorn(build_body("y[0] = (int8_t)dive(10000);", before=endless), load_target("cortex-m4"), INPUTS)


def test_cortex_m0plus_faults_on_unaligned_loads() -> None:
    body = "uint32_t v = *(const volatile uint32_t *)(x + 1); y[0] = (int8_t)v;"
    with pytest.raises(EdgepruneError, match="most likely an unaligned load or store"):
        run_unicorn(build_body(body, "cortex-m0plus"), load_target("cortex-m0plus"), INPUTS)
    run_unicorn(build_body(body, "cortex-m4"), load_target("cortex-m4"), INPUTS)


def test_cortex_m0plus_lacks_thumb_2() -> None:
    with pytest.raises(EdgepruneError, match="Invalid instruction"):
        run_unicorn(build_body("y[0] = (int8_t)__builtin_clz(x[0] | 1);"), load_target("cortex-m0plus"), INPUTS)


@needs_qemu
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y[-1] = 1;", "between inputs and outputs"),
        ("a[-3] = 1;", "between outputs and arena"),
        ("a[66] = 1;", "after its arena"),
        ("((void (*)(void))0x70000001)();", r"failed in \? \(0x70000000\): exception 3 of the core"),
        ("return 3;", "edgeprune_model_run answered 3 instead of 0"),
    ],
)
def test_qemu_catches(body: str, message: str) -> None:
    with pytest.raises(EdgepruneError, match=message):
        run_qemu(build_body(body), load_target("cortex-m4"), INPUTS[:1])


def test_ctrl_c_ends_a_counted_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FlowCounter, "_follow_new_edge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_on_unicorn()


@pytest.mark.parametrize(
    "inputs", [np.zeros((2, INPUT_BYTES + 1), np.int8), np.zeros((2, INPUT_BYTES)), np.zeros((0, INPUT_BYTES), np.int8)]
)
def test_inputs_must_fit(inputs: np.ndarray) -> None:
    with pytest.raises(EdgepruneError, match="the firmware takes int8, n x 40 values"):
        run_unicorn(build_tiny(), load_target("cortex-m4"), inputs)


def test_large_nets_are_counted_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    once = run_on_unicorn().instructions[0]
    monkeypatch.setattr(unicorn_runner, "_COUNTED_INSTRUCTIONS", 2 * once + once // 2)
    assert len(run_on_unicorn().instructions) == 2


def test_a_layer_must_be_a_function() -> None:
    with pytest.raises(EdgepruneError, match="no function layer_gone; was it inlined"):
        run_unicorn(build_tiny(), load_target("cortex-m4"), INPUTS, layers=("layer_gone",))


def test_unicorn_has_no_m55() -> None:
    with pytest.raises(MeasurementUnavailableError, match="Unicorn has no cortex-m55; qemu-system-arm runs it"):
        run_unicorn(build_tiny(), load_target("cortex-m55"), INPUTS)


def test_missing_qemu_is_exit_6(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    qemu_runner.find_qemu.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgepruneError, match="qemu-system-arm is not installed") as caught:
        run_qemu(build_tiny(), load_target("cortex-m4"), INPUTS)
    assert caught.value.exit_code == 6
