"""What is done to an exported ONNX model after onnxsim: names, BatchNorm through Concat, no trace of the machine."""

from __future__ import annotations

import ast
import json
from collections.abc import Container, Iterable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgeprune.export.nodes import PRODUCER, name_layer

_SCOPES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
_RECURRENT = ("LSTM", "GRU", "RNN")  # their weights are rearranged and lose their names
_LAYER_CLASSES = ("torch.nn.modules.conv.", "torch.nn.modules.linear.")


def name_nodes(model: onnx.ModelProto) -> None:
    """Name each node after the user's module that it came from, in place; names stay unique.

    'block1.conv' for a module of torch.nn; 'block1.relu' for a function called in block1; where the exporter has lost
    the module (it fuses on its own), the name of the weights.
    """
    names = [_find_module(node) or name_layer(node, trusted=False) for node in model.graph.node]
    owners: dict[str, int] = {}  # of several nodes of one module, the one with its weights has its name
    for index, (node, name) in enumerate(zip(model.graph.node, names, strict=True)):
        if node.op_type in _RECURRENT or any(operand.startswith(f"{name}.") for operand in node.input):
            owners.setdefault(name, index)
    taken: set[str] = set()
    for index, (node, name) in enumerate(zip(model.graph.node, names, strict=True)):
        is_owner = owners.get(name, index) == index
        node.name = _make_unique(name if is_owner else f"{name}/{node.op_type.lower()}", taken)
        taken.add(node.name)


