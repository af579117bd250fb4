"""EDF and EDF+ recordings with annotations, cut into labelled windows (extra `eeg`, pyedflib).

Options:

    window_s    length of a window in seconds; needed
    step_s      from the start of one window to the next; default window_s (no overlap)
    channels    signals to use, by label, between commas; default all (they must share one sample rate)
    labels      annotations that are classes, between commas; default every annotation with a duration

Windows are laid from the onset of each annotation for as long as they fit inside it; its text is their label. What no
annotation covers is left out. Values are in the file's physical unit (often uV).

The test set: neighbouring windows resemble each other, so a random split would flatter the model. The last 20 % of each
class's windows in time are the test set, and training windows that overlap one of them are dropped. A pair
`X_TRAIN.edf`, `X_TEST.edf` (say, other patients) is used as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import InputError
from edgeprune.load.data_checks import TEST_FRACTION, RawData, check_size

OPTIONS = ("window_s", "step_s", "channels", "labels")


@dataclass(frozen=True)
class Window:
    """Samples [start, stop) of every channel, and their class."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True)
class Annotation:
    """Seconds from the start of the recording, and the text."""

    onset_s: float
    duration_s: float
    text: str


def read_edf(path: Path, options: Mapping[str, str]) -> RawData:
    """Read a recording (or a TRAIN, TEST pair) as windows (N, C, T); raises InputError."""
    pair = _find_pair(path)
    if pair is not None:
        (x_train, windows), (x_test, test_windows) = (_read_windows(part, options) for part in pair)
        return RawData(
            pair[0].stem.removesuffix("_TRAIN"),
            f"{pair[0].name} and {pair[1].name}",
            x_train,
            _list_labels(windows),
            x_test,
            _list_labels(test_windows),
            names=(pair[0].name, f"labels of {pair[0].name}", pair[1].name, f"labels of {pair[1].name}"),
        )
    x, windows = _read_windows(path, options)
    train, test = split_in_time(path.name, windows)
    dropped = len(windows) - len(train) - len(test)
    note = (
        f"the last {TEST_FRACTION:.0%} of each class's windows in time ({len(test)}) are the test set"
        f"{f'; {dropped} training windows that overlap them were dropped' if dropped else ''}"
    )
    labels = _list_labels(windows)
    names = ("training windows", "their labels", "test windows", "their labels")
    return RawData(path.stem, path.name, x[train], labels[train], x[test], labels[test], names=names, notes=(note,))


def _find_pair(path: Path) -> tuple[Path, Path] | None:
    for part in ("_TRAIN", "_TEST"):
        if path.stem.endswith(part):
            stem = path.stem.removesuffix(part)
            pair = path.with_name(f"{stem}_TRAIN{path.suffix}"), path.with_name(f"{stem}_TEST{path.suffix}")
            if pair[0].is_file() and pair[1].is_file():
                return pair
    return None


def _list_labels(windows: list[Window]) -> np.ndarray:
    return np.array([window.label for window in windows], dtype=str)


