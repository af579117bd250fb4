"""Every portable kernel, call by call, equal to the reference to the bit: whole maps and slices of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from edgeprune.codegen.kernel import Call
from edgeprune.codegen.kernels import KERNELS, lower_call
from edgeprune.codegen.kernels.portable_activations import LOOKUPS
from edgeprune.codegen.render import render_lowered
from edgeprune.graph import Graph, Quant, Tensor
from edgeprune.target import load_target
from tests.codegen.portable_rig import KernelCase, KernelRig, make_cases
from tests.random_graphs import make_inputs, make_op_graph
from tests.reference_cases import EDGE_KINDS, build_one_op, make_edge_case

FAMILIES = {
    "layers": ("conv_2d", "depthwise_conv_2d", "fully_connected"),
    "operands": ("add", "sub", "mul", "prelu"),
    "pools": ("max_pool_2d", "average_pool_2d", "mean"),
    "functions": (*LOOKUPS, "softmax"),
    "movement": ("concat", "pad", "reshape", "strided_slice", "transpose"),
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> KernelRig:
    return KernelRig(tmp_path_factory.mktemp("kernels"))


def _draw_cases(kinds: Iterable[str], seeds: Iterable[int]) -> list[KernelCase]:
    cases = []
    for kind, seed in itertools.product(kinds, seeds):
        if kind in EDGE_KINDS:
            graph, inputs = make_edge_case(kind, seed)
        else:
            graph = make_op_graph(kind, seed)
            inputs = make_inputs(graph, seed, 1)
        if all(graph.tensors[name].dtype == "int8" for name in (*graph.inputs, *graph.outputs)):
            cases += make_cases(graph, inputs, seed, f"{kind}_{seed}")
    return cases


def test_every_kind_has_a_family() -> None:
    assert {kind for kinds in FAMILIES.values() for kind in kinds} == set(KERNELS)


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_equal_the_reference(family: str, rig: KernelRig) -> None:
    kinds = FAMILIES[family]
    rig.check(_draw_cases(kinds, range(240 // len(kinds))))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KERNELS))
@pytest.mark.parametrize("flags", [(), ("-DEP_NO_LONG_MULTIPLY",)], ids=["long", "short"])
def test_many_kernels_equal_the_reference(
    kind: str, flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    seeds = range(1000, 1200) if flags else range(2000, 2200)
    KernelRig(tmp_path_factory.mktemp(kind), flags).check(_draw_cases((kind,), seeds))


def _list_windows() -> Iterator[Graph]:
    """Layers around the unroll widths, windows larger than the map, taps that all lie outside, dead and huge sums."""
    rng = np.random.default_rng(7)
    sizes = [(1, 1), (5, 1), (2, 3), (6, 5)]
    kernels = [((1, 1), (1, 1)), ((4, 1), (1, 1)), ((9, 3), (1, 1)), ((2, 2), (7, 6)), ((3, 3), (2, 1))]
    for number, (size, (kernel, dilation)) in enumerate(itertools.product(sizes, kernels)):
        channels, filters = number % 9 + 1, (number * 5) % 11 + 1
        source = Tensor(
            "input", (1, *size, channels), "int8", None, Quant.per_tensor(0.03, int(rng.integers(-128, 128)))
        )
        attrs: dict[str, object] = {"stride": (1, 1), "dilation": dilation, "padding": "same", "activation": "none"}
        depthwise = number % 2 == 0
        multiplier = (1, 4, 1, 2, 5, 1, 9)[number // 2 % 7]
        shape = (1, *kernel, channels * multiplier) if depthwise else (filters, *kernel, channels)
        count = shape[3] if depthwise else shape[0]
        scale = Quant(rng.uniform(1e-3, 1e-2, count), np.zeros(count), 3 if depthwise else 0)
        weight = Tensor.constant("weight", rng.integers(-127, 128, shape).astype(np.int8), scale)
        limit = 2**31 - 1 if number % 5 == 0 else 4000
        bias = rng.integers(-limit, limit, count).astype(np.int32)
        operands = (source, weight, Tensor.constant("bias", bias, Quant(0.03 * scale.scale, np.zeros(count), 0)))
        if depthwise:
            attrs["depth_multiplier"] = multiplier
        kind = "depthwise_conv_2d" if depthwise else "conv_2d"
        yield build_one_op(kind, operands, attrs, Quant.per_tensor(0.08, 3))


def test_windows_at_the_edges(rig: KernelRig) -> None:
    cases = []
    for number, graph in enumerate(_list_windows()):
        cases += make_cases(graph, make_inputs(graph, number, 1), number, f"window_{number}")
    rig.check(cases)


def _make_scalar_graph(kind: str, values: object) -> Graph:
    source = Tensor("input", (1, 3, 4, 5), "int8", None, Quant.per_tensor(0.05, -3))
    operand = Tensor.constant("operand", np.array(values, np.int8), Quant.per_tensor(0.02, 1))
    return build_one_op(kind, (operand, source), {"activation": "relu"}, Quant.per_tensor(0.06, -100))


@pytest.mark.parametrize("kind", ["add", "sub", "mul"])
def test_a_scalar_operand_becomes_a_table(kind: str, rig: KernelRig) -> None:
    cases = []
    for number, values in enumerate((17, [17], [[[[-90]]]])):
        graph = _make_scalar_graph(kind, values)
        cases += make_cases(graph, make_inputs(graph, number, 1), number, f"{kind}_{number}")
    assert {case.lowered.function for case in cases} == {"ep_lookup"}
    rig.check(cases)


def test_fields_and_constants_as_c() -> None:
    graph = _make_scalar_graph("add", 17)
    call = Call("layer", graph.ops[0], graph, load_target("cortex-m4"), (5,), 5, 3)
    lowered = lower_call(call, portable=True)
    assert lowered.constant_bytes == 256
    (table,) = lowered.constants
    short = replace(lowered, constants=(replace(table, values=table.values[:4]),))
    assert render_lowered("op_layer", short) == (
        "static const EP_CONST int8_t layer_table[4] = {\n"
        f"    {', '.join(map(str, table.values[:4]))},\n"
        "};\n"
        "static const ep_lookup_op op_layer = {\n"
        "    .table = layer_table, .columns = 4, .channels = 5, .x_stride = 5, .y_stride = 5,\n"
        "};\n"
    )
