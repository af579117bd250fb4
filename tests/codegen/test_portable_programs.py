"""Whole programs in portable C on this machine, under AddressSanitizer and UBSan, equal to the reference to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen import generate_firmware
from edgeprune.codegen.schedule import MEMORY_MODES
from edgeprune.target import load_target
from tests.codegen.harness import HostCompiler, expect_outputs, join_inputs
from tests.random_graphs import make_inputs, make_random_chain, make_random_graph

FLOAT_KINDS = {"quantize", "dequantize"}
STREAMABLE = ("conv_2d", "depthwise_conv_2d", "max_pool_2d", "average_pool_2d", "add", "mul", "relu", "concat", "pad")


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> HostCompiler:
    return HostCompiler(tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int, compiler: HostCompiler) -> None:
    graph = make_random_graph(seed)
    inputs = make_inputs(graph, seed, 4)
    firmware = generate_firmware(graph, load_target("cortex-m4"), memory="arena", portable=True)
    outputs = compiler.run(firmware, join_inputs(graph, inputs))
    assert np.array_equal(outputs, expect_outputs(graph, inputs))


@pytest.mark.parametrize("mode", MEMORY_MODES)
@pytest.mark.parametrize("seed", range(6))
def test_streamed_programs(seed: int, mode: str, compiler: HostCompiler) -> None:
    graph = make_random_chain(seed, STREAMABLE)
    inputs = make_inputs(graph, seed, 3)
    firmware = generate_firmware(graph, load_target("cortex-m4"), memory=mode, portable=True)
    outputs = compiler.run(firmware, join_inputs(graph, inputs))
    assert np.array_equal(outputs, expect_outputs(graph, inputs))
