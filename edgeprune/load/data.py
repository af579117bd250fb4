"""Datasets: which reader for which spec, and where the data of a model lies when none was named.

| spec | read by |
|---|---|
| `name.npz` | data_npz |
| `X_TRAIN.tsv`, `X_TEST.ts`, `X_TRAIN.txt`, their folder, or the common stem `folder/X` | data_ucr |
| `ucr:NAME` | data_ucr, through aeon |
| `recording.edf` (or the pair `X_TRAIN.edf`, `X_TEST.edf`) | data_edf |
| a folder of images: `<class>/*.png`, or `train/<class>/...` and `test/<class>/...` | data_images |

Options stand behind a question mark, `recording.edf?window_s=2&channels=Fpz-Cz`, or in [data.options] of
edgeprune.toml; each reader's docstring lists its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from edgeprune.artifacts import Dataset
from edgeprune.errors import InputError
from edgeprune.load import data_edf, data_images, data_npz, data_ucr
from edgeprune.load.data_checks import RawData, assemble_dataset

if TYPE_CHECKING:
    from edgeprune.config import Config

Reader = Callable[[Path, Mapping[str, str]], RawData]

# suffix -> reader, its options
READERS: dict[str, tuple[Reader, tuple[str, ...]]] = {
    ".npz": (data_npz.read_npz, data_npz.OPTIONS),
    ".ts": (data_ucr.read_pair, data_ucr.OPTIONS),
    ".tsv": (data_ucr.read_pair, data_ucr.OPTIONS),
    ".txt": (data_ucr.read_pair, data_ucr.OPTIONS),
    ".edf": (data_edf.read_edf, data_edf.OPTIONS),
}
IMAGE_FOLDER: tuple[Reader, tuple[str, ...]] = (data_images.read_image_folder, data_images.OPTIONS)

FORMS = (
    "a .npz file, a UCR pair (X_TRAIN.ts and X_TEST.ts, or .tsv, .txt), ucr:NAME, an .edf recording, or a folder of "
    "images per class"
)


def load_dataset(spec: str, *, seed: int = 0, options: Mapping[str, str] | None = None) -> Dataset:
    """Read a dataset in any of the forms of this module's table.

    seed: draws the test set out of data that comes without one; it must be the same when training and when compiling,
        so callers leave it alone unless the user said so.
    options: of the reader; those in the spec win.

    Raises InputError: what is wrong with the data, in one sentence.
    """
    text, options = _split_spec(spec, dict(options or {}))
    if text.startswith("ucr:"):
        _check_options(spec, options, data_ucr.OPTIONS)
        return assemble_dataset(data_ucr.read_archive(text.removeprefix("ucr:")), seed)
    if not text:
        raise InputError(f"--data is empty; it takes {FORMS}")
    path = Path(text)
    if path.name in ("", ".."):  # the current folder and the like: their real names go into the report
        path = path.resolve()
    reader, allowed = _choose_reader(spec, path)
    _check_options(spec, options, allowed)
    try:
        raw = reader(path, options)
    except PermissionError as error:
        raise InputError(f"{text} may not be read: change its permissions") from error
    return assemble_dataset(raw, seed)


def find_dataset(model_path: Path | str, option: str | None, config: Config | None) -> str:
    """The spec of the dataset that belongs to a model.

    In this order: the --data option; path in [data] of edgeprune.toml (relative to that file's folder, its
    [data.options] appended to the spec); calibration_data/<model stem>.npz below the current folder.

    Raises InputError that lists these ways when none gives anything.
    """
    found = look_for_dataset(model_path, option, config)
    if found is not None:
        return found
    default = _default_place(model_path)
    raise InputError(
        f"no dataset for {Path(model_path).name}: give --data ({FORMS}), or write path = '...' under [data] in an "
        f"edgeprune.toml beside the model, or put the data at {default}"
    )


def look_for_dataset(model_path: Path | str, option: str | None, config: Config | None) -> str | None:
    """As `find_dataset`; None where there is no dataset."""
    if option:
        return option
    if config is not None and config.data.path:
        return _resolve_beside(config.data.path, config.folder) + _join_options(config.data.options)
    default = _default_place(model_path)
    return str(default) if default.is_file() else None


def _default_place(model_path: Path | str) -> Path:
    return Path("calibration_data") / f"{Path(model_path).stem}.npz"


def _resolve_beside(spec: str, folder: Path | None) -> str:
    if spec.startswith("ucr:") or folder is None:
        return spec
    return str(folder / spec)


def _join_options(options: Mapping[str, str]) -> str:
    return "?" + "&".join(f"{key}={quote(value)}" for key, value in options.items()) if options else ""


def _split_spec(spec: str, options: dict[str, str]) -> tuple[str, dict[str, str]]:
    """`file.edf?window_s=2` apart; a question mark that is part of an existing file's name stays."""
    if "?" not in spec or Path(spec).exists():
        return spec, options
    text, _, query = spec.rpartition("?")
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if not (equals and key and value):
            raise InputError(f"{spec}: {part!r} is not an option; write them as name=value, joined by &")
        options[key] = unquote(value)
    return text, options


def _check_options(spec: str, options: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    for key in options:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, 1)
            known = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(allowed) or 'none'}"
            raise InputError(f"{spec}: unknown data option {key!r}; {known}")


def _choose_reader(spec: str, path: Path) -> tuple[Reader, tuple[str, ...]]:
    if path.is_dir():
        if data_ucr.is_pair_folder(path):
            return data_ucr.read_pair, data_ucr.OPTIONS
        return IMAGE_FOLDER
    if path.is_file():
        if path.suffix.lower() in READERS:
            return READERS[path.suffix.lower()]
        raise InputError(f"{spec}: {path.suffix or 'no suffix'} is not a dataset format; --data takes {FORMS}")
    if data_ucr.is_pair_stem(path):
        return data_ucr.read_pair, data_ucr.OPTIONS
    raise InputError(f"{spec}: no such file or folder; --data takes {FORMS}")
