"""From what a reader found in a file to a checked Dataset: one place for every rule about the values.

Readers (npz, UCR text, EDF, images) know their format and lay samples out channels first; what is checked here is the
same for all of them: numbers, finite, one shape, labels that name at least two classes, every class of the test set
seen in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeprune.artifacts import Dataset
from edgeprune.errors import InputError
from edgeprune.load.splits import split_by_class

# Datasets for edge devices are small; what claims more is a mistake or a zip bomb, and would fill the memory.
MAX_DATASET_BYTES = 2 * 1024**3

# Share of each class that becomes the test set when the data comes without one.
TEST_FRACTION = 0.2

HOW_TO_PAD = (
    "pad every series to one length (numpy: np.pad(series, (0, length - len(series)), mode='edge')), "
    "or cut all to the shortest"
)


@dataclass(frozen=True, eq=False)
class RawData:
    """What a reader found, not yet checked.

    x_train, x_test: (N, C, T) or (N, C, H, W), any dtype; x_test and y_test None: to be split off here.
    y_train, y_test: (N,) labels, numbers or strings; y_train None: samples without labels, their test set given.
    class_names: where the file itself lists them; integer labels then are indices into it, strings are names in it.
    names: how the file calls x_train, y_train, x_test, y_test; for messages.
    """

    name: str
    source: str
    x_train: np.ndarray
    y_train: np.ndarray | None
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    names: tuple[str, str, str, str] = ("x_train", "y_train", "x_test", "y_test")
    notes: tuple[str, ...] = ()


def assemble_dataset(raw: RawData, seed: int) -> Dataset:
    """Check everything and make the Dataset; split a test set off where there is none (stratified, seeded).

    Raises InputError naming the file, the array and the sample.
    """
    x_name, y_name, x_test_name, y_test_name = raw.names
    x_train = _check_samples(f"{raw.source}: {x_name}", raw.x_train)
    if raw.y_train is None:
        return _assemble_unlabelled(raw, x_train)
    y_train = _name_labels(f"{raw.source}: {y_name}", raw.y_train)
    _check_lengths(raw.source, x_name, x_train, y_name, y_train)
    if raw.x_test is None or raw.y_test is None:
        class_names, encoded = _encode_labels(raw, y_train, None)
        return _split_dataset(raw, x_train, encoded[0], class_names, seed)
    x_test = _check_samples(f"{raw.source}: {x_test_name}", raw.x_test)
    y_test = _name_labels(f"{raw.source}: {y_test_name}", raw.y_test)
    _check_lengths(raw.source, x_test_name, x_test, y_test_name, y_test)
    _check_same_shape(raw, x_train, x_test)
    class_names, (train_ids, test_ids) = _encode_labels(raw, y_train, y_test)
    notes = raw.notes + _note_single_samples(train_ids, class_names)
    return Dataset(raw.name, x_train, train_ids, x_test, test_ids, class_names, raw.source, notes)


def _assemble_unlabelled(raw: RawData, x_train: np.ndarray) -> Dataset:
    """Samples without labels: enough to calibrate on, or for a training function that brings its own targets."""
    if raw.x_test is None:
        raise InputError(f"{raw.source}: without labels a test set cannot be split off; give x_train and x_test")
    x_test = _check_samples(f"{raw.source}: {raw.names[2]}", raw.x_test)
    _check_same_shape(raw, x_train, x_test)
    nothing = (np.zeros(len(x_train), np.int64), np.zeros(len(x_test), np.int64))
    return Dataset(raw.name, x_train, nothing[0], x_test, nothing[1], (), raw.source, raw.notes)


def _check_same_shape(raw: RawData, x_train: np.ndarray, x_test: np.ndarray) -> None:
    if x_train.shape[1:] != x_test.shape[1:]:
        raise InputError(
            f"{raw.source}: a sample of {raw.names[0]} has shape {x_train.shape[1:]}, one of {raw.names[2]} "
            f"{x_test.shape[1:]}; both must have the same shape. For series of different lengths: {HOW_TO_PAD}"
        )


def _split_dataset(raw: RawData, x: np.ndarray, y: np.ndarray, class_names: tuple[str, ...], seed: int) -> Dataset:
    """A stratified test set out of one array; every class needs a sample on either side."""
    counts = np.bincount(y, minlength=len(class_names))
    if counts.min() < 2:
        raise InputError(
            f"{raw.source}: class {class_names[int(counts.argmin())]!r} has {counts.min()} sample(s); a split into "
            "train and test needs at least 2 of each class. Add samples, drop the class, or give x_train and x_test"
        )
    train, test = split_by_class(y, TEST_FRACTION, seed)
    note = (
        f"{len(test)} of {len(y)} samples were split off as the test set (stratified, seed {seed}); "
        "train and compile with the same split, or the test set is not unseen"
    )
    notes = (*raw.notes, note, *_note_single_samples(y[train], class_names))
    return Dataset(raw.name, x[train], y[train], x[test], y[test], class_names, raw.source, notes)


def _note_single_samples(y_train: np.ndarray, class_names: tuple[str, ...]) -> tuple[str, ...]:
    counts = np.bincount(y_train, minlength=len(class_names))
    single = [class_names[index] for index in np.flatnonzero(counts == 1)]
    if not single:
        return ()
    return (f"one training sample only, so absent from any validation split: class {', '.join(single)}",)


def check_size(source: str, size_bytes: int) -> None:
    """Refuse what would not fit in memory; readers call it before they allocate."""
    if size_bytes > MAX_DATASET_BYTES:
        raise InputError(
            f"{source}: the data claims {size_bytes / 1024**3:.1f} GiB in memory; at most "
            f"{MAX_DATASET_BYTES / 1024**3:.0f} GiB is read. Use a subset (or the file is damaged)"
        )


def _check_samples(where: str, x: np.ndarray) -> np.ndarray:
    """Samples as float32, finite, (N, C, T) or (N, C, H, W) with nothing empty."""
    if x.dtype.kind not in "fiub":
        raise InputError(
            f"{where} has dtype {x.dtype}; allowed are float and integer. Convert it, for instance to float32"
        )
    if x.ndim not in (3, 4):
        raise InputError(
            f"{where} has shape {x.shape}; allowed are series (samples, length) or (samples, channels, length) "
            "and images with 3 or 4 dimensions"
        )
    if x.size == 0:
        raise InputError(f"{where} is empty: its shape is {x.shape}. Give at least one sample of at least one value")
    check_size(where, x.size * 4)
    bad = ~np.isfinite(x)
    if bad.any():
        raise InputError(_describe_not_finite(where, x, bad))
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(x, dtype=np.float32)
    too_large = ~np.isfinite(values)
    if too_large.any():
        at = tuple(int(i) for i in np.argwhere(too_large)[0])
        raise InputError(
            f"{where}: sample {at[0]}, channel {at[1]} holds {x[at]:.6g}, too large for float32. Scale the data down"
        )
    return values


def _describe_not_finite(where: str, x: np.ndarray, bad: np.ndarray) -> str:
    sample, channel, *position = (int(i) for i in np.argwhere(bad)[0])
    first = f"sample {sample}, channel {channel}"
    if x.ndim == 3 and np.isnan(x[bad]).all() and _only_at_the_end(bad):
        length = int((~bad[sample]).any(axis=0).sum())
        return (
            f"{where}: {first} ends after {length} of {x.shape[2]} values (the rest is NaN), so the series have "
            f"unequal length, which a network of fixed input size cannot take; {HOW_TO_PAD}"
        )
    samples = int(bad.reshape(len(bad), -1).any(axis=1).sum())
    place = f"position {position[0]}" if len(position) == 1 else f"row {position[0]}, column {position[1]}"
    return (
        f"{where}: {first} holds {x[(sample, channel, *position)]} at {place}; {samples} of {len(x)} samples hold "
        "NaN or "
        "infinity. Remove those samples or fill the gaps"
    )


def _only_at_the_end(bad: np.ndarray) -> bool:
    """True if each channel is good up to some place and bad from there on, and no channel is bad all over."""
    return bool((np.diff(bad.astype(np.int8), axis=2) >= 0).all() and not bad[:, :, 0].any())


def _check_lengths(source: str, x_name: str, x: np.ndarray, y_name: str, y: np.ndarray) -> None:
    if len(x) != len(y):
        raise InputError(
            f"{source}: {x_name} holds {len(x)} samples, {y_name} {len(y)} labels; one label for each sample"
        )


def _name_labels(where: str, y: np.ndarray) -> np.ndarray:
    """Labels (N,) or (N, 1) of any kind as strings (N,): whole numbers without a decimal point, text as it stands."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"{where} has shape {y.shape}; one label per sample, shape (samples,). For one-hot rows: y.argmax(axis=1)"
        )
    if y.dtype.kind == "S":
        y = np.array([value.decode("utf-8", "replace") for value in y.tolist()], dtype=str)
    if y.dtype.kind == "U":
        empty = np.flatnonzero(np.char.str_len(np.char.strip(y)) == 0) if len(y) else np.array([])
        if len(empty):
            raise InputError(f"{where}: the label of sample {empty[0]} is empty. Give every sample a class")
        return y
    if y.dtype.kind not in "fiub":
        raise InputError(f"{where} has dtype {y.dtype}; labels are whole numbers or strings")
    if y.dtype.kind == "f":
        bad = np.flatnonzero(~(np.isfinite(y) & (y == np.round(y))))
        if len(bad):
            raise InputError(
                f"{where}: the label of sample {bad[0]} is {y[bad[0]]}; classes are whole numbers or strings. "
                "For regression train with --train pkg.module:fn"
            )
    return np.array([str(int(value)) for value in y.tolist()], dtype=str)


