"""How far other executors may be from the reference, per op, in steps of the output's scale (LSB).

Everything that is not in the table must be equal. These are the limits of the reference's own proofs, at scales chosen
to be hard; what a compile checks on real models is the table in `edgeprune.parity`.
"""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """lsb: the largest difference allowed; None where the executor has no such op."""

    lsb: int | None
    reason: str


_FLOAT32_FACTORS = "LiteRT computes the ratio of scales in float32; TFLite Micro, in float64"
_FLOAT_TABLE = "LiteRT fills a table by float exp; TFLite Micro computes in fixed point"

LIMITS: dict[tuple[str, str], Limit] = {
    ("fully_connected", "litert-reference"): Limit(1, "LiteRT rounds once (64-bit product); TFLite Micro twice"),
    ("mul", "litert-reference"): Limit(1, _FLOAT32_FACTORS),
    ("prelu", "litert-reference"): Limit(1, _FLOAT32_FACTORS),
    ("leaky_relu", "litert-reference"): Limit(1, _FLOAT32_FACTORS),
    ("hard_swish", "litert-reference"): Limit(1, _FLOAT32_FACTORS),
    ("logistic", "litert-reference"): Limit(1, _FLOAT_TABLE),
    ("tanh", "litert-reference"): Limit(1, _FLOAT_TABLE),
    ("relu_n1_to_1", "tflite-micro"): Limit(None, "TFLite Micro has no RELU_N1_TO_1 (fused after another op it has)"),
}

EXACT = Limit(0, "the same integer arithmetic")


def find_limit(kind: str, executor: str) -> Limit:
    """The entry of the table."""
    return LIMITS.get((kind, executor), EXACT)
