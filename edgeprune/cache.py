"""What has been computed before, found again by the content it was computed from.

    .edgeprune/
      trainings/              networks trained and under way (`prune.checkpoint` names them)
      objects/<stage>-<key>/  what a stage gave: entry.json with the digest of each file, and the files

A key is a digest of all that decides a result: the stage, its inputs by content, the settings it reads, edgeprune's own
source and the versions of the packages. So nothing is ever out of date: what has changed has another key. A stage gets
its result from what lies on the disk the first time too, packed and unpacked, so that no byte can depend on whether it
was found or made.

Entries are written beside their place and renamed into it: two runs at once, or one that is killed, leave whole entries
or none. A file whose digest is not the recorded one counts as missing. A disk that takes no more is no reason to stop:
the result is there, it is only not kept.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import __version__
from edgeprune.disk import explain_write_error, remove_leftovers
from edgeprune.errors import InputError

FOLDER = ".edgeprune"
VARIABLE = "EDGEPRUNE_CACHE"
TRAININGS, OBJECTS = "trainings", "objects"
ENTRY = "entry.json"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache: a training (a file) or a stage's result (a folder).

    name: how `edgeprune cache rm` calls it. used: seconds since 1970, when it was last written or read.
    """

    name: str
    kind: str
    bytes: int
    used: float
    path: Path


class Cache:
    """Results by content; `folder` None: nothing is kept and nothing is found.

    found, made: the stages whose results were there, and those that were computed, in order.
    problem: why something could not be kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.found: list[str] = []
        self.made: list[str] = []
        self.problem = ""

    @property
    def trainings(self) -> Path | None:
        """The folder of trainings, or None."""
        return None if self.folder is None else self.folder / TRAININGS

    def reuse(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        make: Callable[[], Files],
        *,
        keeps: Callable[[Files], bool] = lambda _files: True,
    ) -> Files:
        """The files that `make` gives for these inputs, made only if they are not there.

        inputs: names and values; bytes and arrays count by their content, all else must be JSON.
        keeps: whether a result is worth finding again: one that lacks a tool is not, which may be there tomorrow.
        """
        if self.folder is None:
            return make()
        entry = self.folder / OBJECTS / f"{stage}-{make_key(stage, inputs)[:32]}"
        kept = read_entry(entry)
        if kept is not None:
            self.found.append(stage)
            return kept
        self.made.append(stage)
        files = dict(make())
        if keeps(files):
            self._store(entry, stage, files)
        return files

    def reuse_array(self, stage: str, inputs: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """As `reuse`, of one array."""
        return unpack_array(self.reuse(stage, inputs, lambda: {"array.npy": pack_array(make())})["array.npy"])

    def reuse_json(self, stage: str, inputs: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """As `reuse`, of plain data; comes back as JSON has it: lists for tuples."""
        return unpack_json(self.reuse(stage, inputs, lambda: {"value.json": pack_json(make())})["value.json"])

    def _store(self, entry: Path, stage: str, files: Files) -> None:
        temporary: str | None = None
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            self._mark()
            temporary = tempfile.mkdtemp(dir=entry.parent, prefix=".part-")
            for name, content in files.items():
                path = Path(temporary) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            described = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
            (Path(temporary) / ENTRY).write_bytes(pack_json({"stage": stage, "files": described}))
            if entry.exists():
                shutil.rmtree(entry)  # damaged: it was not found
            os.rename(temporary, entry)
        except OSError as error:
            if not (entry / ENTRY).is_file():  # else another run was faster
                self.problem = f"{self.folder}: {explain_write_error(error)}"
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _mark(self) -> None:
        """Tell git and backup programs to leave the folder alone."""
        assert self.folder is not None
        for name, text in (
            (".gitignore", "*\n"),
            ("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# https://bford.info/cachedir/\n"),
        ):
            if not (self.folder / name).exists():
                (self.folder / name).write_text(text)

    def tidy(self) -> None:
        """Remove what killed runs have left half-written."""
        if self.folder is not None:
            for name in (TRAININGS, OBJECTS):
                remove_leftovers(self.folder / name)

    def list_entries(self) -> list[CacheEntry]:
        """All that is kept, the longest unused first."""
        return sorted(self._walk(), key=lambda entry: (entry.used, entry.name))

    def _walk(self) -> Iterator[CacheEntry]:
        if self.folder is None:
            return
        for path in (self.folder / TRAININGS).glob("*.pt"):
            status = path.stat()
            yield CacheEntry(path.stem, "training", status.st_size, status.st_mtime, path)
        for path in (self.folder / OBJECTS).glob("*-*"):
            if (path / ENTRY).is_file() and not path.name.startswith("."):
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                yield CacheEntry(path.name, path.name.rpartition("-")[0], size, (path / ENTRY).stat().st_mtime, path)

    def remove(self, entry: CacheEntry) -> None:
        """Forget one result."""
        if entry.path.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            entry.path.unlink(missing_ok=True)


def find_cache_folder(named: Path | None = None) -> Path:
    """The folder that was named, else the environment's EDGEPRUNE_CACHE, else .edgeprune in the working folder."""
    return named or Path(os.environ.get(VARIABLE) or FOLDER)


