"""Where tensors lie: concats written in place, reshapes and slices as views, copies only where nothing else will do."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.codegen.program import INPUT, OUTPUT, Place, Program, make_program
from edgeprune.errors import UnsupportedModelError
from edgeprune.graph import Graph, Op, Quant, Tensor
from edgeprune.ops import OPS

QUANT = Quant.per_tensor(0.1, -3)


class _Builder:
    """A program of int8 ops that moves bytes only."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.inputs = tuple(f"input{index}" for index in range(len(shapes)))
        self.tensors = {
            name: Tensor(name, shape, "int8", None, QUANT) for name, shape in zip(self.inputs, shapes, strict=True)
        }
        self.ops: list[Op] = []

    def add(self, kind: str, *operands: str, **attrs: object) -> str:
        name = f"{kind}{len(self.ops)}"
        shape = OPS[kind].infer_shape(attrs, [self.tensors[operand].shape for operand in operands])
        self.tensors[name] = Tensor(name, shape, "int8", None, QUANT)
        self.ops.append(Op(kind, name, operands, (name,), attrs))
        return name

    def finish(self, *outputs: str) -> Program:
        return make_program(Graph("test", self.tensors, tuple(self.ops), self.inputs, outputs))


def test_operands_of_a_concat_are_written_side_by_side() -> None:
    build = _Builder((1, 8, 1, 4))
    first, second = build.add("relu", "input0"), build.add("tanh", "input0")
    joined = build.add("concat", first, second, axis=3)
    program = build.finish(build.add("relu", joined))
    assert [step.op.kind for step in program.steps] == ["relu", "tanh", "relu"]
    assert program.places[first] == Place(joined, 0, 8)
    assert program.places[second] == Place(joined, 4, 8)


def test_concats_within_concats() -> None:
    build = _Builder((1, 8, 1, 4))
    a, b, c = (build.add("relu", "input0") for _ in range(3))
    inner = build.add("concat", b, c, axis=3)
    outer = build.add("concat", a, inner, axis=3)
    program = build.finish(build.add("relu", outer))
    assert program.places[c] == Place(outer, 8, 12)
    assert len(program.steps) == 4


def test_an_input_of_the_model_must_be_copied_into_a_concat() -> None:
    build = _Builder((1, 8, 1, 4))
    joined = build.add("concat", "input0", build.add("relu", "input0"), axis=3)
    program = build.finish(build.add("relu", joined))
    assert [(step.op.kind, step.part) for step in program.steps] == [("relu", 0), ("concat", 0), ("relu", 0)]


def test_a_tensor_joined_twice_is_copied() -> None:
    build = _Builder((1, 8, 1, 4))
    source = build.add("relu", "input0")
    program = build.finish(build.add("relu", build.add("concat", source, source, axis=3)))
    assert [step.op.kind for step in program.steps] == ["relu", "concat", "concat", "relu"]


def test_rows_joined_are_written_one_after_the_other() -> None:
    build = _Builder((1, 8, 2, 4))
    first, second = build.add("relu", "input0"), build.add("tanh", "input0")
    joined = build.add("concat", first, second, axis=1)
    program = build.finish(build.add("relu", joined))
    assert program.places[second] == Place(joined, 64, 4)
    assert len(program.steps) == 3


def test_a_reshape_is_a_view() -> None:
    build = _Builder((1, 8, 1, 4))
    flat = build.add("reshape", build.add("relu", "input0"), shape=(1, 32))
    program = build.finish(build.add("tanh", flat))
    assert [step.op.kind for step in program.steps] == ["relu", "tanh"]
    assert program.places["relu0"].buffer == program.places[flat].buffer


def test_a_reshape_of_the_input_is_a_view_of_it() -> None:
    build = _Builder((1, 8, 1, 4))
    flat = build.add("reshape", "input0", shape=(1, 32))
    program = build.finish(build.add("tanh", flat))
    assert program.places[flat] == Place(INPUT, 0, 32)


def test_an_output_is_written_where_the_caller_wants_it() -> None:
    build = _Builder((1, 8, 1, 4))
    flat = build.add("reshape", build.add("relu", "input0"), shape=(1, 32))
    program = build.finish(flat)
    assert [step.op.kind for step in program.steps] == ["relu"]
    assert program.places["relu0"].buffer == OUTPUT


def test_a_model_that_only_reshapes_copies() -> None:
    build = _Builder((1, 8, 1, 4))
    program = build.finish(build.add("reshape", "input0", shape=(1, 32)))
    assert [step.op.kind for step in program.steps] == ["reshape"]


def test_a_slice_of_channels_is_read_where_it_is() -> None:
    build = _Builder((1, 8, 1, 6))
    source = build.add("relu", "input0")
    whole = {"begin": (0, 0, 0, 2), "end": (1, 8, 1, 5), "stride": (1, 1, 1, 1)}
    part = build.add("strided_slice", source, **whole)
    program = build.finish(build.add("tanh", part))
    assert program.places[part] == Place(source, 2, 6)
    assert [step.op.kind for step in program.steps] == ["relu", "tanh"]


def test_a_slice_of_rows_is_a_view_and_of_every_other_row_is_not() -> None:
    for stride, kinds in ((1, ["relu", "tanh"]), (2, ["relu", "strided_slice", "tanh"])):
        build = _Builder((1, 8, 2, 6))
        source = build.add("relu", "input0")
        bounds = {"begin": (0, 2, 0, 0), "end": (1, 6, 2, 6), "stride": (1, stride, 1, 1)}
        program = build.finish(build.add("tanh", build.add("strided_slice", source, **bounds)))
        assert [step.op.kind for step in program.steps] == kinds


def test_several_outputs_lie_one_after_the_other() -> None:
    build = _Builder((1, 8, 1, 4), (1, 3))
    program = build.finish(build.add("relu", "input0"), build.add("tanh", "input1"))
    assert program.places["tanh1"] == Place(OUTPUT, 32, 3)
    assert program.places["input1"] == Place(INPUT, 32, 3)
    assert program.buffer_bytes[OUTPUT] == 35


def test_names_become_identifiers() -> None:
    tensors = {"input": Tensor("input", (1, 4), "int8", None, QUANT)}
    ops = []
    for index, name in enumerate(("0", "block.0/conv-1", "BLOCK_0_CONV_1", "é")):
        tensors[f"t{index}"] = Tensor(f"t{index}", (1, 4), "int8", None, QUANT)
        ops.append(Op("relu", name, (f"t{index - 1}" if index else "input",), (f"t{index}",), {}))
    program = make_program(Graph("names", tensors, tuple(ops), ("input",), ("t3",)))
    assert [step.name for step in program.steps] == ["l0", "block_0_conv_1", "BLOCK_0_CONV_1_2", "layer"]


def test_float_programs_are_refused() -> None:
    tensors = {name: Tensor(name, (1, 4)) for name in ("input", "y")}
    with pytest.raises(UnsupportedModelError, match="int8 programs only"):
        make_program(Graph("float", tensors, (Op("relu", "relu", ("input",), ("y",), {}),), ("input",), ("y",)))


def test_a_constant_operand_of_a_concat_is_refused() -> None:
    build = _Builder((1, 8, 1, 4))
    build.tensors["c"] = Tensor.constant("c", np.zeros((1, 8, 1, 2), np.int8), QUANT)
    joined = build.add("concat", "input0", "c", axis=3)
    with pytest.raises(UnsupportedModelError, match="operand c is constant"):
        build.finish(joined)
