"""Damaged and crafted bytes end in one clear sentence, never in a crash or a hang."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.lower import read_tflite, write_tflite
from edgeprune.quantize import calibrate, quantize_graph
from tests.lower.handmade import make_fcn_like
from tests.random_graphs import make_inputs, make_random_graph


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"PK\3\4" + bytes(60), bytes(range(256)) * 4])
def test_other_bytes_are_bad_input(data: bytes) -> None:
    with pytest.raises(InputError, match="TFLite file"):
        read_tflite(data)


def read_or_refuse(data: bytes) -> None:
    """Whatever the bytes: a graph that can be written again, or one of the two errors in one sentence."""
    message = None
    try:
        graph = read_tflite(data)
    except (InputError, UnsupportedModelError) as error:
        message = str(error)
    if message is None:
        read_tflite(write_tflite(graph))
    else:
        assert message
        assert "\n" not in message


def make_victims() -> list[bytes]:
    return [
        write_tflite(make_random_graph(seed, dtype=dtype, op_count=8))
        for seed, dtype in enumerate(("int8", "float32", "int8"))
    ]


def test_truncated_files_are_bad_input() -> None:
    for data in make_victims():
        for length in range(0, len(data), max(len(data) // 150, 1)):
            read_or_refuse(data[:length])


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_never_crash(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for data in make_victims():
        for _ in range(60):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), int(rng.integers(1, 6))):
                damaged[place] ^= 1 << int(rng.integers(8))
            read_or_refuse(bytes(damaged))


@pytest.mark.parametrize("word", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_overwritten_lengths_and_offsets_never_crash(word: int) -> None:
    for data in make_victims():
        for place in range(0, len(data) - 3, 4 * max(len(data) // 200, 1)):
            read_or_refuse(data[:place] + word.to_bytes(4, "little") + data[place + 4 :])


def test_shared_parts_do_not_multiply_the_work() -> None:
    """100,000 tensors that are one and the same table with a name of 200 kB: 20 GB to read, were there no budget."""
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("x" * 200_000)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, 100_000)
    for _ in range(100_000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(InputError, match="its parts overlap"):
        read_tflite(bytes(builder.Output()))


@pytest.mark.slow
def test_damaged_files_of_a_network_never_crash() -> None:
    graph = make_fcn_like()
    data = write_tflite(quantize_graph(graph, calibrate(graph, make_inputs(graph, 0, batch=4)["input"])))
    rng = np.random.default_rng(0)
    for _ in range(6_000):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), int(rng.integers(1, 20))):
            damaged[place] = int(rng.integers(256))
        read_or_refuse(bytes(damaged))
