"""The archives' text formats, .tsv, .txt and .ts, and ucr:NAME."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.load import data_ucr
from edgeprune.load.data import load_dataset
from edgeprune.load.data_ts import read_ts

HAS_AEON = importlib.util.find_spec("aeon") is not None
needs_aeon = pytest.mark.skipif(not HAS_AEON, reason="aeon (extra `ucr`) is not installed")

HEADER = "# about\n@problemName X\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n"
MULTI_HEADER = HEADER.replace("@univariate true", "@univariate false\n@dimensions 2")


def write_pair(folder: Path, suffix: str, train: str, test: str | None = None, stem: str = "X") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}_TRAIN{suffix}").write_text(train)
    (folder / f"{stem}_TEST{suffix}").write_text(train if test is None else test)
    return folder


TSV = "1\t0.5\t1.5\t2.5\n-1\t3.5\t4.5\t5.5\n"


@pytest.mark.parametrize("name", ["X_TRAIN.tsv", "X_TEST.tsv", "X", "."])
def test_any_part_of_the_pair_may_be_named(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, ".tsv", TSV, "1\t9\t9\t9\n")
    dataset = load_dataset(str(tmp_path / name))
    assert (dataset.name, dataset.source, dataset.class_names) == ("X", "X.tsv", ("-1", "1"))
    np.testing.assert_array_equal(dataset.x_train, [[[0.5, 1.5, 2.5]], [[3.5, 4.5, 5.5]]])
    assert dataset.y_train.tolist() == [1, 0]
    assert dataset.x_test.tolist() == [[[9, 9, 9]]]


@pytest.mark.parametrize(
    "text",
    [
        "1.0000000e+00  5.0e-01  1.5e+00\n2.0000000e+00 3.5e+00 4.5e+00\n",
        "1,0.5,1.5\n2,3.5,4.5\n",
        "\n1\t0.5\t1.5\r\n2\t3.5\t4.5\r\n\n",
        "\ufeff1\t0.5\t1.5\n2\t3.5\t4.5",
    ],
)
def test_separators_of_the_older_archives(tmp_path: Path, text: str) -> None:
    dataset = load_dataset(str(write_pair(tmp_path, ".txt", text) / "X"))
    assert dataset.class_names == ("1", "2")
    np.testing.assert_array_equal(dataset.x_train[:, 0], [[0.5, 1.5], [3.5, 4.5]])


def test_ts_and_tsv_beside_each_other_ts_is_taken(tmp_path: Path) -> None:
    write_pair(tmp_path, ".tsv", TSV)
    write_pair(tmp_path, ".ts", HEADER + "1,2:a\n3,4:b\n")
    assert load_dataset(str(tmp_path)).source == "X.ts"


def test_of_several_sets_the_one_named_like_the_folder_is_taken(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "X", ".ts", HEADER + "1,2:a\n3,4:b\n")
    write_pair(folder, ".ts", HEADER + "1,2:a\n3,4:b\n", stem="X_eq")
    assert load_dataset(str(folder)).name == "X"
    assert load_dataset(str(folder / "X_eq")).name == "X_eq"
    other = folder.rename(tmp_path / "Y")
    with pytest.raises(InputError, match=r"holds several datasets: X, X_eq\. Name one: Y/X"):
        load_dataset(str(other))


def test_ts_with_channels() -> None:
    samples, labels = read_ts("X.ts", MULTI_HEADER + "1,2,3:4,5,6:a\n% a remark\n\n7,8,9:1,1,1e3:b\n")
    assert labels.tolist() == ["a", "b"]
    np.testing.assert_array_equal(samples, [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [1, 1, 1000]]])


@settings(max_examples=50, derandomize=True)
@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_ts_round_trip(data: st.DataObject, count: int, channels: int, length: int) -> None:
    values = data.draw(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1).map(
            lambda some: np.resize(np.array(some), (count, channels, length))
        )
    )
    lines = [":".join(",".join(repr(float(v)) for v in row) for row in sample) + ":a" for sample in values]
    samples, labels = read_ts("X.ts", HEADER + "\n".join(lines))
    np.testing.assert_array_equal(samples, values)
    assert labels.tolist() == ["a"] * count


BAD_TS = {
    "unequal": (
        HEADER + "1,2:a\n1,2,3:b",
        r"line 8: 3 values, 2 in the lines before: unequal lengths; pad every "
        "series",
    ),
    "channels": (HEADER + "1,2:a\n1,2:1,2:b", "line 8: 2 channels, 1 in the lines before"),
    "channel_lengths": (HEADER + "1,2:1,2,3:a", r"line 7: its channels have \[2, 3\] values"),
    "missing": (HEADER + "1,?,3,?:a", r"line 7: channel 0 misses its value at position 1 \(2 in all\); fill the gaps"),
    "nan": (HEADER + "1,NaN:a", "misses its value at position 1"),
    "not_a_number": (HEADER + "1,x:a", "line 7: channel 0 holds something that is not a number"),
    "no_label": (HEADER + "1,2,3", "line 7 has no class after the last colon"),
    "cut_label": (HEADER + "1,2,3:", "line 7 has no class"),
    "unknown_class": (HEADER + "1,2:c", "line 7: class 'c' is not among those of @classLabel: a, b"),
    "no_data_line": ("@problemName X\n1,2:a", "has no @data line"),
    "empty": ("", "has no @data line"),
    "nothing_after_data": (HEADER, "holds no series after @data"),
    "time_stamps": (HEADER.replace("Stamps false", "Stamps true"), "holds time stamps"),
    "time_value_pairs": (HEADER + "(0,1),(1,2):a", r"holds \(time, value\) pairs"),
    "no_classes": (HEADER.replace("@classLabel true a b", "@classLabel false"), "has no class labels"),
    "regression": (HEADER.replace("@classLabel true a b", "@targetLabel true"), "is a regression set"),
}


@pytest.mark.parametrize("case", BAD_TS)
def test_bad_ts(case: str) -> None:
    text, message = BAD_TS[case]
    with pytest.raises(InputError, match=message) as caught:
        read_ts("X.ts", text)
    assert str(caught.value).startswith("X.ts")
    assert "\n" not in str(caught.value)


BAD_TSV = {
    "unequal": ("1\t1\t2\n2\t1\t2\t3\n", "X_TRAIN.tsv, line 2: 3 values, 2 in the lines before; pad every series"),
    "not_a_number": ("1\t1\tx\n", "line 1: 'x' is not a number"),
    "empty": ("\n", "X_TRAIN.tsv holds no series"),
    "labels_only": ("1\n2\n", "X_TRAIN.tsv is empty: its shape is"),
    "unequal_by_nan": ("1\t1\t2\t3\n2\t1\t2\tNaN\n", "sample 1, channel 0 ends after 2 of 3 values.*pad every series"),
    "gap": ("1\t1\t2\t3\n2\t1\tNaN\t3\n", "sample 1, channel 0 holds nan at position 1"),
    "one_class": ("1\t1\t2\t3\n1\t1\t2\t3\n", "one class only"),
}


@pytest.mark.parametrize("case", BAD_TSV)
def test_bad_tsv(tmp_path: Path, case: str) -> None:
    text, message = BAD_TSV[case]
    with pytest.raises(InputError, match=message):
        load_dataset(str(write_pair(tmp_path, ".tsv", text, TSV) / "X_TRAIN.tsv"))


def test_half_a_pair(tmp_path: Path) -> None:
    write_pair(tmp_path, ".tsv", TSV)
    (tmp_path / "X_TEST.tsv").unlink()
    for name in ("X_TRAIN.tsv", "X", "."):
        with pytest.raises(InputError, match=r"the other half of the pair is missing: X_TEST.tsv"):
            load_dataset(str(tmp_path / name))


def test_file_without_a_part_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "X.tsv").write_text(TSV)
    with pytest.raises(InputError, match=r"X.tsv: a UCR pair is named X_TRAIN.tsv and X_TEST.tsv"):
        load_dataset(str(tmp_path / "X.tsv"))


def test_train_and_test_of_different_length(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a sample of X_TRAIN.tsv has shape \(1, 3\), one of X_TEST.tsv \(1, 2\)"):
        load_dataset(str(write_pair(tmp_path, ".tsv", TSV, "1\t1\t2\n")))


def test_class_of_the_test_set_that_was_never_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the labels of X_TEST\.tsv holds '7'"):
        load_dataset(str(write_pair(tmp_path, ".tsv", TSV, "7\t1\t2\t3\n")))


@settings(max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from([".ts", ".tsv", ".txt"]), st.sampled_from([b"", HEADER.encode()]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str, start: bytes) -> None:
    for part in ("TRAIN", "TEST"):
        (tmp_path / f"X_{part}{suffix}").write_bytes(start + content)
    try:
        load_dataset(str(tmp_path / f"X_TRAIN{suffix}"))
    except InputError:
        return  # anything but InputError fails the test


@needs_aeon
def test_archive_by_name_multichannel() -> None:
    dataset = load_dataset("ucr:BasicMotions")
    assert dataset.source == "ucr:BasicMotions"
    assert dataset.x_train.shape == dataset.x_test.shape == (40, 6, 100)
    assert dataset.class_names == ("Badminton", "Running", "Standing", "Walking")
    assert np.bincount(dataset.y_train).tolist() == [10, 10, 10, 10]


@needs_aeon
def test_archive_set_of_unequal_length() -> None:
    with pytest.raises(InputError, match=r"JapaneseVowels_TRAIN\.ts, line .*unequal lengths; pad every series"):
        load_dataset("ucr:JapaneseVowels")


@needs_aeon
@pytest.mark.slow
@pytest.mark.parametrize("name", ["GunPoint", "BasicMotions", "ItalyPowerDemand", "UnitTest", "OSULeaf"])
def test_our_parser_reads_what_aeons_reads(name: str) -> None:
    from aeon.datasets import load_classification

    folder = Path(str(importlib.util.find_spec("aeon").origin)).parent / "datasets" / "data"  # type: ignore[union-attr]
    for part in ("TRAIN", "TEST"):
        theirs, labels = load_classification(name, split=part, extract_path=str(folder))
        ours = read_ts(name, (folder / name / f"{name}_{part}.ts").read_text())
        np.testing.assert_array_equal(ours[0], theirs)
        assert [label.lower() for label in ours[1].tolist()] == [str(label).lower() for label in labels]


def test_archive_without_aeon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"needs aeon, which is not installed: pip install 'edgeprune\[ucr\]'"):
        load_dataset("ucr:GunPoint")


@pytest.mark.parametrize("name", ["", "../GunPoint", "a/b", "GunPoint;x", ".hidden"])
def test_archive_names_are_no_paths(name: str) -> None:
    with pytest.raises(InputError, match="is not the name of a dataset"):
        load_dataset(f"ucr:{name}")


@needs_aeon
def test_failing_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("no route\nto host")

    fake = types.ModuleType("aeon.datasets")  # the real one takes seconds to import
    fake.load_classification = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aeon.datasets", fake)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(InputError, match=r"could not be downloaded \(OSError: no route to host\).*mean GunPoint\?"):
        load_dataset("ucr:GunPoin")
    with pytest.raises(InputError, match=r"aeon itself ships .*ItalyPowerDemand"):
        load_dataset("ucr:Xyz")


@needs_aeon
def test_downloaded_set_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, split: str, extract_path: str) -> None:
        asked.append((name, split))
        write_pair(Path(extract_path) / name, ".ts", HEADER + "1,2:a\n3,4:b\n", stem=name)

    fake = types.ModuleType("aeon.datasets")
    fake.load_classification = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "aeon.datasets", fake)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (data_ucr._cache_folder() / "Mine").mkdir(parents=True)  # left by a download that broke off
    for _ in range(2):
        dataset = load_dataset("ucr:Mine")
        assert (dataset.name, dataset.source) == ("Mine", "ucr:Mine")
    assert asked == [("Mine", "train")]
    assert [path.name for path in data_ucr._cache_folder().iterdir()] == ["Mine"]