def split_in_time(source: str, windows: list[Window]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and test windows: of each class the last TEST_FRACTION in time are for testing.

    Training windows that share samples with a test window are in neither.
    """
    order = sorted(range(len(windows)), key=lambda index: windows[index].start)
    test: list[int] = []
    for label in sorted({window.label for window in windows}):
        members = [index for index in order if windows[index].label == label]
        if len(members) < 2:
            raise InputError(
                f"{source}: class {label!r} has {len(members)} window; at least 2 are needed, one to train and one "
                "to test. "
                "Use a shorter window_s, a smaller step_s, or name the classes with labels="
            )
        count = max(1, min(len(members) - 1, int(len(members) * TEST_FRACTION + 0.5)))
        test += members[-count:]
    taken = [windows[index] for index in test]
    chosen = set(test)
    train = [
        index
        for index in range(len(windows))
        if index not in chosen
        and not any(windows[index].start < other.stop and other.start < windows[index].stop for other in taken)
    ]
    return np.array(sorted(train), dtype=np.int64), np.array(sorted(test), dtype=np.int64)


def _read_windows(path: Path, options: Mapping[str, str]) -> tuple[np.ndarray, list[Window]]:
    try:
        import pyedflib
    except ImportError as error:
        raise InputError(f"{path.name}: EDF recordings need pyedflib: pip install 'edgeprune[eeg]'") from error
    window_s = _read_seconds(path.name, options, "window_s")
    if window_s is None:
        raise InputError(
            f"{path.name}: how long is a window? Write --data '{path.name}?window_s=2' (seconds), or window_s under "
            "[data.options] in edgeprune.toml"
        )
    step_s = _read_seconds(path.name, options, "step_s") or window_s
    check_size(path.name, path.stat().st_size * 2)  # 16-bit samples become float32
    _check_length(path)
    try:
        reader = pyedflib.EdfReader(str(path))
    except (OSError, ValueError, UnicodeError) as error:
        reason = str(error).replace(str(path), path.name)
        raise InputError(
            f"{path.name} cannot be read as EDF: {reason}. It is damaged, truncated or another format"
        ) from error
    try:
        return _cut_windows(path.name, reader, window_s, step_s, options)
    finally:
        reader.close()


def _check_length(path: Path) -> None:
    """Refuse a truncated recording: its header says how long the file is (EDF specification, 1992).

    edflib notices too, but prints to standard output, where --json would find it. Other damage in the header is left to
    edflib, which describes it well.
    """
    with path.open("rb") as stream:
        head = stream.read(256)
        try:
            header_bytes, records, signals = (int(head[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
            stream.seek(
                256 + signals * 216
            )  # the fields of all signals stand one after the other; 216 precede this one
            samples = sum(int(stream.read(8)) for _ in range(signals))
        except (ValueError, OSError):  # no numbers, or a negative count of signals
            return
    expected, found = header_bytes + records * samples * 2, path.stat().st_size
    if records >= 0 and found != expected:
        raise InputError(
            f"{path.name} has {found:,} bytes, its header says {expected:,}; it is truncated or damaged. Copy it again"
        )


def _read_seconds(source: str, options: Mapping[str, str], key: str) -> float | None:
    text = options.get(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise InputError(f"{source}: {key} is {text!r}; a positive number of seconds is expected, such as 2 or 0.5")
    return value


def _cut_windows(
    source: str, reader: Any, window_s: float, step_s: float, options: Mapping[str, str]
) -> tuple[np.ndarray, list[Window]]:
    channels, rate_hz = _choose_channels(source, reader, options.get("channels"))
    annotations = _choose_annotations(source, reader, options.get("labels"))
    length = round(window_s * rate_hz)
    if length < 1:
        raise InputError(
            f"{source}: window_s={window_s:g} is shorter than a sample at {rate_hz:g} Hz; use a longer window"
        )
    total = int(min(reader.getNSamples()[channel] for channel in channels))
    windows = _lay_windows(annotations, rate_hz, length, max(1, round(step_s * rate_hz)), total)
    if not windows:
        longest = max(annotation.duration_s for annotation in annotations)
        raise InputError(
            f"{source}: no annotation covers a window of {window_s:g} s; the longest lasts {longest:g} s. Use a "
            "shorter window_s"
        )
    check_size(source, len(windows) * len(channels) * length * 4)
    signals = np.stack([reader.readSignal(channel)[:total].astype(np.float32) for channel in channels])
    return np.stack([signals[:, window.start : window.stop] for window in windows]), windows


def _choose_channels(source: str, reader: Any, wanted: str | None) -> tuple[list[int], float]:
    """Indices of the signals and their common sample rate."""
    labels = [label.strip() for label in reader.getSignalLabels()]
    if wanted is None:
        channels = list(range(len(labels)))
    else:
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        unknown = [name for name in names if name not in labels]
        if unknown or not names:
            raise InputError(f"{source} has no signal {', '.join(unknown) or wanted}; it has {', '.join(labels)}")
        channels = [labels.index(name) for name in names]
    if not channels:
        raise InputError(f"{source} holds annotations but no signal; give the recording itself")
    rates = [float(reader.getSampleFrequency(channel)) for channel in channels]
    if len(set(rates)) > 1:
        listed = ", ".join(f"{labels[channel]} {rate:g} Hz" for channel, rate in zip(channels, rates, strict=True))
        raise InputError(f"{source}: its signals have different sample rates ({listed}); choose some with channels=...")
    return channels, rates[0]


def _choose_annotations(source: str, reader: Any, wanted: str | None) -> list[Annotation]:
    """Annotations that label a stretch of time, in order; no two different ones may overlap."""
    onsets, durations, texts = reader.readAnnotations()
    every = [
        Annotation(float(onset), float(duration), str(text).strip())
        for onset, duration, text in zip(onsets, durations, texts, strict=True)
    ]
    lasting = [annotation for annotation in every if annotation.duration_s > 0 and annotation.text]
    if not lasting:
        raise InputError(
            f"{source} has {len(every)} annotations, none with a duration; each class needs annotations that cover "
            "its windows"
        )
    if wanted is not None:
        names = {name.strip() for name in wanted.split(",")}
        unknown = sorted(names - {annotation.text for annotation in lasting})
        if unknown:
            found = ", ".join(sorted({annotation.text for annotation in lasting}))
            raise InputError(f"{source} has no annotation {', '.join(unknown)} with a duration; it has {found}")
        lasting = [annotation for annotation in lasting if annotation.text in names]
    lasting.sort(key=lambda annotation: annotation.onset_s)
    for earlier, later in itertools.pairwise(lasting):
        if earlier.text != later.text and earlier.onset_s + earlier.duration_s > later.onset_s + 1e-6:
            raise InputError(
                f"{source}: annotations {earlier.text!r} and {later.text!r} overlap at {later.onset_s:g} s, so a "
                "window there has two labels; name those that are classes with labels=..."
            )
    return lasting


def _lay_windows(annotations: list[Annotation], rate_hz: float, length: int, step: int, total: int) -> list[Window]:
    windows = []
    for annotation in annotations:
        start = round(annotation.onset_s * rate_hz)
        stop = min(round((annotation.onset_s + annotation.duration_s) * rate_hz), total)
        windows += [Window(at, at + length, annotation.text) for at in range(max(start, 0), stop - length + 1, step)]
    return windows