def sort_class_names(names: set[str]) -> tuple[str, ...]:
    """Numeric order when every name is a number, else the order of the text.

    >>> sort_class_names({"10", "1", "-1"}), sort_class_names({"b", "10", "a"})
    (('-1', '1', '10'), ('10', 'a', 'b'))
    """
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return tuple(sorted(names))
    if not all(math.isfinite(number) for number in numbers.values()):
        return tuple(sorted(names))
    return tuple(sorted(names, key=lambda name: (numbers[name], name)))


def _encode_labels(
    raw: RawData, y_train: np.ndarray, y_test: np.ndarray | None
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Class names and, for train and test, int64 indices into them."""
    _, y_name, _, y_test_name = raw.names
    if raw.class_names is not None:
        class_names = raw.class_names
        by_name = raw.y_train is not None and raw.y_train.dtype.kind in "US"
        labels = class_names if by_name else tuple(str(index) for index in range(len(class_names)))
    else:
        class_names = labels = sort_class_names(set(y_train.tolist()))
    if len(labels) < 2:
        raise InputError(
            f"{raw.source}: {y_name} holds one class only ({_shorten(labels)}); a classifier needs at least two"
        )
    index_of = {label: index for index, label in enumerate(labels)}
    encoded = []
    for where, y in ((y_name, y_train), (y_test_name, y_test)):
        if y is None:
            continue
        unknown = sorted(set(y.tolist()) - set(index_of))
        if unknown:
            allowed = (
                f"the {len(labels)} class_names" if raw.class_names else f"the classes of {y_name}: {_shorten(labels)}"
            )
            raise InputError(f"{raw.source}: {where} holds {_shorten(unknown)}, which is not among {allowed}")
        encoded.append(np.array([index_of[label] for label in y.tolist()], dtype=np.int64))
    if len(y_train) < len(labels):
        raise InputError(
            f"{raw.source}: {len(y_train)} training samples for {len(labels)} classes; every class needs at least one"
        )
    counts = np.bincount(encoded[0], minlength=len(labels))
    if counts.min() == 0:
        raise InputError(
            f"{raw.source}: class {class_names[int(counts.argmin())]!r} has no sample in {y_name}; "
            "every class needs at least one"
        )
    return class_names, encoded


def _shorten(names: tuple[str, ...] | list[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
