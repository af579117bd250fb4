"""Exit codes: one for each outcome, and one order among them."""

from __future__ import annotations

import pytest

from edgeprune import errors
from edgeprune.errors import EXIT_CODE_PRECEDENCE, EdgepruneError, combine_exit_codes
from edgeprune.graph import GraphError

ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, EdgepruneError)]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("EdgepruneError", 1),
        ("ParityError", 1),
        ("InputError", 2),
        ("BudgetMissedError", 3),
        ("RegressionError", 4),
        ("UnsupportedModelError", 5),
        ("MeasurementUnavailableError", 6),
        ("UntrustedInputError", 7),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_every_code_has_its_place_in_the_order() -> None:
    assert sorted(EXIT_CODE_PRECEDENCE) == list(range(8))
    assert {error.exit_code for error in ERRORS} | {0} == set(EXIT_CODE_PRECEDENCE)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([], 0), ([0], 0), ([0, 3], 3), ([3, 4], 4), ([4, 6], 6), ([6, 5], 5), ([5, 2], 2), ([2, 7], 7), ([7, 1], 1)],
)
def test_combining(codes: list[int], expected: int) -> None:
    assert combine_exit_codes(codes) == combine_exit_codes(reversed(codes)) == expected


def test_a_broken_graph_is_a_fault_of_ours() -> None:
    assert GraphError.exit_code == 1
