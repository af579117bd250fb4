"""EDF recordings cut into labelled windows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.load.data import load_dataset
from edgeprune.load.data_edf import Window, split_in_time

pyedflib = pytest.importorskip("pyedflib", reason="pyedflib (extra `eeg`) is not installed")

RATE_HZ = 64
REST_THEN_MOVE = ((0, 10, "rest"), (10, 10, "move"))


def write(
    folder: Path,
    annotations: tuple[tuple[float, float, str], ...] = REST_THEN_MOVE,
    name: str = "night.edf",
    rates_hz: tuple[int, ...] = (RATE_HZ, RATE_HZ),
    seconds: int = 20,
) -> str:
    """A recording whose channel c holds c + 1 times the time in seconds."""
    path = folder / name
    writer = pyedflib.EdfWriter(str(path), len(rates_hz), file_type=pyedflib.FILETYPE_EDFPLUS)
    for channel, rate in enumerate(rates_hz):
        writer.setSignalHeader(
            channel,
            {
                "label": f"ch{channel}",
                "dimension": "uV",
                "sample_frequency": rate,
                "physical_max": 100,
                "physical_min": -100,
                "digital_max": 32767,
                "digital_min": -32768,
                "transducer": "",
                "prefilter": "",
            },
        )
    writer.writeSamples([(c + 1) * np.arange(seconds * rate) / rate for c, rate in enumerate(rates_hz)])
    for onset, duration, text in annotations:
        writer.writeAnnotation(onset, duration, text)
    writer.close()
    return str(path)


def test_windows_are_laid_inside_annotations(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path) + "?window_s=2")
    assert (dataset.name, dataset.source) == ("night", "night.edf")
    assert dataset.class_names == ("move", "rest")
    assert dataset.x_train.shape == (8, 2, 128)
    assert dataset.y_train.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert dataset.y_test.tolist() == [1, 0]
    # atol here and below: one step of 16 bits over 200 uV (EDF's writer rounds down)
    np.testing.assert_allclose(dataset.x_train[1, :, 0], [2, 4], atol=0.0031)
    np.testing.assert_allclose(dataset.x_test[:, 0, 0], [8, 18], atol=0.0031)  # the last of each class in time


def test_what_no_annotation_covers_is_left_out(tmp_path: Path) -> None:
    annotations = ((1, 5.5, "a"), (9, 4, "b"), (3, -1, "button"), (14, 0, "end"))
    dataset = load_dataset(write(tmp_path, annotations) + "?window_s=2")
    starts = sorted([*dataset.x_train[:, 0, 0], *dataset.x_test[:, 0, 0]])
    np.testing.assert_allclose(starts, [1, 3, 9, 11], atol=0.0031)


def test_overlapping_windows_do_not_leak_into_the_test_set(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path) + "?window_s=2&step_s=0.5")
    train, test = dataset.x_train[:, 0, 0], dataset.x_test[:, 0, 0]
    assert len(test) == 6  # 17 windows of each class, a fifth of them
    assert all(abs(start - other) >= 1.99 for start in train for other in test)
    assert any("were dropped" in note for note in dataset.notes)


def test_channels_option(tmp_path: Path) -> None:
    path = write(tmp_path, rates_hz=(RATE_HZ, RATE_HZ, 32))
    with pytest.raises(InputError, match=r"different sample rates \(ch0 64 Hz, ch1 64 Hz, ch2 32 Hz\); choose some"):
        load_dataset(path + "?window_s=2")
    dataset = load_dataset(path, options={"window_s": "2", "channels": "ch1, ch0"})
    np.testing.assert_allclose(dataset.x_train[1, :, 0], [4, 2], atol=0.0031)
    assert load_dataset(path + "?window_s=2&channels=ch2").sample_shape == (1, 64)


def test_labels_option(tmp_path: Path) -> None:
    path = write(tmp_path, (*REST_THEN_MOVE, (5, 10, "artefact")))
    with pytest.raises(InputError, match=r"'rest' and 'artefact' overlap at 5 s.*labels="):
        load_dataset(path + "?window_s=2")
    assert load_dataset(path + "?window_s=2&labels=rest,move").class_names == ("move", "rest")


def test_pair_of_recordings(tmp_path: Path) -> None:
    write(tmp_path, name="night_TRAIN.edf")
    path = write(tmp_path, name="night_TEST.edf", annotations=((0, 4, "move"),))
    dataset = load_dataset(path + "?window_s=2")
    assert (dataset.name, dataset.source) == ("night", "night_TRAIN.edf and night_TEST.edf")
    assert (len(dataset.y_train), dataset.y_test.tolist()) == (10, [0, 0])


BAD_OPTIONS = [
    ("", "how long is a window.*window_s=2"),
    ("?window_s=two", "window_s is 'two'; a positive number of seconds"),
    ("?window_s=0", "window_s is '0'; a positive number"),
    ("?window_s=nan", "window_s is 'nan'"),
    ("?window_s=2&step_s=-1", "step_s is '-1'"),
    ("?window_s=0.001", "is shorter than a sample at 64 Hz"),
    ("?window_s=11", "no annotation covers a window of 11 s; the longest lasts 10 s"),
    ("?window_s=2&channels=Fz", "has no signal Fz; it has ch0, ch1"),
    ("?window_s=2&labels=rest,sleep", "has no annotation sleep with a duration; it has move, rest"),
    ("?window_s=2&labels=rest", "one class only"),
    ("?window_s=10", "class 'move' has 1 window; at least 2 are needed"),
    ("?windows=2", r"unknown data option 'windows'; did you mean window_s\?"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(write(tmp_path) + options)


def test_annotations_without_durations(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 1 annotations, none with a duration"):
        load_dataset(write(tmp_path, ((3, -1, "button"),)) + "?window_s=2")


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, "night.edf cannot be read as EDF"),
        (10, "night.edf cannot be read as EDF"),
        (300, "night.edf cannot be read as EDF"),
        (1100, "night.edf has 1,100 bytes, its header says 8,424; it is truncated"),
        (8423, "night.edf has 8,423 bytes, its header says 8,424; it is truncated"),
    ],
)
def test_truncated(tmp_path: Path, capfd: pytest.CaptureFixture[str], keep: int, message: str) -> None:
    path = Path(write(tmp_path))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_dataset(f"{path}?window_s=2")
    assert str(tmp_path) not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_random_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.edf"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(InputError, match="cannot be read as EDF"):
        load_dataset(f"{path}?window_s=2")


def test_without_pyedflib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.setitem(sys.modules, "pyedflib", None)
    with pytest.raises(InputError, match=r"need pyedflib: pip install 'edgeprune\[eeg\]'"):
        load_dataset(path + "?window_s=2")


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from("abc")), min_size=2, max_size=40),
    st.integers(1, 20),
)
@settings(derandomize=True)
def test_split_in_time_never_shares_samples(starts: list[tuple[int, str]], length: int) -> None:
    windows = [Window(start, start + length, label) for start, label in starts]
    counts = {label: sum(window.label == label for window in windows) for _, label in starts}
    if min(counts.values()) < 2:
        with pytest.raises(InputError, match="at least 2 are needed"):
            split_in_time("x.edf", windows)
        return
    train, test = split_in_time("x.edf", windows)
    assert not set(train.tolist()) & set(test.tolist())
    assert {windows[index].label for index in test} == set(counts)
    for index in train:
        for other in test:
            assert abs(windows[index].start - windows[other].start) >= length
