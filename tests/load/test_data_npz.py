"""Datasets in .npz: what is read, and one clear sentence for everything that cannot be."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.artifacts import Dataset
from edgeprune.errors import InputError
from edgeprune.load import data_checks
from edgeprune.load.data import load_dataset
from edgeprune.load.data_checks import sort_class_names


def make_arrays(**changes: object) -> dict[str, np.ndarray]:
    """A good dataset: 6 training, 4 test series of 5 values, two classes; `changes` replace entries (None: remove)."""
    generator = np.random.default_rng(0)
    arrays: dict[str, object] = {
        "x_train": generator.normal(size=(6, 5)).astype(np.float32),
        "y_train": np.array([1, 2, 1, 2, 1, 2]),
        "x_test": generator.normal(size=(4, 5)).astype(np.float32),
        "y_test": np.array([2, 1, 2, 1]),
    }
    arrays.update(changes)
    return {key: np.asarray(value) for key, value in arrays.items() if value is not None}


def save(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def load_changed(folder: Path, **changes: object) -> Dataset:
    return load_dataset(save(folder, **make_arrays(**changes)))


def test_reads_one_channel_series(tmp_path: Path) -> None:
    arrays = make_arrays()
    dataset = load_dataset(save(tmp_path, **arrays))
    assert dataset.name == "data"
    assert dataset.source == "data.npz"
    assert dataset.class_names == ("1", "2")
    assert dataset.x_train.shape == (6, 1, 5)
    assert dataset.x_train.dtype == np.float32
    assert dataset.y_test.dtype == np.int64
    assert dataset.y_test.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(dataset.x_test[:, 0], arrays["x_test"])


LAYOUT_CASES = [
    # shape of x, dtype, layout entry, shape of a sample
    ((6, 5), np.float32, None, (1, 5)),
    ((6, 3, 5), np.float64, None, (3, 5)),
    ((6, 5, 3), np.int16, "NTC", (3, 5)),
    ((6, 4, 5), np.uint8, "NHW", (1, 4, 5)),
    ((6, 4, 5), np.float32, "NHW", (1, 4, 5)),
    ((6, 4, 5, 3), np.uint8, None, (3, 4, 5)),
    ((6, 1, 4, 5), np.float32, None, (1, 4, 5)),
    ((6, 4, 5, 2), np.float32, "NHWC", (2, 4, 5)),
    ((6, 3, 5, 3), np.float32, "NCHW", (3, 5, 3)),
]


@pytest.mark.parametrize(("shape", "dtype", "layout", "sample_shape"), LAYOUT_CASES)
def test_layouts(tmp_path: Path, shape: tuple, dtype: type, layout: str | None, sample_shape: tuple) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    entry = {} if layout is None else {"layout": np.array(layout)}
    path = save(tmp_path, **make_arrays(x_train=x, x_test=x[:4], **entry))
    dataset = load_dataset(path)
    assert dataset.sample_shape == sample_shape
    scale = 255 if dtype is np.uint8 else 1
    expected = x if layout not in (None, "NTC", "NHWC") or x.shape[1:] == sample_shape else None
    if expected is not None:
        np.testing.assert_array_equal(dataset.x_train.reshape(6, -1), x.reshape(6, -1).astype(np.float32) / scale)
    else:
        channels_last = np.moveaxis(dataset.x_train, 1, -1)
        np.testing.assert_array_equal(
            channels_last.reshape(6, -1), x.reshape(6, -1).astype(np.float32) / np.float32(scale)
        )


def test_uint8_images_are_divided_by_255_and_say_so(tmp_path: Path) -> None:
    dataset = load_changed(
        tmp_path, x_train=np.full((6, 4, 5, 3), 255, np.uint8), x_test=np.full((4, 4, 5, 3), 51, np.uint8)
    )
    assert (dataset.x_train == 1).all()
    assert (dataset.x_test == np.float32(51) / np.float32(255)).all()
    assert any("divided by 255" in note for note in dataset.notes)


def test_integer_series_keep_their_values(tmp_path: Path) -> None:
    x = np.arange(30, dtype=np.int16).reshape(6, 5)
    assert load_changed(tmp_path, x_train=x, x_test=x[:4]).x_train.max() == 29


def test_layout_option_wins_over_the_file(tmp_path: Path) -> None:
    x = np.zeros((6, 4, 5), np.float32)
    path = save(tmp_path, **make_arrays(x_train=x, x_test=x[:4], layout="NCT"))
    assert load_dataset(path).sample_shape == (4, 5)
    assert load_dataset(f"{path}?layout=NTC").sample_shape == (5, 4)
    assert load_dataset(path, options={"layout": "NHW"}).sample_shape == (1, 4, 5)


LABEL_CASES = [
    (np.array([1, -1, 10, 1, -1, 10]), ("-1", "1", "10"), [1, 0, 2, 1, 0, 2]),
    (np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0]), ("1", "2"), [0, 1, 0, 1, 0, 1]),
    (np.array(["b", "a", "b", "a", "b", "a"]), ("a", "b"), [1, 0, 1, 0, 1, 0]),
    (np.array([b"b", b"a", b"b", b"a", b"b", b"a"]), ("a", "b"), [1, 0, 1, 0, 1, 0]),
    (np.array(["10", "9", "10", "9", "10", "9"]), ("9", "10"), [1, 0, 1, 0, 1, 0]),
    (np.array([True, False, True, False, True, False]), ("0", "1"), [1, 0, 1, 0, 1, 0]),
    (np.array([[3], [4], [3], [4], [3], [4]], np.uint8), ("3", "4"), [0, 1, 0, 1, 0, 1]),
]


@pytest.mark.parametrize(("labels", "class_names", "expected"), LABEL_CASES)
def test_labels(tmp_path: Path, labels: np.ndarray, class_names: tuple, expected: list) -> None:
    dataset = load_changed(tmp_path, y_train=labels, y_test=labels[:4])
    assert dataset.class_names == class_names
    assert dataset.y_train.tolist() == expected
    assert dataset.y_test.tolist() == expected[:4]


def test_class_names_entry(tmp_path: Path) -> None:
    names = np.array(["walk", "run"])
    dataset = load_changed(tmp_path, y_train=[0, 1, 0, 1, 0, 1], y_test=[1, 1, 1, 1], class_names=names)
    assert dataset.class_names == ("walk", "run")
    assert dataset.y_train.tolist() == [0, 1, 0, 1, 0, 1]
    by_name = load_changed(tmp_path, y_train=["run", "walk"] * 3, y_test=["run"] * 4, class_names=names)
    assert by_name.y_train.tolist() == [1, 0, 1, 0, 1, 0]


def test_split_is_stratified_and_seeded(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.float32).reshape(30, 2)
    path = save(tmp_path, x=x, y=np.array([0] * 20 + [1] * 10))
    dataset = load_dataset(path)
    assert np.bincount(dataset.y_train).tolist() == [16, 8]
    assert np.bincount(dataset.y_test).tolist() == [4, 2]
    together = np.concatenate([dataset.x_train, dataset.x_test])[:, 0]
    np.testing.assert_array_equal(np.sort(together, axis=0), x)
    assert load_dataset(path).sha256 == dataset.sha256
    assert load_dataset(path, seed=1).sha256 != dataset.sha256
    assert any("seed 0" in note for note in dataset.notes)


def test_single_training_sample_of_a_class_is_noted(tmp_path: Path) -> None:
    dataset = load_changed(tmp_path, y_train=[1, 1, 1, 1, 1, 2])
    assert any("class 2" in note for note in dataset.notes)


def changed(**changes: object) -> dict[str, np.ndarray]:
    return make_arrays(**changes)


def with_value(value: float) -> np.ndarray:
    x = np.zeros((6, 2, 5))
    x[3, 1, 2] = value
    return x


def with_nan_tail() -> np.ndarray:
    x = np.zeros((6, 2, 5))
    x[3, :, 4:] = np.nan
    return x


BAD_VALUES = {
    "missing_keys": (changed(y_test=None), "data.npz holds x_train, y_train, x_test; needed are"),
    "other_case": ({"X": np.zeros((4, 3)), "Y": np.zeros(4)}, "holds X, Y; needed are"),
    "no_arrays": ({}, "holds nothing; needed are"),
    "nan": (
        changed(x_train=with_value(np.nan)),
        "x_train: sample 3, channel 1 holds nan at position 2; 1 of 6 samples",
    ),
    "inf": (changed(x_train=with_value(np.inf)), "sample 3, channel 1 holds inf at position 2"),
    "nan_in_test": (changed(x_test=np.full((4, 5), np.nan)), "x_test: sample 0, channel 0 holds nan"),
    "too_large": (changed(x_train=with_value(1e300)), "sample 3, channel 1 holds 1e.300, too large for float32"),
    "unequal_by_nan": (changed(x_train=with_nan_tail()), "ends after 4 of 5 values.*unequal length.*pad every series"),
    "one_class": (changed(y_train=[1] * 6, y_test=[1] * 4), "y_train holds one class only"),
    "unseen_class": (
        changed(y_test=[1, 2, 3, 1]),
        "y_test holds '3', which is not among the classes of y_train: '1', '2'",
    ),
    "length_mismatch": (changed(y_train=[1, 2]), "x_train holds 6 samples, y_train 2 labels"),
    "test_length_mismatch": (changed(y_test=[1]), "x_test holds 4 samples, y_test 1 labels"),
    "empty": (changed(x_train=np.zeros((0, 5)), y_train=[]), "x_train is empty: its shape is"),
    "empty_series": (changed(x_train=np.zeros((6, 0))), "x_train is empty"),
    "shapes_differ": (changed(x_test=np.zeros((4, 7))), r"x_train has shape \(1, 5\), one of x_test \(1, 7\)"),
    "complex": (changed(x_train=np.zeros((6, 5), complex)), "x_train has dtype complex128; allowed are float"),
    "strings": (changed(x_train=np.full((6, 5), "a")), "x_train has dtype <U1; allowed are float"),
    "dates": (changed(x_train=np.zeros((6, 5), "M8[s]")), "x_train has dtype datetime64"),
    "records": (changed(x_train=np.zeros((6, 5), [("a", "f4")])), "x_train has dtype"),
    "one_dimension": (changed(x_train=np.zeros(6)), r"x_train has shape \(6,\); allowed are series"),
    "five_dimensions": (changed(x_train=np.zeros((6, 1, 1, 1, 2))), "x_train has shape"),
    "one_hot": (changed(y_train=np.eye(6)), r"y_train has shape \(6, 6\); one label per sample.*argmax"),
    "regression": (changed(y_train=[0.5, 1, 1, 1, 2, 2]), "the label of sample 0 is 0.5.*--train pkg.module:fn"),
    "nan_label": (changed(y_train=[1, 2, np.nan, 1, 2, 1]), "the label of sample 2 is nan"),
    "complex_label": (changed(y_train=np.ones(6, complex)), "y_train has dtype complex128; labels are"),
    "empty_label": (changed(y_train=["a", " ", "a", "b", "a", "b"]), "the label of sample 1 is empty"),
    "layout_unknown": (changed(layout="TNC"), "layout is 'TNC'; allowed: NT, NCT"),
    "layout_number": (changed(layout=3), "layout has dtype int64"),
    "layout_dimensions": (changed(layout="NCHW"), r"x_train has shape \(6, 5\), but the layout NCHW has 4"),
    "uint8_series_or_image": (changed(x_train=np.zeros((6, 4, 5), np.uint8)), "grey images or series.*layout='NHW'"),
    "channels_unclear": (changed(x_train=np.zeros((6, 4, 5, 6))), "where the channels stand is not clear"),
    "half_pixels": (
        changed(x_train=np.zeros((6, 4, 5, 3), np.uint8), x_test=np.zeros((4, 4, 5, 3))),
        "x_train is uint8 and x_test float64",
    ),
    "fewer_samples_than_classes": (
        changed(y_train=[0, 1, 0, 1, 0, 1], y_test=[0, 1, 0, 1], class_names=list("abcdefgh")),
        "6 training samples for 8 classes",
    ),
    "class_without_samples": (
        changed(y_train=[0, 1, 0, 1, 0, 1], y_test=[0, 1, 0, 1], class_names=list("abc")),
        "class 'c' has no sample in y_train",
    ),
    "label_beyond_class_names": (
        changed(class_names=["a", "b"]),
        "y_train holds '2', which is not among the 2 class_names",
    ),
    "class_named_twice": (changed(class_names=["a", "a"]), "class_names lists a name twice"),
    "class_names_numbers": (changed(class_names=[1, 2]), "class_names has dtype int64"),
    "too_few_to_split": (
        {"x": np.zeros((3, 5)), "y": np.array([0, 0, 1])},
        "class '1' has 1 sample.*at least 2 of each",
    ),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_values(tmp_path: Path, case: str) -> None:
    arrays, message = BAD_VALUES[case]
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(save(tmp_path, **arrays))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    ragged = np.array([np.zeros(3), np.zeros(4)], dtype=object)
    with pytest.raises(InputError, match="x_train holds Python objects, which can run code"):
        load_changed(tmp_path, x_train=ragged)


BAD_FILES = {
    "nothing": (b"", r"data.npz is empty \(0 bytes\)"),
    "random": (np.random.default_rng(0).bytes(4096), "cannot be read as .npz"),
    "npy": (b"\x93NUMPY\x01\x00" + b"x" * 100, "cannot be read as .npz"),
    "pickle": (b"\x80\x04}\x94.", "cannot be read as .npz"),
    "text": (b"1,2,3\n", "cannot be read as .npz"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, case: str) -> None:
    content, message = BAD_FILES[case]
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_dataset(str(path))


def test_missing_file_lists_the_forms(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.npz: no such file.*a \.npz file, a UCR pair"):
        load_dataset(str(tmp_path / "nothing.npz"))


def test_bomb_of_zeros_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    arrays = make_arrays(x_train=np.zeros((6, 4_000_000), np.float32))
    np.savez_compressed(path, **arrays)
    with pytest.raises(InputError, match="refused as a zip bomb"):
        load_dataset(str(path))


def test_claimed_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_checks, "MAX_DATASET_BYTES", 100)
    with pytest.raises(InputError, match="GiB"):
        load_changed(tmp_path)


@pytest.mark.parametrize("shape", [(10**9, 10**9), (7, 5), (1, 1)])
def test_header_that_claims_another_size(tmp_path: Path, shape: tuple) -> None:
    """numpy would allocate what the header says; the zip entry holds 6 x 5 values."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    rewrite_member(Path(save(tmp_path, **make_arrays())), "x_train.npy", header.getvalue() + bytes(6 * 5 * 4))
    with pytest.raises(InputError, match=r"x_train.*(claims shape|claims .* GiB)"):
        load_dataset(str(tmp_path / "data.npz"))


def rewrite_member(path: Path, member: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries[member] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def make_good_file(compressed: bool) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **make_arrays())
    return stream.getvalue()


GOOD = {compressed: make_good_file(compressed) for compressed in (False, True)}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(
    compressed=st.booleans(),
    cut=st.one_of(st.none(), st.integers(0, 2500)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
def test_damaged_bytes_give_a_dataset_or_one_sentence(
    tmp_path: Path, compressed: bool, cut: int | None, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(GOOD[compressed][:cut])
    for position, value in changes:
        if data:
            data[position % len(data)] = value
    path = tmp_path / "data.npz"
    path.write_bytes(data)
    with contextlib.suppress(InputError):  # any other error escapes and fails the test
        assert np.isfinite(load_dataset(str(path)).x_train).all()


@given(st.sets(st.integers(-1000, 1000), min_size=1))
def test_numeric_class_names_sort_as_numbers(values: set[int]) -> None:
    assert sort_class_names({str(value) for value in values}) == tuple(str(value) for value in sorted(values))
