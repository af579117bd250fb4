"""Every portable kernel, call by call, equal to the reference to the bit: whole maps and slices of rows."""

from __future__ import annotations

import pytest

from edgeprune.codegen.kernels import KERNELS
from tests.codegen.portable_rig import KernelRig, make_cases
from tests.random_graphs import make_inputs, make_op_graph
from tests.reference_cases import EDGE_KINDS, make_edge_case


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> KernelRig:
    return KernelRig(tmp_path_factory.mktemp("kernels"))


def _make_cases(kind: str, seeds: range) -> list:
    cases = []
    for seed in seeds:
        if kind in EDGE_KINDS:
            graph, inputs = make_edge_case(kind, seed)
        else:
            graph = make_op_graph(kind, seed)
            inputs = make_inputs(graph, seed, 1)
        if all(graph.tensors[name].dtype == "int8" for name in (*graph.inputs, *graph.outputs)):
            cases += make_cases(graph, inputs, seed, f"{kind}_{seed}")
    return cases


@pytest.mark.parametrize("kind", sorted(KERNELS))
def test_kernels_equal_the_reference(kind: str, rig: KernelRig) -> None:
    rig.check(_make_cases(kind, range(60)))
