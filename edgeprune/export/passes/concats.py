"""Work at the end of a concat, done at its inputs instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgeprune.export.passes.editor import Editor


def split_concat(
    editor: Editor, result: str, absorbs: Sequence[bool], apply: Callable[[str, int, int], str], name: str
) -> None:
    """Rewrite the concat that writes `result` so that work on its result is done on its inputs.

    absorbs: for each input, whether it takes part of the work without an op of its own; the others are joined in runs,
        so that each run needs one op only (LITE: three convolutions absorb, eleven frozen filters are one run).
    apply: (tensor, first channel, last channel) does the work on one piece; returns the tensor to read instead.
    name: of the layer whose work it is, for the inner concats.
    """
    concat = editor.producer(result)
    assert concat is not None
    axis = concat.attrs["axis"]
    pieces: list[str] = []
    first = 0
    for run, absorbed in _find_runs(concat.inputs, absorbs):
        parts = run
        if not absorbed and len(run) > 1:
            inner = editor.make_op("concat", f"{name}/concat", run, axis=axis)
            editor.insert_before(result, inner)
            parts = [inner.outputs[0]]
        for part in parts:
            last = first + editor.shape(part)[axis]
            pieces.append(apply(part, first, last))
            first = last
    # at least one input absorbs and another needs its own op or absorbs too, so that two pieces are left
    here = editor.producer(result)
    assert here is not None
    editor.replace(here, replace(here, inputs=tuple(pieces)))


def _find_runs(tensors: Sequence[str], absorbs: Sequence[bool]) -> list[tuple[list[str], bool]]:
    """Neighbours that absorb alike."""
    runs: list[tuple[list[str], bool]] = []
    for tensor, absorbed in zip(tensors, absorbs, strict=True):
        if runs and runs[-1][1] == absorbed:
            runs[-1][0].append(tensor)
        else:
            runs.append(([tensor], absorbed))
    return runs
