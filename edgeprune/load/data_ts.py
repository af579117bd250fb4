"""The .ts text format of sktime and aeon, for classification.

    # comment
    @problemName BasicMotions
    @univariate false
    @classLabel true Standing Running
    @data
    1.0,2.0,3.0:4.0,5.0,6.0:Standing

One series per line: channels between colons, values between commas, the class last. '?' stands for a missing value.
Read here are series of one length without time stamps; the rest is refused with what to do. Format:
https://www.aeon-toolkit.org/en/stable/examples/datasets/load_data_from_files.html
"""

from __future__ import annotations

import numpy as np

from edgeprune.errors import InputError
from edgeprune.load.data_checks import HOW_TO_PAD


def read_ts(source: str, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples (N, C, T) float64 and labels (N,) of strings out of a .ts file's text.

    Raises InputError naming the line.
    """
    lines = text.splitlines()
    classes, first = _read_header(source, lines)
    samples: list[np.ndarray] = []
    labels: list[str] = []
    for number, line in enumerate(lines[first:], start=first + 1):
        if not line.strip() or line.lstrip().startswith(("#", "%")):
            continue
        sample, label = _read_line(f"{source}, line {number}", line.strip())
        if samples and sample.shape != samples[0].shape:
            _raise_shape(f"{source}, line {number}", sample.shape, samples[0].shape)
        if classes and label.lower() not in classes:
            raise InputError(
                f"{source}, line {number}: class {label!r} is not among those of @classLabel: "
                f"{', '.join(sorted(classes))}"
            )
        samples.append(sample)
        labels.append(label)
    if not samples:
        raise InputError(f"{source} holds no series after @data; the file is empty or truncated")
    return np.stack(samples), np.array(labels, dtype=str)


def _read_header(source: str, lines: list[str]) -> tuple[set[str], int]:
    """The classes that @classLabel lists (lower case; may be none) and the index of the first line after @data."""
    classes: set[str] = set()
    for index, line in enumerate(lines):
        words = line.split()
        if not words or not words[0].startswith("@"):
            if words and not words[0].startswith(("#", "%")):
                break
            continue
        tag, values = words[0].lower(), [word.lower() for word in words[1:]]
        if tag == "@data":
            return classes, index + 1
        if tag == "@timestamps" and values[:1] == ["true"]:
            raise InputError(
                f"{source} holds time stamps (@timeStamps true); resample to a fixed rate and leave them out"
            )
        if tag == "@classlabel":
            if values[:1] == ["false"]:
                raise InputError(f"{source} has no class labels (@classLabel false); classification needs them")
            classes = set(values[1:])
        if tag == "@targetlabel" and values[:1] == ["true"]:
            raise InputError(f"{source} is a regression set (@targetLabel true); a classifier needs @classLabel true")
    raise InputError(
        f"{source} has no @data line; a .ts file has a header of @ lines, then @data, then one series per line"
    )


def _read_line(where: str, line: str) -> tuple[np.ndarray, str]:
    """One series (C, T) and its label."""
    if line.startswith("("):
        raise InputError(f"{where} holds (time, value) pairs; resample to a fixed rate and write the values alone")
    *channels, label = line.split(":")
    label = label.strip()
    if not channels or not label:
        raise InputError(f"{where} has no class after the last colon; the line is damaged or truncated")
    rows = [_read_channel(where, index, channel) for index, channel in enumerate(channels)]
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise InputError(f"{where}: its channels have {sorted(lengths)} values; all channels need the same length")
    return np.stack(rows), label


def _read_channel(where: str, index: int, channel: str) -> np.ndarray:
    values = channel.split(",")
    missing = [at for at, value in enumerate(values) if value.strip().lower() in ("?", "nan")]
    if missing:
        raise InputError(
            f"{where}: channel {index} misses its value at position {missing[0]} ({len(missing)} in all); fill the "
            "gaps (interpolate) or drop the series"
        )
    try:
        return np.array(values, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{where}: channel {index} holds something that is not a number ({error})") from error


def _raise_shape(where: str, found: tuple[int, ...], before: tuple[int, ...]) -> None:
    if found[0] != before[0]:
        raise InputError(f"{where}: {found[0]} channels, {before[0]} in the lines before; each series needs the same")
    raise InputError(f"{where}: {found[1]} values, {before[1]} in the lines before: unequal lengths; {HOW_TO_PAD}")
