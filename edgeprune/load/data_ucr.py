"""The UCR and UEA archives' formats: a training and a test file, `X_TRAIN` and `X_TEST`.

.tsv (UCR 2018) and .txt (older): one series per line, the class first, then the values, between tabs, commas or blanks.
.ts (sktime, aeon): see data_ts.

`ucr:NAME` finds the files that aeon ships, or lets aeon download them into ~/.cache/edgeprune/ucr.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeprune.errors import InputError
from edgeprune.load.data_checks import HOW_TO_PAD, RawData, check_size
from edgeprune.load.data_ts import read_ts

SUFFIXES = (".ts", ".tsv", ".txt")
OPTIONS: tuple[str, ...] = ()
_PART = re.compile(r"(?P<stem>.+)_(?P<part>TRAIN|TEST)$")


def read_pair(path: Path, options: Mapping[str, str] | None = None) -> RawData:
    """Read X_TRAIN and X_TEST; `path` is either of them, their folder, or the common stem.

    Raises InputError when one of the two is missing, is no text, or its series differ in length.
    """
    train, test = _find_pair(path)
    stem = train.stem.removesuffix("_TRAIN")
    x_train, y_train = _read_part(train)
    x_test, y_test = _read_part(test)
    if train.suffix != ".ts":
        y_train, y_test = _unify_numbers(y_train, y_test)
    names = (train.name, f"the labels of {train.name}", test.name, f"the labels of {test.name}")
    return RawData(stem, f"{stem}{train.suffix}", x_train, y_train, x_test, y_test, names=names)


def is_pair_folder(folder: Path) -> bool:
    """True if the folder holds an X_TRAIN or X_TEST file of one of these formats."""
    return bool(_list_parts(folder))


def is_pair_stem(path: Path) -> bool:
    """True if `path` plus _TRAIN or _TEST and a suffix is a file."""
    return any(_part(path, part, suffix).is_file() for part in ("TRAIN", "TEST") for suffix in SUFFIXES)


def _part(stem: Path, part: str, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}_{part}{suffix}")


def _list_parts(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix in SUFFIXES and _PART.match(path.stem) and path.is_file()
    )


def _find_pair(path: Path) -> tuple[Path, Path]:
    suffixes: tuple[str, ...] = SUFFIXES
    if path.is_dir():
        stem = _choose_stem(path)
    elif path.suffix in SUFFIXES and path.is_file():
        match = _PART.match(path.stem)
        if match is None:
            raise InputError(
                f"{path.name}: a UCR pair is named X_TRAIN{path.suffix} and X_TEST{path.suffix}; rename the two "
                "files so"
            )
        stem, suffixes = path.with_name(match["stem"]), (path.suffix,)
    else:
        stem = path
    missing = []
    for suffix in suffixes:
        train, test = _part(stem, "TRAIN", suffix), _part(stem, "TEST", suffix)
        if train.is_file() and test.is_file():
            return train, test
        if train.is_file() or test.is_file():
            missing.append(test.name if train.is_file() else train.name)
    raise InputError(
        f"{path.name}: the other half of the pair is missing: {' or '.join(missing)}. Put it beside, or save "
        "everything as "
        ".npz with x and y to have a test set split off"
    )


def _choose_stem(folder: Path) -> Path:
    stems = sorted({_PART.match(path.stem)["stem"] for path in _list_parts(folder)})  # type: ignore[index]
    if folder.name in stems:
        return folder / folder.name
    if len(stems) > 1:
        raise InputError(
            f"{folder.name} holds several datasets: {', '.join(stems[:8])}. Name one: {folder.name}/{stems[0]}"
        )
    return folder / stems[0]


def _read_part(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One file: samples (N, C, T) float64 and labels (N,) of strings."""
    check_size(path.name, path.stat().st_size)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not text (byte {error.start}); a {path.suffix} dataset is expected"
        ) from error
    if path.suffix == ".ts":
        return read_ts(path.name, text)
    return _read_table(path.name, text)


def _read_table(source: str, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Lines of class and values; returns samples (N, 1, T) and labels."""
    rows: list[np.ndarray] = []
    labels: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        separator = "\t" if "\t" in line else "," if "," in line else None
        label, *values = line.strip().split(separator)
        try:
            row = np.array(values, dtype=np.float64)
        except ValueError as error:
            raise InputError(
                f"{source}, line {number}: {_find_not_number(values)} is not a number; a line is a class, then values, "
                "between tabs, commas or blanks"
            ) from error
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"{source}, line {number}: {len(row)} values, {len(rows[0])} in the lines before; {HOW_TO_PAD}"
            )
        rows.append(row)
        labels.append(label.strip())
    if not rows:
        raise InputError(f"{source} holds no series; a line is a class, then values, between tabs, commas or blanks")
    return np.stack(rows)[:, None], np.array(labels, dtype=str)


def _find_not_number(values: list[str]) -> str:
    for value in values:
        try:
            float(value)
        except ValueError:
            return repr(value[:40])
    return "a value"


def _unify_numbers(*labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """'1.0000000e+00', '1.0' and '1' are one class when every label is a whole number; else all stay as they are."""
    try:
        numbers = [part.astype(np.float64) for part in labels]
    except ValueError:
        return labels
    if not all((np.isfinite(part) & (part == np.round(part))).all() for part in numbers):
        return labels
    return tuple(np.array([str(int(value)) for value in part], dtype=str) for part in numbers)


def read_archive(name: str) -> RawData:
    """A set of the UCR or UEA archive by its name, through aeon (extra `ucr`).

    Sets that aeon ships (ItalyPowerDemand, GunPoint, ...) need no network.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InputError(
            f"ucr:{name} is not the name of a dataset; names are letters and digits, as in ucr:ItalyPowerDemand"
        )
    found = importlib.util.find_spec("aeon")
    if found is None or found.origin is None:
        raise InputError(f"ucr:{name} needs aeon, which is not installed: pip install 'edgeprune[ucr]'")
    # aeon itself takes seconds to import (numba), so its files are read directly
    shipped = Path(found.origin).parent / "datasets" / "data"
    for folder in (shipped / name, _cache_folder() / name):
        if _part(folder / name, "TRAIN", ".ts").is_file() and _part(folder / name, "TEST", ".ts").is_file():
            return _rename(read_pair(folder / name), name)
    _download(name, shipped)
    return _rename(read_pair(_cache_folder() / name / name), name)


def _rename(raw: RawData, name: str) -> RawData:
    return RawData(name, f"ucr:{name}", raw.x_train, raw.y_train, raw.x_test, raw.y_test, names=raw.names)


def _cache_folder() -> Path:
    return Path.home() / ".cache" / "edgeprune" / "ucr"


def _download(name: str, shipped: Path) -> None:
    """Let aeon fetch the set into our cache, whole or not at all.

    aeon's own errors differ from version to version, so all are caught.
    """
    from aeon.datasets import load_classification

    cache = _cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".") as folder:
            load_classification(name, split="train", extract_path=folder)
            shutil.rmtree(cache / name, ignore_errors=True)
            os.replace(Path(folder) / name, cache / name)
    except Exception as error:
        own = sorted(path.name for path in shipped.iterdir() if (path / f"{path.name}_TRAIN.ts").is_file())
        close = difflib.get_close_matches(name, own, 1)
        hint = f"did you mean {close[0]}?" if close else f"aeon itself ships {', '.join(own)}"
        raise InputError(
            f"ucr:{name} is not shipped with aeon and could not be downloaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]}); check the name and the network ({hint}), or give the files with "
            "--data"
        ) from error
