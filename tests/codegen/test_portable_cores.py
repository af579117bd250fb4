"""Portable kernels on emulated cores: what differs between cores (multiplication, unaligned words, SSUB8 and SEL)."""

from __future__ import annotations

import pytest

from edgeprune.codegen.kernel import Kernel
from edgeprune.codegen.kernels.portable_activations import PortableClamp
from edgeprune.codegen.kernels.portable_movement import PortablePad
from edgeprune.codegen.kernels.portable_pool import PortableMean, PortablePool
from edgeprune.graph import Graph, Quant, Tensor
from edgeprune.target import load_target
from tests.codegen.harness import run_layer
from tests.random_graphs import make_random_graph
from tests.reference_cases import build_one_op

QUANT = Quant.per_tensor(0.02, 5)


def _make_graph(kind: str, channels: int) -> Graph:
    attrs: dict[str, dict[str, object]] = {
        "relu6": {},
        "pad": {"paddings": ((0, 0), (1, 2), (0, 3), (1, 0)), "mode": "zero"},
        "mean": {"axes": (1, 2), "keep_dims": True},
        "max_pool_2d": {"kernel_size": (3, 2), "stride": (2, 1), "padding": "same", "activation": "relu_n1_to_1"},
    }
    size = (30, 20) if kind == "mean" else (7, 5)  # more than the 256 values that halfwords can add up
    return build_one_op(kind, (Tensor("input", (1, *size, channels), "int8", None, QUANT),), attrs[kind], QUANT)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
@pytest.mark.parametrize("channels", [7, 16])
@pytest.mark.parametrize(
    ("kind", "kernel"),
    [("relu6", PortableClamp()), ("pad", PortablePad()), ("max_pool_2d", PortablePool()), ("mean", PortableMean())],
)
def test_kernels_by_words(kind: str, kernel: Kernel, channels: int, core: str) -> None:
    result = run_layer(_make_graph(kind, channels), load_target(core), kernel=kernel)
    assert result.lowered[0].kernel.startswith("portable")
    assert result.worst_difference == 0


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3"])
@pytest.mark.parametrize("seed", range(2))
def test_programs_on_scalar_cores(seed: int, core: str) -> None:
    graph = make_random_graph(700 + seed, op_count=12)
    result = run_layer(graph, load_target(core))
    assert result.worst_difference == 0
