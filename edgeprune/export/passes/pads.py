"""Explicit padding becomes TFLite's 'same' where that is exactly equal; what no window reads is trimmed."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.export.passes.editor import Editor
from edgeprune.graph import Graph, Op
from edgeprune.ops import same_padding, window_output_size

# the padding that an op's own 'same' stands for
_MODES = {"conv_2d": "zero", "depthwise_conv_2d": "zero", "max_pool_2d": "lowest", "average_pool_2d": "zero"}
Pairs = tuple[tuple[int, int], ...]


def merge_pads(graph: Graph) -> Graph:
    """Two pads of one kind in a row -> one."""
    editor = Editor(graph)
    for op in list(editor.ops):
        outer = editor.producer(op.outputs[0])
        assert outer is not None
        if outer.kind != "pad":
            continue
        inner = editor.producer(outer.inputs[0])
        if inner is None or inner.kind != "pad" or inner.attrs["mode"] != outer.attrs["mode"]:
            continue
        if editor.sole_consumer(inner.outputs[0]) is None:
            continue
        pairs = tuple(
            (first[0] + second[0], first[1] + second[1])
            for first, second in zip(inner.attrs["paddings"], outer.attrs["paddings"], strict=True)
        )
        attrs = {"paddings": pairs, "mode": outer.attrs["mode"]}
        editor.replace(outer, Op("pad", outer.name, inner.inputs, outer.outputs, attrs))
        editor.remove([inner])
    return editor.finish()


def absorb_pads(graph: Graph) -> Graph:
    """pad and a 'valid' window -> a 'same' window, a 'valid' one, or a pad of what the windows read and no more."""
    editor = Editor(graph)
    for op in list(editor.ops):
        window = editor.producer(op.outputs[0])
        assert window is not None
        if window.kind not in _MODES or window.attrs["padding"] != "valid":
            continue
        pad = editor.producer(window.inputs[0])
        if pad is None or pad.kind != "pad":
            continue
        pairs: Pairs = pad.attrs["paddings"]
        if any(map(any, (pairs[0], pairs[3]))):
            continue
        read = _find_read_padding(editor, window, pad)
        inputs = (pad.inputs[0], *window.inputs[1:])
        if not any(map(any, read)):  # nothing of the padding is read; true of any kind of padding
            editor.replace(window, replace(window, inputs=inputs))
        elif (
            window.kind != "average_pool_2d"
            and _MODES[window.kind] == pad.attrs["mode"]
            and _is_same(editor, window, pad, read)
        ):
            attrs = {**window.attrs, "padding": "same"}
            editor.replace(window, replace(window, inputs=inputs, attrs=attrs))
        elif read != pairs[1:3] and editor.sole_consumer(pad.outputs[0]) is not None:
            trimmed = replace(pad, attrs={**pad.attrs, "paddings": (pairs[0], *read, pairs[3])})
            editor.declare(trimmed)
            editor.replace(pad, trimmed)
    return editor.finish()


def _find_read_padding(editor: Editor, window: Op, pad: Op) -> Pairs:
    """Padding (before, after) of height and width as far as windows read it. The part before is always read."""
    pairs = pad.attrs["paddings"]
    found = []
    for axis, (size, kernel, stride, dilation) in enumerate(_window_axes(editor, window, pad)):
        before, after = pairs[1 + axis]
        count = window_output_size(size + before + after, kernel, stride, dilation, "valid")
        reach = (count - 1) * stride + (kernel - 1) * dilation + 1
        found.append((before, max(0, reach - before - size)))
    return tuple(found)


def _is_same(editor: Editor, window: Op, pad: Op, read: Pairs) -> bool:
    counts = editor.shape(window.outputs[0])[1:3]
    return all(
        read[axis] == same_padding(size, kernel, stride, dilation) and counts[axis] == -(-size // stride)
        for axis, (size, kernel, stride, dilation) in enumerate(_window_axes(editor, window, pad))
    )


def _window_axes(editor: Editor, window: Op, pad: Op) -> list[tuple[int, int, int, int]]:
    """(input size, kernel, stride, dilation) of height and width, before padding."""
    kernel = window.attrs.get("kernel_size") or editor.shape(window.inputs[1])[1:3]
    dilation = window.attrs.get("dilation", (1, 1))
    sizes = editor.shape(pad.inputs[0])[1:3]
    return list(zip(sizes, kernel, window.attrs["stride"], dilation, strict=True))
