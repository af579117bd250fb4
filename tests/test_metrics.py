"""Metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.metrics import accuracy, confusion_matrix, macro_f1, score_predictions

TRUE = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])


def test_three_classes_by_hand() -> None:
    assert accuracy(TRUE, PREDICTED) == 4 / 6
    assert confusion_matrix(TRUE, PREDICTED).tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    # class 0: TP 2, FP 0, FN 1; class 1: TP 1, FP 1, FN 1; class 2: TP 1, FP 1, FN 0
    assert macro_f1(TRUE, PREDICTED) == pytest.approx((4 / 5 + 2 / 4 + 2 / 3) / 3, abs=1e-15)  # float64 rounding


def test_absent_class_is_left_out_and_missed_class_counts_as_zero() -> None:
    true = np.array([0, 0, 1, 1])
    # 2 of 4 classes never occur, neither true nor predicted
    assert macro_f1(true, true, classes=4) == 1.0
    # class 1 is never predicted: F1 0; class 0: TP 2, FP 2
    assert macro_f1(true, np.zeros(4, np.int64)) == pytest.approx((4 / 6 + 0) / 2, abs=1e-15)
    # class 2 is predicted once, never true: F1 0
    assert macro_f1(true, np.array([0, 0, 1, 2])) == pytest.approx((1 + 2 / 3 + 0) / 3, abs=1e-15)


def test_score_predictions_takes_the_largest_output() -> None:
    logits = np.eye(3, dtype=np.float32)[PREDICTED]
    scores = score_predictions(TRUE, logits)
    assert (scores.accuracy, scores.n) == (4 / 6, 6)
    assert scores.macro_f1 == macro_f1(TRUE, PREDICTED)
    assert scores.confusion.shape == (3, 3)
    assert np.array_equal(scores.confusion, score_predictions(TRUE, (logits * 255 - 128).astype(np.int8)).confusion)


def test_a_class_that_the_test_set_lacks_keeps_its_row() -> None:
    scores = score_predictions(np.array([0, 1]), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert scores.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert scores.macro_f1 == 1.0


@pytest.mark.parametrize(
    ("true", "logits", "message"),
    [
        (np.array([0, 3]), np.eye(3)[[0, 1]], "labels reach class 3, but the model has 3 outputs"),
        (np.array([0, 1, 1]), np.eye(3)[[0, 1]], "3 true labels, 2 predictions"),
        (np.array([0.5, 1.0]), np.eye(3)[[0, 1]], "true labels are float64"),
        (np.array([-1, 1]), np.eye(3)[[0, 1]], "numbered from 0"),
        (np.array([0, 1]), np.array([0.1, 0.2]), "shape \\(2,\\)"),
        (np.array([0, 1]), np.array([[0.0, np.nan], [0.0, 1.0]]), "1 of 2 samples are not finite"),
        (np.array([], np.int64), np.zeros((0, 2)), "no samples to score"),
    ],
)
def test_what_cannot_be_scored_is_refused(true: np.ndarray, logits: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score_predictions(true, logits)
