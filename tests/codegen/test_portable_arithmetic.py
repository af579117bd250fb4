"""Requantization: its folded forms in numpy, the C of ep_fixed_point and ep_divide, against edgeprune.fixedpoint."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeprune.codegen.kernel import Call
from edgeprune.codegen.requantize import GENERAL_ROUTE, encode_shift, fold_smmlar, scale_layer
from edgeprune.fixedpoint import multiply_by_quantized_multiplier, saturating_rounding_doubling_high_mul
from edgeprune.target import load_target
from tests.codegen.portable_rig import RUNTIME
from tests.reference_cases import make_edge_case

PROBE = """
#include "ep_divide.h"
#include "ep_fixed_point.h"
void requantize(int32_t count, const int32_t *value, const int32_t *multiplier, const int32_t *shift, int32_t *result)
{ for (int32_t i = 0; i < count; i++) result[i] = ep_requantize(value[i], multiplier[i], shift[i], -7); }
void multiply_high(int32_t count, const int32_t *value, const int32_t *multiplier, int32_t *result)
{ for (int32_t i = 0; i < count; i++) result[i] = ep_multiply_high(value[i], multiplier[i]); }
void divide(int32_t count, const int32_t *sum, const int32_t *divisor, int32_t *result)
{ for (int32_t i = 0; i < count; i++) result[i] = ep_divide(sum[i], divisor[i], (1u << 24) / (uint32_t)divisor[i]); }
"""


@pytest.fixture(scope="module", params=((), ("-DEP_NO_LONG_MULTIPLY",)), ids=("long", "short"))
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The C functions over arrays, as they are for cores with and without a long multiplication."""
    folder: Path = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(PROBE)
    command = ["gcc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-static-libubsan"]
    command += [*request.param, "-fno-sanitize-recover=all", "-shared", "-fPIC", "-I", str(RUNTIME)]
    command += [str(folder / "probe.c"), str(RUNTIME / "ep_fixed_point.c"), "-o", str(folder / "probe.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "probe.so"))


def _call(function: ctypes._NamedFuncPointer, *arrays: np.ndarray) -> np.ndarray:
    result = np.zeros(len(arrays[0]), np.int32)
    narrow = [np.ascontiguousarray(array, np.int32) for array in arrays]
    function(len(result), *(ctypes.c_void_p(array.ctypes.data) for array in (*narrow, result)))
    return result


def _draw_values(rng: np.random.Generator, count: int) -> np.ndarray:
    """int32 of every magnitude, powers of two and their neighbours among them."""
    values = rng.integers(-(2**31), 2**31, count) >> rng.integers(0, 31, count)
    near = (1 << rng.integers(0, 31, count)) * rng.choice((-1, 1), count) + rng.integers(-1, 2, count)
    return np.clip(np.where(rng.random(count) < 0.5, values, near), -(2**31), 2**31 - 1)


def test_requantize_in_c(probe: ctypes.CDLL) -> None:
    rng = np.random.default_rng(1)
    count = 200_000
    values = _draw_values(rng, count)
    multipliers = rng.integers(2**30, 2**31, count)
    multipliers = np.where(rng.random(count) < 0.3, 2**30, multipliers)  # ties
    multipliers[:100] = 0
    shifts = rng.integers(-31, 31, count)
    encoded = [encode_shift(int(s), abs(int(v))) for s, v in zip(shifts, values, strict=True)]
    expected = multiply_by_quantized_multiplier(values, multipliers, shifts) - 7
    assert np.array_equal(_call(probe.requantize, values, multipliers, np.array(encoded)), expected.astype(np.int32))


def test_multiply_high_in_c(probe: ctypes.CDLL) -> None:
    rng = np.random.default_rng(2)
    values, multipliers = _draw_values(rng, 100_000), _draw_values(rng, 100_000)
    multipliers = np.maximum(multipliers, -(2**31) + 1)
    expected = saturating_rounding_doubling_high_mul(values, multipliers)
    assert np.array_equal(_call(probe.multiply_high, values, multipliers), expected)


def test_divide_in_c(probe: ctypes.CDLL) -> None:
    rng = np.random.default_rng(3)
    counts = np.concatenate([np.arange(1, 400), rng.integers(1, 130_000, 100_000), [129_999]])
    sums = (rng.uniform(-128, 127, len(counts)) * counts).astype(np.int64)
    sums = np.where(rng.random(len(counts)) < 0.3, sums // counts * counts + counts // 2, sums)  # ties
    sums[:20], sums[-1] = -128 * counts[:20], -128 * counts[-1]
    sums = np.clip(sums, -128 * counts, 127 * counts)
    expected = np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)
    assert np.array_equal(_call(probe.divide, sums, counts), expected)


@pytest.mark.parametrize("kind", ["conv_2d", "depthwise_conv_2d", "fully_connected"])
def test_smmlar_form_is_exact(kind: str) -> None:
    """The short form against the two roundings, over each channel's whole range of accumulators."""
    rng = np.random.default_rng(4)
    folded = 0
    for seed in range(80):
        graph, _ = make_edge_case(kind, seed)
        shapes = [graph.tensors[name].shape for name in (graph.inputs[0], graph.outputs[0])]
        call = Call("layer", graph.ops[0], graph, load_target("cortex-m4"), (shapes[0][-1],), shapes[1][-1], 1)
        scales = scale_layer(call)
        constants = fold_smmlar(scales)
        if constants is None:
            continue
        folded += 1
        sums = rng.integers(scales.lowest, scales.highest + 1, (500, len(scales.bias)))
        sums[0], sums[1] = scales.lowest, scales.highest
        without_bias = sums - scales.bias
        twice = constants.twice_bias + 2 * without_bias
        value = constants.offset + ((twice * constants.multiplier + 2**31) >> 32)
        assert (np.abs(value) < 2**31).all()
        assert (np.abs(twice) < 2**31).all()
        corrected = (value + (twice >> 31)) >> constants.shift
        exact = multiply_by_quantized_multiplier(sums, scales.multiplier, scales.shift) + scales.zero_point
        assert np.array_equal(corrected, exact)
        if scales.clamps_negatives:
            low, high = scales.act_min, scales.act_max
            assert np.array_equal(np.clip(value >> constants.shift, low, high), np.clip(exact, low, high))
    assert folded > 20


def test_what_the_portable_form_cannot_do_goes_the_general_route() -> None:
    assert encode_shift(-1, 2**30 - 1) == 0
    assert encode_shift(-31, 5) == 30
    assert encode_shift(0, 5) == GENERAL_ROUTE
    assert encode_shift(3, 5) == GENERAL_ROUTE - 3
    assert encode_shift(-5, 2**30) == GENERAL_ROUTE + 5
