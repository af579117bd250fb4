"""The cache: found by content, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeprune import cache as cache_module
from edgeprune.cache import ENTRY, OBJECTS, Cache, choose_entries, find_cache_folder, make_key
from edgeprune.cli import app
from edgeprune.errors import InputError

FILES = {"a.bin": b"\x00\x01", "inner/b.txt": b"text"}


def test_a_result_is_made_once_and_then_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.reuse("build", {"x": 1}, lambda: FILES) == FILES
    assert cache.reuse("build", {"x": 1}, lambda: pytest.fail("made again")) == FILES
    assert Cache(tmp_path / "cache").reuse("build", {"x": 1}, lambda: pytest.fail("made again")) == FILES
    assert (cache.made, cache.found) == (["build"], ["build"])


@pytest.mark.parametrize(
    "other",
    [
        ("stage", {"x": 1, "array": np.arange(3)}),
        ("build", {"x": 2, "array": np.arange(3)}),
        ("build", {"x": 1, "array": np.arange(3).astype(np.int32)}),
        ("build", {"x": 1, "array": np.array([0, 1, 3])}),
        ("build", {"x": 1, "array": np.arange(3).reshape(3, 1)}),
        ("build", {"y": 1, "array": np.arange(3)}),
        ("build", {"x": "1", "array": np.arange(3)}),
        ("build", {"x": b"1", "array": np.arange(3)}),
        ("build", {"x": [1], "array": np.arange(3)}),
        ("build", {"x": None, "array": np.arange(3)}),
    ],
)
def test_any_other_input_has_another_key(other: tuple[str, dict[str, object]]) -> None:
    assert make_key(*other) != make_key("build", {"x": 1, "array": np.arange(3)})


def test_the_key_holds_the_source_and_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key("build", {})
    assert make_key("build", {}) == key
    monkeypatch.setattr(cache_module, "digest_source", lambda: "other")
    assert make_key("build", {}) != key
    monkeypatch.undo()
    monkeypatch.setattr(cache_module, "list_package_versions", lambda: {"torch": "0"})
    assert make_key("build", {}) != key


def test_values_that_are_no_content_are_refused() -> None:
    with pytest.raises(TypeError):
        make_key("build", {"x": object()})


def test_what_make_gives_comes_back_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    made = cache.reuse_json("rows", {}, lambda: {"pair": (1, 2.5), "none": None})
    assert made == {"pair": [1, 2.5], "none": None}  # a list at once, not only the second time
    assert cache.reuse_json("rows", {}, lambda: None) == made
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for _ in range(2):
        found = cache.reuse_array("array", {}, lambda: array)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("damage", ["content", "missing", "entry", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.reuse("build", {}, lambda: FILES)
    (entry,) = (tmp_path / OBJECTS).iterdir()
    if damage == "content":
        (entry / "a.bin").write_bytes(b"\x00\x02")
    elif damage == "missing":
        (entry / "a.bin").unlink()
    else:
        (entry / ENTRY).write_text("{" if damage == "entry" else "")
    assert cache.reuse("build", {}, lambda: FILES) == FILES
    assert cache.made == ["build", "build"]
    assert Cache(tmp_path).reuse("build", {}, lambda: pytest.fail("not mended")) == FILES


def test_what_lacks_a_tool_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for _ in range(2):
        cache.reuse("firmware", {}, lambda: FILES, keeps=lambda files: b"text" not in files.values())
    assert cache.made == ["firmware", "firmware"]
    assert cache.list_entries() == []


def test_a_failure_while_making_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(InputError):
        cache.reuse("build", {}, lambda: (_ for _ in ()).throw(InputError("no")))
    assert not list(tmp_path.rglob("*"))


def test_without_a_folder_everything_is_made(tmp_path: Path) -> None:
    cache = Cache(None)
    assert cache.reuse("build", {}, lambda: FILES) == FILES
    assert cache.trainings is None
    assert not list(tmp_path.rglob("*"))


def test_a_full_disk_is_told_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.reuse("build", {"x": 1}, lambda: FILES)

    def refuse(_self: Path, _content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert cache.reuse("build", {"x": 2}, lambda: FILES) == FILES
    assert "the disk is full" in cache.problem
    monkeypatch.undo()
    assert cache.reuse("build", {"x": 1}, lambda: pytest.fail("lost")) == FILES
    assert not list(tmp_path.rglob(".part-*"))


def _fill(folder: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    barrier.wait()
    cache = Cache(folder)
    for number in range(40):
        content = {"x": os.urandom(0) + str(number).encode() * 2000}
        if cache.reuse("race", {"number": number}, lambda content=content: content) != content:
            os._exit(1)


def test_two_runs_at_once_leave_whole_entries(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    runs = [context.Process(target=_fill, args=(tmp_path, barrier)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    cache = Cache(tmp_path)
    for number in range(40):
        kept = cache.reuse("race", {"number": number}, lambda: pytest.fail("missing"))
        assert kept == {"x": str(number).encode() * 2000}
    assert len(cache.list_entries()) == 40


def test_what_killed_runs_left_goes_when_it_is_old(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.reuse("build", {}, lambda: FILES)
    old, young = tmp_path / OBJECTS / ".part-old", tmp_path / OBJECTS / ".part-young"
    file = tmp_path / "trainings" / ".base.pt.x1.part"
    for folder in (old, young, file.parent):
        folder.mkdir()
    file.write_bytes(b"half")
    for path in (old, file):
        os.utime(path, (time.time() - 7200,) * 2)
    cache.tidy()
    assert [path.exists() for path in (old, young, file)] == [False, True, False]
    assert len(cache.list_entries()) == 1


def test_git_leaves_the_folder_alone(tmp_path: Path) -> None:
    Cache(tmp_path).reuse("build", {}, lambda: FILES)
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_the_folder_is_the_named_one_then_the_environments_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_CACHE", "elsewhere")
    assert find_cache_folder(tmp_path) == tmp_path
    assert find_cache_folder() == Path("elsewhere")
    monkeypatch.delenv("EDGEPRUNE_CACHE")
    assert find_cache_folder() == Path(".edgeprune")


def test_entries_are_chosen_by_name_and_by_age(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.reuse("build", {}, lambda: FILES)
    cache.reuse("verify", {}, lambda: FILES)
    old = next(entry for entry in cache.list_entries() if entry.kind == "verify")
    os.utime(old.path / ENTRY, (time.time() - 3600,) * 2)
    entries = cache.list_entries()
    assert [entry.kind for entry in entries] == ["verify", "build"]
    assert choose_entries(entries, names=("ver",)) == [entries[0]]
    assert choose_entries(entries, unused_for=1800) == [entries[0]]
    assert choose_entries(entries) == entries
    with pytest.raises(InputError, match="nothing of that name"):
        choose_entries(entries, names=("nothing",))


def test_the_command_lists_and_removes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.reuse("build", {}, lambda: FILES)
    (tmp_path / "trainings").mkdir()
    (tmp_path / "trainings" / "base-0123.pt").write_bytes(b"12345")
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["cache", "ls", "--cache", str(tmp_path), "--json"]).output)
    assert {row["kind"] for row in listed} == {"build", "training"}
    assert "2 kept" in runner.invoke(app, ["cache", "ls", "--cache", str(tmp_path)]).output
    removed = runner.invoke(app, ["cache", "rm", "base", "--cache", str(tmp_path)])
    assert removed.output == "removed: 1, 5 bytes\n"
    nothing_named = runner.invoke(app, ["cache", "rm", "--cache", str(tmp_path)])
    assert isinstance(nothing_named.exception, InputError)
    assert runner.invoke(app, ["cache", "rm", "--all", "--cache", str(tmp_path)]).exit_code == 0
    assert cache.list_entries() == []