def fold_batchnorms(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold each BatchNormalization behind a Conv, or behind a Concat of Convs and others, into the Convs.

    onnxsim folds it behind a Conv, but not through a Concat (LITE, Inception). There each Conv that nobody else reads
    takes its slice; the others keep a BatchNormalization on theirs, neighbours one together.
    """
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    graph = cleaned.graph
    for result in [node.output[0] for node in graph.node if node.op_type == "BatchNormalization"]:
        norm = _find_producer(graph, result)  # the list of nodes is made anew by each fold
        concat = None if norm is None else _find_producer(graph, norm.input[0])
        if norm is None or concat is None or concat.op_type != "Concat":
            continue
        if _count_readers(graph, norm.input[0]) != 1 or onnx.helper.get_node_attr_value(concat, "axis") != 1:
            continue
        widths = [width for name in concat.input if (width := _find_width(graph, name)) is not None]
        if len(widths) == len(concat.input) and any(_folds(graph, name) for name in concat.input):
            _fold_through(graph, norm, concat, widths)
    _drop_unused(graph)
    return cleaned


def remove_traces(model: onnx.ModelProto, class_names: Sequence[str] = ()) -> onnx.ModelProto:
    """The model without documentation, metadata and inferred shapes, which hold paths of the machine.

    class_names: kept in the metadata where given.
    """
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    cleaned.producer_name = PRODUCER
    cleaned.producer_version = cleaned.domain = cleaned.doc_string = ""
    graph = cleaned.graph
    graph.name = "model"
    del graph.value_info[:]
    for part in (cleaned, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
    for value in (*graph.input, *graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_param = "batch"
    if class_names:
        cleaned.metadata_props.add(key="class_names", value=json.dumps(list(class_names)))
    return cleaned


def _find_module(node: onnx.NodeProto) -> str:
    """The module path that the dynamo exporter left in the node's metadata; '' where there is none."""
    properties = {entry.key: entry.value for entry in node.metadata_props}
    if _SCOPES not in properties or _CLASSES not in properties:
        return ""
    scopes, classes = ast.literal_eval(properties[_SCOPES]), ast.literal_eval(properties[_CLASSES])
    if len(scopes) < 2 or len(classes) != len(scopes):
        return ""
    module, call = scopes[-2], scopes[-1]
    if node.op_type in ("Conv", "Gemm", "MatMul") and not classes[-2].startswith(_LAYER_CLASSES):
        return ""  # a BatchNorm that the exporter has fused into the layer: the weights tell the name
    if module and classes[-2].startswith("torch.nn.modules."):
        return str(module)
    function = call.rstrip("0123456789").rstrip("_")
    return f"{module}.{function}" if module else function


def _fold_through(graph: onnx.GraphProto, norm: onnx.NodeProto, concat: onnx.NodeProto, widths: list[int]) -> None:
    scale, shift = _read_norm(graph, norm)
    pieces: list[str] = []
    run: list[str] = []
    added: list[onnx.NodeProto] = []
    taken: set[str] = set()
    first = begin = 0

    def close_run(end: int) -> None:
        """Give the inputs collected so far one BatchNormalization of their own."""
        if run:
            added.extend(_make_norm(graph, norm, run, begin, end, taken))
            pieces.append(added[-1].output[0])
            run.clear()

    for name, width in zip(list(concat.input), widths, strict=True):
        if _folds(graph, name):
            close_run(first)
            conv = _find_producer(graph, name)
            assert conv is not None
            _scale_conv(graph, conv, scale[first : first + width], shift[first : first + width])
            pieces.append(name)
        else:
            if not run:
                begin = first
            run.append(name)
        first += width
    close_run(first)
    place = list(graph.node).index(concat)
    joined = onnx.helper.make_node("Concat", pieces, [norm.output[0]], name=concat.name, axis=1)
    gone = (concat.output[0], norm.output[0])
    nodes = [node for node in graph.node if node.output[0] not in gone]
    nodes[place:place] = [*added, joined]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _make_norm(
    graph: onnx.GraphProto, norm: onnx.NodeProto, run: Sequence[str], first: int, last: int, taken: set[str]
) -> list[onnx.NodeProto]:
    """Nodes that join `run` and normalise it by the channels first..last of `norm`; names go to `taken`."""
    nodes = []
    source = run[0]
    if len(run) > 1:
        source = f"{norm.name}/concat.{first}"
        nodes.append(onnx.helper.make_node("Concat", list(run), [source], name=source, axis=1))
    parts = []
    for index, what in enumerate(("weight", "bias", "mean", "variance"), start=1):
        values = _read_stored(graph, norm.input[index])[first:last]
        parts.append(_store(graph, f"{norm.name}.{what}.{first}", values))
    sliced = onnx.NodeProto()
    sliced.CopyFrom(norm)
    sliced.name = _make_unique(norm.name, {node.name for node in graph.node if node is not norm} | taken)
    taken.add(sliced.name)
    del sliced.input[:], sliced.output[:]
    sliced.input.extend([source, *parts])
    sliced.output.append(f"{norm.output[0]}/{first}")
    return [*nodes, sliced]


def _scale_conv(graph: onnx.GraphProto, conv: onnx.NodeProto, scale: np.ndarray, shift: np.ndarray) -> None:
    weight = _read_stored(graph, conv.input[1])
    bias = _read_stored(graph, conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(len(weight))
    scaled = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    inputs = [
        conv.input[0],
        _store(graph, f"{conv.name}.weight", scaled),
        _store(graph, f"{conv.name}.bias", bias * scale + shift),
    ]
    del conv.input[:]
    conv.input.extend(inputs)


def _read_norm(graph: onnx.GraphProto, norm: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
    """y = scale * x + shift, float64."""
    gamma, beta, mean, variance = (_read_stored(graph, name).astype(np.float64) for name in norm.input[1:5])
    epsilon = next((attribute.f for attribute in norm.attribute if attribute.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _folds(graph: onnx.GraphProto, name: str) -> bool:
    producer = _find_producer(graph, name)
    return producer is not None and producer.op_type == "Conv" and _count_readers(graph, name) == 1


def _find_width(graph: onnx.GraphProto, name: str) -> int | None:
    """The channels of a value, from the inferred shapes."""
    for value in (*graph.value_info, *graph.input):
        if value.name == name and len(value.type.tensor_type.shape.dim) > 1:
            return int(value.type.tensor_type.shape.dim[1].dim_value) or None
    return None


def _find_producer(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    return next((node for node in graph.node if name in node.output), None)


def _count_readers(graph: onnx.GraphProto, name: str) -> int:
    readers = sum(list(node.input).count(name) for node in graph.node)
    return readers + sum(output.name == name for output in graph.output)


def _read_stored(graph: onnx.GraphProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == name)


def _store(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    """Store float32 values under a name like this one; returns the name."""
    name = _make_unique(name, {tensor.name for tensor in graph.initializer})
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    return name


def _make_unique(name: str, taken: Container[str]) -> str:
    """The name itself, or with _2, _3, ... where it is taken."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    copies: Iterable[onnx.TensorProto] = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
