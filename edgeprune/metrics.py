"""One ruler for every form of the program: accuracy, macro-F1, confusion matrix.

Predictions of PyTorch, ONNX Runtime, LiteRT and firmware all end here, so that their figures can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.errors import InputError


@dataclass(frozen=True, eq=False)
class Scores:
    """How well a set of samples was classified.

    accuracy, macro_f1: 0 to 1.
    confusion: int64 (classes, classes), row: true class, column: predicted class.
    n: number of samples.
    """

    accuracy: float
    macro_f1: float
    confusion: np.ndarray
    n: int


def score_predictions(y_true: np.ndarray, logits: np.ndarray) -> Scores:
    """Score what a classifier gave out, one row per sample.

    y_true: (N,) integers, indices of classes.
    logits: (N, classes): logits, probabilities or int8 values; the largest wins, the first one of equals.

    Raises InputError if the shapes do not fit, if a label is no column of `logits`, or if a value is not finite.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise InputError(f"predictions have shape {logits.shape}; allowed: (samples, classes)")
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise InputError(f"predictions of {bad} of {len(logits)} samples are not finite; the model cannot be scored")
    confusion = confusion_matrix(y_true, logits.argmax(axis=1), classes=logits.shape[1])
    return Scores(
        accuracy=float(np.trace(confusion) / confusion.sum()),
        macro_f1=compute_macro_f1(confusion),
        confusion=confusion,
        n=int(confusion.sum()),
    )


def accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of samples whose predicted class is the true one.

    >>> accuracy(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    0.75
    """
    y_true, y_pred = check_labels(y_true, y_pred)
    return float(np.mean(y_true == y_pred))


def macro_f1(y_true: np.ndarray, y_pred: np.ndarray, *, classes: int | None = None) -> float:
    """Mean of the classes' F1 = 2 TP / (2 TP + FP + FN); see `compute_macro_f1` for absent classes.

    classes: how many there are; by default as many as the labels show.

    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))  # F1 of 2/3 and 4/5
    0.7333333333333334
    """
    return compute_macro_f1(confusion_matrix(y_true, y_pred, classes=classes))


def compute_macro_f1(confusion: np.ndarray) -> float:
    """Macro-F1 of a confusion matrix.

    A class that is neither among the true labels nor predicted has no F1 (0/0) and is left out of the mean. A class
    that is only predicted, or never predicted, has F1 = 0 and counts. (scikit-learn's f1_score(average='macro') does
    the same when it is not told the classes.)
    """
    hits = np.diag(confusion).astype(np.float64)
    present = confusion.sum(axis=0) + confusion.sum(axis=1)  # 2 TP + FP + FN
    seen = present > 0
    return float(np.mean(2 * hits[seen] / present[seen]))


def confusion_matrix(y_true: np.ndarray, y_pred: np.ndarray, *, classes: int | None = None) -> np.ndarray:
    """int64 (classes, classes): how many samples of the row's class were taken for the column's.

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1])).tolist()
    [[1, 0], [1, 1]]
    """
    y_true, y_pred = check_labels(y_true, y_pred)
    needed = int(max(y_true.max(), y_pred.max())) + 1
    size = needed if classes is None else classes
    if needed > size:
        raise InputError(
            f"labels reach class {needed - 1}, but the model has {size} outputs; use the data it was made for"
        )
    return np.bincount(y_true * size + y_pred, minlength=size * size).reshape(size, size).astype(np.int64)


def check_labels(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64 (N,). Raises InputError unless they are integers >= 0, of one length, and not empty."""
    arrays = []
    for name, labels in (("true labels", y_true), ("predicted labels", y_pred)):
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(
                f"{name} are {labels.dtype} of shape {labels.shape}; allowed: integers of shape (samples,)"
            )
        if labels.size and labels.min() < 0:
            raise InputError(f"{name} hold {labels.min()}; classes are numbered from 0")
        arrays.append(labels.astype(np.int64))
    true, predicted = arrays
    if len(true) != len(predicted):
        raise InputError(f"{len(true)} true labels, {len(predicted)} predictions; there must be one for each sample")
    if len(true) == 0:
        raise InputError("no samples to score; the set is empty")
    return true, predicted
