"""Damaged int8 files end in one of two errors, in one sentence; what is taken in computes as TFLite Micro does.

20,000 mutations (the slow test, November 2026): 12,998 bad input, 4,796 not supported, 395 that break a rule of the
target, 1,811 programs, each of which TFLite Micro computes to the same bit.
"""

from __future__ import annotations

import resource
from collections import Counter

import numpy as np
import pytest

from edgeprune.errors import InputError, UnsupportedModelError
from edgeprune.executors import MICRO_AVAILABLE, MicroExecutor
from edgeprune.lower import check_supported, read_int8_program, read_tflite, write_tflite
from edgeprune.lower.constraints import dense_has_one_scale
from edgeprune.reference import run_graph
from edgeprune.target import load_target
from tests.lower.tflite_mutations import mutate
from tests.random_graphs import make_inputs, make_random_graph

VICTIMS = [write_tflite(make_random_graph(seed, op_count=8, float_edges=seed % 3 == 0)) for seed in range(12)]
TARGET = load_target("cortex-m4")


def try_program(data: bytes, is_run: bool) -> str:
    """What became of the bytes: 'bad input', 'not supported', 'breaks a rule' or 'compiled'."""
    message, graph = "", None
    try:
        graph = read_int8_program(data).graph
    except (InputError, UnsupportedModelError) as error:
        message, outcome = str(error), "bad input" if isinstance(error, InputError) else "not supported"
    if graph is None:
        assert message
        assert message.isprintable()
        return outcome
    if check_supported(graph, TARGET, exempt=(dense_has_one_scale,)):
        return "breaks a rule"
    if is_run:
        inputs = make_inputs(graph, seed=0, batch=2)
        expected = run_graph(graph, inputs)
        found = MicroExecutor(write_tflite(graph)).run(*inputs.values())
        for name, values in zip(graph.outputs, found, strict=True):
            assert np.array_equal(values, expected[name]), name
    return "compiled"


def fuzz(count: int, seed: int, is_run: bool) -> Counter[str]:
    """How often each outcome came about."""
    rng = np.random.default_rng(seed)
    return Counter(try_program(mutate(VICTIMS[index % len(VICTIMS)], rng)[1], is_run) for index in range(count))


def test_the_victims_are_programs() -> None:
    outcomes = Counter(try_program(data, is_run=False) for data in VICTIMS)
    assert outcomes["compiled"] + outcomes["breaks a rule"] >= 10
    for data in VICTIMS:
        read_tflite(data)


def test_damaged_files_are_refused_in_one_sentence() -> None:
    outcomes = fuzz(300, seed=1, is_run=MICRO_AVAILABLE)
    assert sum(outcomes.values()) == 300
    assert min(outcomes["bad input"], outcomes["not supported"], outcomes["compiled"]) > 5


@pytest.mark.slow
def test_20000_damaged_files_are_refused_or_computed_right() -> None:
    outcomes = fuzz(20_000, seed=0, is_run=MICRO_AVAILABLE)
    print(dict(outcomes))
    assert sum(outcomes.values()) == 20_000
    # kilobytes: huge shapes must not become huge arrays
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000
