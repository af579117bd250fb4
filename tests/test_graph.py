"""The program: what its parts refuse, verification, passes, cutting, equality, text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeprune.graph import (
    Graph,
    GraphError,
    Op,
    Quant,
    Tensor,
    cut_op,
    format_graph,
    is_same_graph,
    remove_unused_tensors,
    run_passes,
    verify_graph,
)

QUANT = Quant.per_tensor(0.5, -3)


def make_graph() -> Graph:
    """relu(x) + bias over (1, 1, 4, 3), int8."""
    tensors = [
        Tensor("x", (1, 1, 4, 3), "int8", None, QUANT),
        Tensor("positive", (1, 1, 4, 3), "int8", None, QUANT),
        Tensor.constant("bias", np.array([1, 2, 3], np.int8), QUANT),
        Tensor("y", (1, 1, 4, 3), "int8", None, QUANT),
    ]
    ops = (
        Op("relu", "act", ("x",), ("positive",)),
        Op("add", "sum", ("positive", "bias"), ("y",), {"activation": "none"}),
    )
    return Graph("small", {tensor.name: tensor for tensor in tensors}, ops, ("x",), ("y",))


def change_op(graph: Graph, index: int, **changes: object) -> Graph:
    ops = list(graph.ops)
    ops[index] = replace(ops[index], **changes)
    return replace(graph, ops=tuple(ops))


# --- parts ---


def test_quant_normalises_its_vectors() -> None:
    assert (QUANT.scale.dtype, QUANT.zero_point.dtype, QUANT.scale.shape) == (np.float32, np.int32, (1,))
    assert Quant(0.5, 3).scale.shape == (1,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scale", "zero_point", "axis", "message"),
    [
        ([0.1, 0.2], [0], 0, "equal vectors"),
        ([[0.1]], [[0]], None, "equal vectors"),
        ([0.1, 0.2], [0, 0], None, "need a channel axis"),
        ([0.0], [0], None, "finite and positive"),
        ([float("nan")], [0], None, "finite and positive"),
        ([float("inf")], [0], None, "finite and positive"),
    ],
)
def test_quant_refuses(scale: list, zero_point: list, axis: int | None, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Quant(np.array(scale), np.array(zero_point), axis)


def test_tensor_refuses() -> None:
    with pytest.raises(GraphError, match="dtype is uint8; allowed: float32"):
        Tensor("t", (1,), "uint8")
    with pytest.raises(GraphError, match=r"data is float32\(2,\), declared float32\(3,\)"):
        Tensor("t", (3,), "float32", np.zeros(2, np.float32))
    with pytest.raises(GraphError, match="declared int8"):
        Tensor("t", (2,), "int8", np.zeros(2, np.float32))


def test_tensor_facts() -> None:
    constant = Tensor.constant("c", np.zeros((2, 3), np.int32)[:, ::-1])
    assert constant.data is not None
    assert constant.data.flags.c_contiguous
    assert (constant.is_constant, constant.element_count, constant.byte_count) == (True, 6, 24)
    scalar = Tensor.constant("s", np.float32(2.0))  # type: ignore[arg-type]
    assert (scalar.shape, scalar.element_count, scalar.byte_count) == ((), 1, 4)
    assert not Tensor("t", (1, 2)).is_constant


def test_a_graph_cannot_be_changed() -> None:
    graph = make_graph()
    with pytest.raises(TypeError):
        graph.tensors["z"] = graph.tensors["x"]  # type: ignore[index]
    with pytest.raises(TypeError):
        graph.ops[1].attrs["activation"] = "relu"  # type: ignore[index]


def test_producer_and_consumers() -> None:
    graph = make_graph()
    assert graph.producer("y") is graph.ops[1]
    assert graph.producer("x") is None
    assert graph.producer("bias") is None
    assert graph.consumers("positive") == (graph.ops[1],)
    assert graph.consumers("y") == ()
    assert graph.is_quantized
    assert not graph.with_tensors([Tensor("x", (1, 1, 4, 3))]).is_quantized


# --- verify_graph ---


def rename_key(graph: Graph) -> Graph:
    return replace(graph, tensors={**graph.tensors, "other": graph.tensors["x"]})


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (rename_key(make_graph()), "tensor x is stored as other"),
        (replace(make_graph(), inputs=("bias",)), "input bias is missing or constant"),
        (replace(make_graph(), inputs=("nowhere",)), "input nowhere is missing or constant"),
        (replace(make_graph(), outputs=("nowhere",)), "output nowhere is never written"),
        (replace(make_graph(), ops=make_graph().ops[::-1]), "sum (add) reads positive before it is written"),
        (change_op(make_graph(), 0, kind="gelu"), "act: unknown op kind gelu; allowed: conv_2d"),
        (change_op(make_graph(), 1, outputs=("positive",)), "sum (add) writes positive a second time"),
        (change_op(make_graph(), 1, outputs=("z",)), "sum (add) writes z, which is not declared"),
        (change_op(make_graph(), 1, attrs={}), "sum (add): attributes are none; it has activation"),
        (change_op(make_graph(), 0, attrs={"alpha": 1}), "act (relu): attributes are alpha; it has none"),
        (change_op(make_graph(), 1, inputs=("x",)), "sum (add): 1 operands; it takes a, b"),
        (make_graph().with_tensors([Tensor("y", (1, 4))]), "y is declared (1, 4), computed (1, 1, 4, 3)"),
        (
            make_graph().with_tensors([Tensor.constant("bias", np.zeros(2, np.int8))]),
            "sum (add): shapes (1, 1, 4, 3) and (2,) do not broadcast",
        ),
    ],
)
def test_verify_graph_refuses(graph: Graph, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        verify_graph(graph)
    assert message in str(caught.value)


def test_run_passes_names_the_pass_that_broke_the_graph() -> None:
    def drop_first_op(graph: Graph) -> Graph:
        return replace(graph, ops=graph.ops[1:])

    def keep(graph: Graph) -> Graph:
        return graph

    assert run_passes(make_graph(), [keep, keep]).ops == make_graph().ops
    with pytest.raises(GraphError, match="after pass drop_first_op: sum"):
        run_passes(make_graph(), [keep, drop_first_op])


# --- functions ---


def test_cut_op_makes_activations_inputs_and_keeps_constants() -> None:
    cut = cut_op(make_graph(), 1)
    verify_graph(cut)
    assert (cut.name, cut.inputs, cut.outputs) == ("small/sum", ("positive",), ("y",))
    assert cut.tensors["bias"].is_constant


def test_cut_op_lists_an_operand_once() -> None:
    graph = change_op(make_graph(), 1, inputs=("positive", "positive"))
    assert cut_op(graph, 1).inputs == ("positive",)


def test_remove_unused_tensors() -> None:
    graph = make_graph()
    extended = graph.with_tensors([Tensor("unused", (1,))])
    assert set(remove_unused_tensors(extended).tensors) == set(graph.tensors)


@pytest.mark.parametrize(
    "other",
    [
        replace(make_graph(), outputs=("positive",)),
        make_graph().with_tensors([Tensor("unused", (1,))]),
        change_op(make_graph(), 1, attrs={"activation": "relu"}),
        change_op(make_graph(), 1, name="other"),
        make_graph().with_tensors([Tensor.constant("bias", np.array([1, 2, 4], np.int8), QUANT)]),
        make_graph().with_tensors([Tensor.constant("bias", np.array([1, 2, 3], np.int8))]),
        make_graph().with_tensors([Tensor("x", (1, 1, 4, 3), "int8", None, Quant.per_tensor(0.5, -2))]),
        make_graph().with_tensors([Tensor("x", (1, 1, 4, 3), "int8", None, Quant.per_tensor(0.25, -3))]),
        make_graph().with_tensors([Tensor("x", (1, 1, 4, 3), "int16", None, QUANT)]),
        make_graph().with_tensors([Tensor("x", (1, 1, 3, 4), "int8", None, QUANT)]),
    ],
)
def test_graphs_that_differ(other: Graph) -> None:
    assert not is_same_graph(make_graph(), other)


def test_graphs_that_are_the_same() -> None:
    assert is_same_graph(make_graph(), make_graph())
    assert is_same_graph(make_graph(), replace(make_graph(), name="another"))


def test_format_graph() -> None:
    assert format_graph(make_graph()) == (
        "graph small(x:int8[1, 1, 4, 3]@0.5-3)\n"
        "  positive:int8[1, 1, 4, 3]@0.5-3 = relu(x) {}  # act\n"
        "  y:int8[1, 1, 4, 3]@0.5-3 = add(positive, bias) {activation=none}  # sum\n"
        "  return y"
    )
