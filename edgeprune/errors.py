"""Errors that edgeprune raises on purpose, each with the exit code the command line ends with.

Every message names the place, what was found, what is allowed and what to do, in one or two sentences.
Anything else that escapes is a fault of edgeprune itself (exit code 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class EdgepruneError(Exception):
    """A fault, or the base of every error below."""

    exit_code: ClassVar[int] = 1


class ParityError(EdgepruneError):
    """Two forms of one program differ by more than the table of limits allows."""


class InputError(EdgepruneError):
    """A usage mistake or a bad input: a file, a dataset, an option."""

    exit_code = 2


class BudgetMissedError(EdgepruneError):
    """Everything was built and measured, but over a budget."""

    exit_code = 3


class RegressionError(EdgepruneError):
    """Everything was built and measured, but worse than the baseline."""

    exit_code = 4


class UnsupportedModelError(EdgepruneError):
    """The model holds something that edgeprune or the target does not support."""

    exit_code = 5


class MeasurementUnavailableError(EdgepruneError):
    """A number was asked for that cannot be measured here."""

    exit_code = 6


class UntrustedInputError(EdgepruneError):
    """A model file that would run code, or was crafted to harm, was refused."""

    exit_code = 7


# Where several apply at once, the first of these is the exit code of the command.
EXIT_CODE_PRECEDENCE = (1, 7, 2, 5, 6, 4, 3, 0)


def combine_exit_codes(codes: Iterable[int]) -> int:
    """The one exit code for several outcomes; 0 when there are none.

    >>> combine_exit_codes([3, 6, 0])
    6
    """
    return min(codes, key=EXIT_CODE_PRECEDENCE.index, default=0)
