"""Which layer does int8 hurt: signal to quantization noise, op by op."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.errors import InputError
from edgeprune.graph import Graph
from edgeprune.reference import dequantize_values, quantize_values, run_graph, run_op


@dataclass(frozen=True)
class LayerNoise:
    """SQNR = 10 log10(sum float^2 / sum (float - int8)^2), in dB, of one op's output over all samples.

    sqnr_db: with the noise of all ops before it. own_db: fed the float program's values rounded to int8, so the noise
    of this op alone and of rounding its inputs. Infinite where there is no noise; 0 where there is no signal but noise.
    """

    layer: str
    kind: str
    tensor: str
    sqnr_db: float
    own_db: float


def measure_sqnr(float_graph: Graph, int8_graph: Graph, samples_nhwc: np.ndarray) -> tuple[LayerNoise, ...]:
    """The noise of every op that both programs have, worst `sqnr_db` first.

    int8_graph: made by `quantize_graph` from float_graph (tensors keep their names). samples_nhwc: float32 (N, ...).
    """
    if len(samples_nhwc) == 0:
        raise InputError("measuring quantization noise needs at least one sample")
    (name,) = float_graph.inputs
    real = {name: samples_nhwc, **run_graph(float_graph, samples_nhwc, keep="all")}
    stored_input = _round(int8_graph, name, samples_nhwc)
    stored = {name: stored_input, **run_graph(int8_graph, stored_input, keep="all")}
    rows = []
    for op in int8_graph.ops:
        (output,) = op.outputs
        if output not in real:  # a bridge between two scales, which only the int8 program has
            real[output] = real[op.inputs[0]]
            continue
        inputs = []
        for operand in op.inputs:
            data = int8_graph.tensors[operand].data
            inputs.append(_round(int8_graph, operand, real[operand]) if data is None else data)
        alone = run_op(op, int8_graph, inputs)
        rows.append(
            LayerNoise(
                layer=op.name,
                kind=op.kind,
                tensor=output,
                sqnr_db=_sqnr_db(real[output], _real(int8_graph, output, stored[output])),
                own_db=_sqnr_db(real[output], _real(int8_graph, output, alone)),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.sqnr_db, row.own_db)))


def _round(graph: Graph, name: str, values: np.ndarray) -> np.ndarray:
    quant = graph.tensors[name].quant
    return values if quant is None else quantize_values(values, quant)


def _real(graph: Graph, name: str, values: np.ndarray) -> np.ndarray:
    quant = graph.tensors[name].quant
    return values if quant is None else dequantize_values(values, quant)


def _sqnr_db(signal: np.ndarray, found: np.ndarray) -> float:
    finite = np.isfinite(signal)  # padding with the lowest value is -infinity in float
    signal = np.where(finite, signal, 0.0).astype(np.float64)
    noise = np.where(finite, found - signal, 0.0)
    signal_power, noise_power = float((signal**2).sum()), float((noise**2).sum())
    if noise_power == 0:
        return float("inf")
    if signal_power == 0:
        return 0.0
    return float(10 * np.log10(signal_power / noise_power))
