"""The report's files: schema, escaping, determinism, and that a full folder keeps what it had."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

from edgeprune.disk import write_file_atomically
from edgeprune.errors import InputError
from edgeprune.report import load_schema, write_manifest, write_report
from edgeprune.report.html import render_html
from edgeprune.report.markdown import render_markdown
from tests.report.sample import make_document


def test_the_document_keeps_its_schema() -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(make_document(), schema)


def test_the_schema_refuses_a_document_with_a_wrong_figure() -> None:
    document = make_document()
    document["variants"]["base"]["accuracy"] = 96.0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, load_schema())


def test_all_files_are_written_and_repeat_to_the_byte(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_report(make_document(), folder)
        write_manifest(make_document(), folder)
    names = ["report.json", "report.md", "report.html", "manifest.json"]
    assert sorted(os.listdir(tmp_path / "a")) == sorted(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "report.json").read_text()) == json.loads(json.dumps(make_document()))


def test_text_from_models_cannot_leave_its_place_in_the_page() -> None:
    page = render_html(make_document())
    assert "</script><b>" not in page
    assert "a note with &lt;angle&gt; brackets" in page
    for name in ("accuracy-against-macs", "layers-macs", "layers-parameters", "sqnr"):
        assert f'id="{name}"' in page


def test_markdown_tables_have_as_many_cells_in_every_row() -> None:
    text = render_markdown(make_document())
    assert "model output \\|" in text
    for block in re.split(r"\n\n+", text):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) <= 1


def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="the disk is full"):
        write_file_atomically(target, b"new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_file_where_a_folder_is_needed_is_said(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("in the way")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        write_file_atomically(tmp_path / "build" / "model.onnx", b"content")
