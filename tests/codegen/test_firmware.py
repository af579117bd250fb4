"""Whole programs on emulated cores: equal to the reference to the bit, in every memory mode, by both compilers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeprune.codegen import MEMORY_MODES, Firmware, generate_firmware
from edgeprune.errors import UnsupportedModelError
from edgeprune.graph import Graph
from edgeprune.measure.cortex_m import FirmwareMeasurement, build_elf, measure_firmware
from edgeprune.target import load_target
from tests.codegen.harness import expect_outputs, join_inputs, make_int8_network
from tests.random_graphs import make_inputs, make_random_chain, make_random_graph

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
STREAMABLE = ("conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d", "add", "mul", "relu", "concat", "pad")


def run_everywhere(
    graph: Graph, core: str, memory: str, toolchain: str = "zig", samples: int = 2, seed: int = 0
) -> tuple[Firmware, FirmwareMeasurement]:
    """Generate, build, run; fails unless the outputs are the reference's."""
    target = load_target(core)
    firmware = generate_firmware(graph, target, memory=memory)
    inputs = make_inputs(graph, seed, samples)
    layers = [layer.function for layer in firmware.layers]
    measured = measure_firmware(
        firmware.compiled_files, target, join_inputs(graph, inputs), layers=layers, toolchain=toolchain
    )
    assert measured.outputs is not None, measured.unavailable
    assert np.array_equal(measured.outputs, expect_outputs(graph, inputs))
    return firmware, measured


@pytest.mark.parametrize("name", ["inception", "resnet"])
def test_networks(name: str) -> None:
    run_everywhere(make_int8_network(name), "cortex-m4", "auto")


@pytest.mark.parametrize("name", ["lite", "fcn"])
def test_networks_in_every_memory_mode(name: str) -> None:
    graph = make_int8_network(name)
    arenas = {}
    for mode in MEMORY_MODES:
        firmware, measured = run_everywhere(graph, "cortex-m4", mode)
        arenas[mode] = firmware.arena_bytes
        inside = sum(cost.instructions for cost in measured.layers)
        assert inside == measured.instructions
    assert arenas["streaming"] < arenas["arena"]
    assert arenas["auto"] <= arenas["arena"]


@pytest.mark.parametrize("core", CORES)
def test_every_core(core: str) -> None:
    run_everywhere(make_int8_network("fcn"), core, "auto")


def test_both_compilers_agree() -> None:
    graph = make_int8_network("fcn")
    for memory in ("arena", "streaming"):
        _, by_zig = run_everywhere(graph, "cortex-m4", memory)
        _, by_gcc = run_everywhere(graph, "cortex-m4", memory, toolchain="gcc")
        assert np.array_equal(by_zig.outputs, by_gcc.outputs)


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed: int) -> None:
    graph = make_random_graph(seed + 100)
    run_everywhere(graph, "cortex-m4", "auto", seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_random_streamed_programs(seed: int) -> None:
    run_everywhere(make_random_chain(seed + 50, STREAMABLE), "cortex-m4", "streaming", seed=seed)


def test_the_same_program_gives_the_same_bytes() -> None:
    target = load_target("cortex-m4")
    first, second = (generate_firmware(make_int8_network("lite"), target) for _ in range(2))
    assert first.files == second.files
    assert build_elf(first.compiled_files, target).elf == build_elf(second.compiled_files, target).elf


def test_what_is_chosen_is_said() -> None:
    firmware = generate_firmware(make_int8_network("lite"), load_target("cortex-m4"), memory="auto")
    modes = {choice.mode: choice for choice in firmware.choices}
    assert set(modes) == {"arena", "streaming", "auto"}
    assert modes["auto"].arena_bytes == firmware.arena_bytes
    assert modes["auto"].cycles <= 1.1 * modes["arena"].cycles
    assert [layer.kind for layer in firmware.layers].count("conv_2d") == 5


def test_an_op_without_a_kernel_is_refused_by_name() -> None:
    graph = make_random_graph(0, float_edges=True)
    with pytest.raises(UnsupportedModelError, match="float32"):
        generate_firmware(graph, load_target("cortex-m4"))


def test_the_folder_builds_with_its_own_makefile(tmp_path: Path) -> None:
    """All of it, self-test, normalization and example too, with warnings as errors."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    for name, text in generate_firmware(make_int8_network("lite"), load_target("cortex-m4")).files.items():
        (tmp_path / name).write_text(text)
    flags = "CFLAGS=-std=c99 -Os -Wall -Wextra -Werror"
    built = subprocess.run(
        ["make", flags, "all", "main.c.o"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "libedgeprune_model.a").stat().st_size > 10_000
