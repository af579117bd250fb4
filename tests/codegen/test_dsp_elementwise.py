"""add, sub and mul on cores with the DSP extension, on an emulated Cortex-M4."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgeprune.codegen.kernels.dsp_elementwise import DspElementwise, find_linear_form
from edgeprune.graph import Graph, Quant
from edgeprune.target import load_target
from tests.codegen.dsp_layers import ZERO_POINTS, Layer, ProgramMaker, make_call
from tests.codegen.harness import run_layer

M4 = load_target("cortex-m4")
FUNCTION = "ep_dsp_elementwise"


def draw_quants(rng: np.random.Generator, kind: str, zero_points: tuple[int, int, int]) -> list[Quant]:
    """Of both operands and a result that mostly fits int8."""
    first, second = rng.uniform(0.01, 0.1, 2)
    result = max(first, second) * rng.uniform(0.7, 2.2) if kind != "mul" else first * second * rng.uniform(90, 400)
    return [Quant.per_tensor(*affine) for affine in zip((first, second, result), zero_points, strict=True)]


def add_pair(maker: ProgramMaker, kind: str, shape: tuple[int, ...], activation: str, quants: list[Quant]) -> None:
    """An op of two inputs of this shape."""
    operands = [maker.add_input(shape, quant) for quant in quants[:2]]
    maker.add_op(kind, operands, {"activation": activation}, quants[2])


def assert_exact(graph: Graph, kernels: int, **options: object) -> None:
    """kernels: how many ops the kernel must take."""
    run = run_layer(graph, M4, kernel=DspElementwise(), **options)  # type: ignore[arg-type]
    assert sum(lowered.function == FUNCTION for lowered in run.lowered) == kernels
    assert run.worst_difference == 0


def test_sizes_activations_and_zero_points() -> None:
    maker, count = ProgramMaker(0), 0
    activations = itertools.cycle(("none", "relu", "relu6", "relu_n1_to_1"))
    zeros = itertools.cycle(ZERO_POINTS)
    for kind, size in itertools.product(("add", "sub", "mul"), (1, 3, 4, 5, 7, 8, 9, 12, 15, 33)):
        quants = draw_quants(maker.rng, kind, (next(zeros), next(zeros), next(zeros)))
        add_pair(maker, kind, (1, 1, size), next(activations), quants)
        count += 1
    assert_exact(maker.finish(), count)


def test_all_pairs_of_stored_values() -> None:
    """The linear form of a sum is checked against the reference for all pairs; here the core itself is."""
    quants = [Quant.per_tensor(*affine) for affine in ((0.0713337, -128), (0.0531239, 3), (0.1187, -20))]
    maker = ProgramMaker(0)
    add_pair(maker, "add", (16, 16, 256), "none", quants)
    run = run_layer(maker.finish(), M4, kernel=DspElementwise(), samples=4)  # 4 x 65,536 random pairs
    assert run.worst_difference == 0


@pytest.mark.parametrize("kind", ["add", "sub", "mul"])
def test_constants(kind: str) -> None:
    maker = ProgramMaker(1)
    for shape, is_first in itertools.product(((3, 2, 5), (1, 1, 5)), (False, True)):
        quants = draw_quants(maker.rng, kind, (-128, 3, -7))
        operands = [
            maker.add_input((3, 2, 5), quants[0]),
            maker.add_constant(maker.rng.integers(-128, 128, (1, *shape)).astype(np.int8), quants[1]),
        ]
        maker.add_op(kind, operands[::-1] if is_first else operands, {"activation": "none"}, quants[2])
    assert_exact(maker.finish(), 4)


def test_a_residual_connection_streamed_and_in_place() -> None:
    maker = ProgramMaker(2)
    first = maker.add_layer(Layer((9, 3, 4), 6))
    second = maker.add_layer(Layer((9, 3, 6), 6), first)
    total = maker.add_op("add", [first, second], {"activation": "relu"}, Quant.per_tensor(0.7133, -128))
    maker.add_layer(Layer((9, 3, 6), 3), total)
    graph = maker.finish()
    assert_exact(graph, 1)
    assert_exact(graph, 1, pace=2)


def test_parts_of_wider_tensors() -> None:
    maker = ProgramMaker(3)
    quant, result = Quant.per_tensor(0.31, -128), Quant.per_tensor(0.5137, -128)
    source = maker.add_input((3, 4, 4), Quant.per_tensor(0.05, -128))
    parts = [maker.add_layer(Layer((3, 4, 4), channels), source, quant) for channels in (5, 5)]
    maker.add_op("concat", parts, {"axis": 3}, quant)
    maker.add_op("add", parts, {"activation": "none"}, result)
    assert_exact(maker.finish(), 1)


def test_ties_and_what_has_no_form_are_left_to_others() -> None:
    assert find_linear_form("add", (0.5, 0), (0.5, 0), (1.0, 0), "none") is None  # halves go away from zero
    assert find_linear_form("add", (0.5, 0), (0.5, 0), (0.5, 0), "none") is not None
    assert find_linear_form("add", (0.5, -128), (0.5, -128), (1.0, -128), "none") is not None  # no negative sums
    assert find_linear_form("add", (0.5, 0), (9.0, 0), (0.1, 0), "none") is None  # a factor of 90
    maker = ProgramMaker(4)
    add_pair(maker, "add", (1, 2, 9), "none", [Quant.per_tensor(scale, 0) for scale in (0.5, 0.5, 1.0)])
    add_pair(maker, "mul", (1, 2, 9), "none", [Quant.per_tensor(scale, 0) for scale in (0.5, 0.5, 0.01)])
    assert_exact(maker.finish(), 0)


def test_refusals() -> None:
    maker = ProgramMaker(5)
    quants = draw_quants(maker.rng, "add", (0, 0, 0))
    add_pair(maker, "add", (1, 2, 9), "none", quants)
    operands = [maker.add_input((3, 3, 2), quants[0]), maker.add_input((1, 1, 2), quants[1])]
    maker.add_op("add", operands, {"activation": "none"}, quants[2])
    graph = maker.finish()
    kernel = DspElementwise()
    assert kernel.lower(make_call(graph)) is not None
    assert kernel.lower(make_call(graph, target="cortex-m0plus")) is None
    assert kernel.lower(make_call(graph, index=1)) is None  # one activation repeated along the other


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_scales(seed: int) -> None:
    maker = ProgramMaker(seed)
    rng = maker.rng
    for _ in range(10):
        kind = str(rng.choice(["add", "sub", "mul"]))
        zero_points = tuple(int(value) for value in rng.integers(-128, 128, 3))
        quants = draw_quants(rng, kind, zero_points)  # type: ignore[arg-type]
        activation = str(rng.choice(["none", "relu", "relu6", "relu_n1_to_1"]))
        add_pair(maker, kind, (3, 7, int(rng.integers(1, 60))), activation, quants)
    run = run_layer(maker.finish(), M4, kernel=DspElementwise(), samples=6, seed=seed)
    assert run.worst_difference == 0