def read_entry(entry: Path) -> dict[str, bytes] | None:
    """The files of an entry, None where it is missing or damaged; notes that it was used."""
    try:
        recorded = json.loads((entry / ENTRY).read_bytes())["files"]
        files = {name: (entry / name).read_bytes() for name in recorded}
        if any(hashlib.sha256(content).hexdigest() != recorded[name] for name, content in files.items()):
            return None
        os.utime(entry / ENTRY)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files


def make_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """The digest of a stage and its inputs, of edgeprune's source and of the packages at work."""
    described = {name: _describe(value) for name, value in inputs.items()}
    content = {"stage": stage, "inputs": described, "source": digest_source(), "packages": list_package_versions()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _describe(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": content, "type": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {str(name): _describe(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe(item) for item in value]
    return value


@functools.cache
def digest_source() -> str:
    """Of edgeprune's own files, Python and C alike."""
    digest = hashlib.sha256(__version__.encode())
    for name, file in sorted(_list_source(resources.files("edgeprune"), "")):
        digest.update(name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _list_source(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for item in folder.iterdir():
        if item.is_dir():
            if item.name not in ("__pycache__", "_targets"):
                yield from _list_source(item, f"{prefix}{item.name}/")
        elif not re.search(r"\.(pyc|pyo|md)$", item.name):
            yield prefix + item.name, item


@functools.cache
def list_package_versions() -> Mapping[str, str]:
    """Versions of the packages that take part in a compile."""
    from edgeprune.doctor import list_tool_versions

    return list_tool_versions()


def pack_array(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack_array(content: bytes) -> np.ndarray:
    """The array of a .npy file."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def pack_json(value: Any) -> bytes:
    """Plain data as JSON."""
    return json.dumps(value, ensure_ascii=False).encode()


def unpack_json(content: bytes) -> Any:
    """The data of a JSON file."""
    return json.loads(content)


def choose_entries(
    entries: list[CacheEntry], *, names: tuple[str, ...] = (), unused_for: float | None = None
) -> list[CacheEntry]:
    """The entries that `edgeprune cache rm` was asked for: by name or its beginning, by seconds without use, or all.

    Raises InputError for a name that no entry has.
    """
    for name in names:
        if not any(entry.name.startswith(name) for entry in entries):
            raise InputError(f"{name}: nothing of that name is in the cache; `edgeprune cache ls` lists what is")
    now = time.time()
    return [
        entry
        for entry in entries
        if (not names or any(entry.name.startswith(name) for name in names))
        and (unused_for is None or now - entry.used >= unused_for)
    ]
