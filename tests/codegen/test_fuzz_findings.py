"""Programs in which fuzzing found faults, made small."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen.program import make_program
from edgeprune.codegen.streaming import plan_segment
from edgeprune.codegen.upright import stand_up
from edgeprune.target import load_target
from tests.codegen.harness import run_layer
from tests.codegen.random_ops import OpMaker
from tests.codegen.test_firmware import run_everywhere


@pytest.mark.parametrize("is_slice", [False, True])
def test_rows_of_others_are_not_streamed(is_slice: bool) -> None:
    """A reader of joined rows, or of a run of rows, is not at the row where the writer is."""
    maker = OpMaker(np.random.default_rng(0))
    x = maker.add_input((1, 1, 90, 3))
    y = maker.add_conv(x, 4, (1, 3), stride=(1, 3))
    if is_slice:
        joined = maker.add_slice(y, 2, 7, 30)
    else:
        joined = maker.add_concat([y, maker.add_depthwise(y, (1, 3), quant=y.quant)], 2)
    z = maker.add_depthwise(joined, (1, 5))
    graph = maker.finish("rows", [maker.add_mean(z)])
    program = make_program(stand_up(graph))
    shared = {name: name for name in program.buffer_bytes}
    last = len(program.steps) - 1
    assert all(plan_segment(program, shared, first, last, 1) is None for first in range(last - 1))
    run_everywhere(graph, "cortex-m4", "streaming")


@pytest.mark.parametrize(("is_first", "pace"), [(False, 1), (True, 1), (True, 2)])
def test_a_streamed_shortcut_is_not_written_over(is_first: bool, pace: int) -> None:
    """A residual add may not take the shortcut's memory, whose rows the convolution looks back at."""
    maker = OpMaker(np.random.default_rng(1))
    x = maker.add_conv(maker.add_input((1, 12, 7, 4)), 8)
    y = maker.add_conv(x, 8, (5, 5))
    pair = [x, y] if is_first else [y, x]
    total = maker.add_binary("add", *pair)
    graph = maker.finish("residual", [maker.add_mean(total)])
    assert run_layer(graph, load_target("cortex-m4"), pace=pace).worst_difference == 0


@pytest.mark.parametrize("kind", ["reshape", "slice", "lines"])
def test_outputs_made_of_outputs_are_written(kind: str) -> None:
    """Outputs share a buffer; one that is a reshape or a slice of another is still a tensor of its own."""
    maker = OpMaker(np.random.default_rng(2))
    x = maker.add_conv(maker.add_input((1, 4, 6, 3)), 5)
    if kind == "reshape":
        y = maker.add_reshape(x, (1, 120))
    else:
        y = maker.add_slice(x, 3, 1, 4) if kind == "slice" else maker.add_slice(x, 1, 1, 3)
    run_everywhere(maker.finish("outputs", [x, y]), "cortex-m4", "arena")


def test_a_constant_may_come_first() -> None:
    maker = OpMaker(np.random.default_rng(3))
    x = maker.add_input((1, 3, 4, 5))
    y = maker.add_binary("sub", maker.add_operand((1, 1, 1, 5), 0.02), x)
    run_everywhere(maker.finish("constant", [y]), "cortex-m4", "arena")


@pytest.mark.parametrize("rows", [2, 5])
def test_windows_of_small_maps_hold_the_padding_too(rows: int) -> None:
    """Where a depthwise layer writes over its window, the window begins before the map, from the first tick on."""
    maker = OpMaker(np.random.default_rng(4))
    x = maker.add_pool(maker.add_input((1, rows, 8, 4)), "max_pool_2d", (2, 2), (1, 1))
    y = maker.add_depthwise(x, (3, 3), dilation=(2, 1))
    graph = maker.finish("small", [maker.add_unary("relu", maker.add_conv(y, 13))])
    assert run_layer(graph, load_target("cortex-m4"), pace=1).worst_difference == 0
