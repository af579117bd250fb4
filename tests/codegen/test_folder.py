"""The files around model.c: normalization equal to Python's, names quoted, the header good for C and C++."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeprune.artifacts import Normalization
from edgeprune.codegen.folder import FolderContent, MeasuredSizes, quote_c_string, render_folder, render_readme
from edgeprune.graph import Graph, Op, Quant, Tensor
from edgeprune.layout import to_nhwc
from edgeprune.reference.values import quantize_values
from edgeprune.target import load_target
from tests.codegen.harness import WARNINGS

INPUT_QUANT = Quant.per_tensor(0.0217, -7)


def _make_content(shape: tuple[int, ...], normalization: Normalization | None, **changes: object) -> FolderContent:
    tensors = {
        "input": Tensor("input", shape, "int8", None, INPUT_QUANT),
        "output": Tensor("output", shape, "int8", None, INPUT_QUANT),
    }
    graph = Graph("test", tensors, (Op("relu", "relu", ("input",), ("output",), {}),), ("input",), ("output",))
    content = FolderContent(load_target("cortex-m4"), graph, ("model.c",), 64, normalization, (), None)
    return replace(content, **changes)  # type: ignore[arg-type]


def _normalize_in_c(content: FolderContent, samples: np.ndarray, folder: Path) -> np.ndarray:
    """int8 of each sample (N, ...) by the generated C."""
    for name, text in render_folder(content, "").items():
        (folder / name).write_text(text)
    command = ["gcc", *WARNINGS, "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-o", "n.so", "model_normalize.c"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    library = ctypes.CDLL(str(folder / "n.so"))
    results = []
    for sample in samples:
        values = np.ascontiguousarray(sample, np.float32)
        stored = np.empty(values.size, np.int8)
        library.edgeprune_model_normalize(ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(stored.ctypes.data))
        results.append(stored.reshape(sample.shape))
    return np.stack(results)


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization(),
        Normalization("per_series"),
        Normalization("per_channel", (3.25, -100.5, 0.001), (1.7, 33.0, 0.0007)),
    ],
    ids=lambda normalization: normalization.kind,
)
@pytest.mark.parametrize("length", [1, 2, 37, 140, 1751])
def test_normalization_in_c_is_that_of_python(normalization: Normalization, length: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(length)
    raw = generator.normal(size=(40, 3, length)) * np.array([[[1.0], [50.0], [1e-3]]]) + np.array([[[3], [-100], [0]]])
    raw[0] = 7.25  # constant channels
    raw[1] = 0.0
    raw[2, :, ::2] = 1e30  # saturates
    raw = raw.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = quantize_values(to_nhwc(normalization.apply(raw)), INPUT_QUANT)
    content = _make_content((1, 1, length, 3), normalization)
    assert np.array_equal(_normalize_in_c(content, to_nhwc(raw), tmp_path), expected)


def test_ties_round_away_from_zero_in_c(tmp_path: Path) -> None:
    quant = Quant.per_tensor(0.5, 0)
    values = np.array([-1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 0.24999999, -0.24999999], np.float32)
    content = _make_content((1, len(values)), None)
    tensors = {name: replace(tensor, quant=quant) for name, tensor in content.graph.tensors.items()}
    content = replace(content, graph=replace(content.graph, tensors=tensors))
    stored = _normalize_in_c(content, values[None], tmp_path)
    assert stored.tolist() == [[-3, -2, -1, 1, 2, 3, 0, 0]]


@pytest.mark.parametrize("compiler", [["gcc", "-std=c99"], ["g++", "-std=c++17", "-x", "c++"]])
def test_the_header_stands_alone(compiler: list[str], tmp_path: Path) -> None:
    names = ('quote " and \\', "Grüße", "a??/b", "line\nbreak")
    content = _make_content((1, 1, 8, 1), None, class_names=names)
    (tmp_path / "model.h").write_text(render_folder(content, "")["model.h"])
    (tmp_path / "use.c").write_text(
        '#include "model.h"\nstatic EDGEPRUNE_MODEL_ARENA(arena);\n'
        "const char *const names[EDGEPRUNE_MODEL_CLASS_COUNT] = EDGEPRUNE_MODEL_CLASS_NAMES;\n"
        "int use(void) { return edgeprune_model_selftest(arena); }\n"
    )
    command = [*compiler, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "use.c"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


def test_quoted_names_are_what_c_reads(tmp_path: Path) -> None:
    names = ['quote " and \\', "Grüße", "a??/b", "line\nbreak", "digits\x017"]
    literals = ", ".join(map(quote_c_string, names))
    (tmp_path / "names.c").write_text(f"const char *const names[] = {{{literals}}};\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "names.so", "names.c"], cwd=tmp_path, check=True)
    array = (ctypes.c_char_p * len(names)).in_dll(ctypes.CDLL(str(tmp_path / "names.so")), "names")
    assert [value.decode() for value in array if value is not None] == names


def test_readme_names_sizes_once_they_are_measured() -> None:
    content = _make_content((1, 1, 8, 1), None)
    assert "Sizes and time" not in render_readme(content)
    measured = MeasuredSizes("counted in an emulator", (("flash", "1,234 bytes"),), "text 1,000, rodata 234")
    text = render_readme(content, measured)
    assert "| flash | 1,234 bytes |" in text
    assert "counted in an emulator" in text
