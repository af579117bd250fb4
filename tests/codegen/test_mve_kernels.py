"""Helium kernels on an emulated Cortex-M55 against the reference: equal to the bit, with both compilers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from edgeprune.codegen import generate_firmware
from edgeprune.codegen.kernel import Kernel
from edgeprune.codegen.kernels.mve_depthwise import MveDepthwiseConv2d, MveDepthwiseTaps
from edgeprune.codegen.kernels.mve_elementwise import MveElementwise
from edgeprune.codegen.kernels.mve_layers import MveConv2d, MveFullyConnected
from edgeprune.codegen.kernels.mve_pool import MveLookup, MveMean, MvePool
from edgeprune.codegen.upright import stand_up
from edgeprune.measure.cortex_m import measure_firmware
from edgeprune.reference import run_graph
from edgeprune.target import load_target
from tests.codegen.mve_layers import draw_layer, make_layer
from tests.codegen.mve_rig import M55, MveCase, find_missing_tools, make_case, run_cases
from tests.reference_cases import make_edge_case

LAYERS: dict[str, tuple[Kernel, ...]] = {
    "conv_2d": (MveConv2d(),),
    "depthwise_conv_2d": (MveDepthwiseConv2d(), MveDepthwiseTaps()),
    "fully_connected": (MveFullyConnected(),),
}
OTHERS: dict[str, Kernel] = {
    **{kind: MveElementwise() for kind in ("add", "sub", "mul")},
    **{kind: MvePool() for kind in ("max_pool_2d", "average_pool_2d")},
    "mean": MveMean(),
    **{kind: MveLookup() for kind in ("relu", "relu6", "leaky_relu", "logistic", "tanh")},
}
TOOLCHAINS = ("zig", "gcc")


def draw_cases(seeds: range) -> Iterator[MveCase]:
    """A case per seed and kernel, where the kernel takes the layer; strides and slices of rows drawn as well."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        drawn = [(kernel, draw_layer(kind, seed)) for kind, kernels in LAYERS.items() for kernel in kernels]
        for kind, kernel in OTHERS.items():
            graph, inputs = make_edge_case(kind, seed, batch=1)
            is_map = len(graph.tensors[graph.outputs[0]].shape) == 4
            drawn.append((kernel, (stand_up(graph) if is_map else graph, inputs)))
        for kernel, (graph, inputs) in drawn:
            output = graph.tensors[graph.ops[0].outputs[0]]
            values = {name: inputs[name].reshape(graph.tensors[name].shape) for name in graph.inputs}
            is_map = len(output.shape) == 4 and all(len(graph.tensors[name].shape) == 4 for name in graph.inputs)
            gaps = (int(rng.choice([0, 0, 3])), int(rng.choice([0, 0, 5]))) if is_map else (0, 0)
            rows = int(rng.choice([1, 2, 3, 5, 9])) if is_map and rng.random() < 0.6 else None
            case = make_case(kernel, graph, values, gaps=gaps, rows=rows)
            if case is not None:
                yield case


def assert_exact(cases: list[MveCase], toolchain: str, optimize: str = "-O2") -> None:
    wrong = run_cases(cases, toolchain, optimize)
    described = [
        f"{case.lowered.kernel} {dict(case.lowered.fields)} rows {case.rows}: {count} bytes"
        for case, count in zip(cases, wrong, strict=True)
        if count
    ]
    assert not described, "\n".join(described[:5])


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_kernels_equal_reference(toolchain: str) -> None:
    reason = find_missing_tools(toolchain)
    if reason:
        pytest.skip(reason)
    cases = list(draw_cases(range(9)))
    kernels = Counter(case.lowered.function for case in cases)
    assert len(kernels) >= 13, kernels  # all of them take part
    assert_exact(cases, toolchain)


@pytest.mark.slow
@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("first", range(1000, 1320, 40))
def test_many_kernels_equal_reference(toolchain: str, first: int) -> None:
    reason = find_missing_tools(toolchain)
    if reason:
        pytest.skip(reason)
    assert_exact(
        list(draw_cases(range(first, first + 40))), toolchain, "-Os" if toolchain == "gcc" and first % 80 else "-O2"
    )


def test_only_helium_cores_take_them() -> None:
    graph, inputs = draw_layer("conv_2d", 1)
    case = make_case(MveConv2d(), graph, inputs)
    assert case is not None
    without = replace(case.call, target=load_target("cortex-m4"))
    for kernels in LAYERS.values():
        assert all(kernel.lower(without) is None for kernel in kernels)


# Layer, and what it may take: measured, in instructions per MAC, plus some 5 %. CMSIS-NN takes about 19 for the dilated
# depthwise convolution (scalar code), 0.27 for all of an FCN whose layers are as the last one (anchors of the bench).
COSTS = {
    "depthwise, K 20, dilation 2, 96 channels": ((140, 1, 96), (20, 1), 96, (2, 1), 0.55),
    "1x1, 64 -> 64": ((125, 1, 64), (1, 1), 64, (1, 1), 0.225),
    "K 5, 128 -> 64": ((30, 1, 128), (5, 1), 64, (1, 1), 0.145),
}


@pytest.mark.parametrize("name", COSTS)
def test_instructions_per_mac(name: str) -> None:
    reason = find_missing_tools("zig")
    if reason:
        pytest.skip(reason)
    shape, kernel_size, outputs, dilation, most = COSTS[name]
    kind = "depthwise_conv_2d" if name.startswith("depthwise") else "conv_2d"
    window: dict[str, object] = {"stride": (1, 1), "dilation": dilation, "padding": "same"}
    if kind == "depthwise_conv_2d":
        window["depth_multiplier"] = 1
    graph, inputs = make_layer(np.random.default_rng(0), kind, shape, kernel_size, outputs, **window)
    firmware = generate_firmware(graph, M55, memory="arena")
    measured = measure_firmware(firmware.compiled_files, M55, inputs["x"])
    assert measured.outputs is not None
    assert np.array_equal(measured.outputs.ravel(), run_graph(graph, inputs)["y"].ravel())
    assert measured.instructions is not None
    assert measured.instructions / firmware.layers[0].macs <= most
