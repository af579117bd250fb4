"""The files around model.c: header, self-test, normalization, example, build files, README."""

from __future__ import annotations

from dataclasses import dataclass

import jinja2
import numpy as np

from edgeprune import __version__
from edgeprune.artifacts import Normalization
from edgeprune.codegen.kernel import find_area
from edgeprune.gcc_flags import list_gcc_flags
from edgeprune.graph import Graph
from edgeprune.reference import run_joined
from edgeprune.target import Target

_TEMPLATES = (
    "model.h",
    "model_normalize.c",
    "model_selftest.c",
    "main.c",
    "CMakeLists.txt",
    "Makefile",
)


@dataclass(frozen=True, eq=False)
class FolderContent:
    """What the files around model.c are made from.

    graph: the program as given, NHWC. sources: the compiled files of model and kernels. golden_inputs: (n, ...) int8
    samples of the self-test; None for seeded random ones.
    """

    target: Target
    graph: Graph
    sources: tuple[str, ...]
    arena_bytes: int
    normalization: Normalization | None
    class_names: tuple[str, ...]
    golden_inputs: np.ndarray | None


def render_folder(content: FolderContent, notice: str) -> dict[str, str]:
    """File name -> text. notice: the comment at the head of each C file."""
    environment = _make_environment()
    values = {"notice": notice, **_describe_model(content), **_describe_normalization(content), **_make_golden(content)}
    files = {name: environment.get_template(f"{name}.jinja").render(values) for name in _TEMPLATES}
    return {**files, "README.md": render_readme(content)}


@dataclass(frozen=True)
class MeasuredSizes:
    """Measured figures for the firmware's README. method: how they were got. rows: (what, value), as text."""

    method: str
    rows: tuple[tuple[str, str], ...]
    sections: str


def render_readme(content: FolderContent, measured: MeasuredSizes | None = None) -> str:
    """The folder's README.md; with sizes and time where they have been measured."""
    values = {
        **_describe_model(content),
        "model": content.graph.name,
        "target": content.target,
        "version": __version__,
        "has_dsp": bool(content.target.dsp) and any(source.endswith(".S") for source in content.sources),
        "measured": measured,
    }
    return _make_environment().get_template("README.md.jinja").render(values)


def _make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgeprune.codegen"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C, not HTML; names from the model go through c_string or comments only
    )
    environment.filters["c_string"] = quote_c_string
    return environment


def quote_c_string(text: str) -> str:
    r"""A C string literal; what is not printable ASCII becomes octal escapes of its UTF-8 bytes.

    >>> print(quote_c_string('a"b\n'))
    "a\"b\012"
    """
    quoted = []
    for byte in text.encode():
        character = chr(byte)
        if character in '"\\':
            quoted.append("\\" + character)
        elif 32 <= byte < 127 and character != "?":  # ?? begins a trigraph in C99
            quoted.append(character)
        else:
            quoted.append(f"\\{byte:03o}")
    return f'"{"".join(quoted)}"'


def _describe_model(content: FolderContent) -> dict[str, object]:
    graph = content.graph
    ports = [*_describe_ports(graph, graph.inputs, "INPUT"), *_describe_ports(graph, graph.outputs, "OUTPUT")]
    return {
        "input_bytes": sum(graph.tensors[name].byte_count for name in graph.inputs),
        "output_bytes": sum(graph.tensors[name].byte_count for name in dict.fromkeys(graph.outputs)),
        "arena_bytes": content.arena_bytes,
        "ports": ports,
        "class_names": content.class_names,
        "layout": f"{ports[0]['shape']}{ports[0]['layout']}",
        "sources": content.sources,
        "has_assembly": any(source.endswith(".S") for source in content.sources),
        "gcc_flags": " ".join(list_gcc_flags(content.target)),
    }


def _describe_ports(graph: Graph, names: tuple[str, ...], title: str) -> list[dict[str, object]]:
    """One entry for each input or output; the second and later ones are numbered."""
    ports: list[dict[str, object]] = []
    offset = 0
    for number, name in enumerate(dict.fromkeys(names)):
        tensor = graph.tensors[name]
        assert tensor.quant is not None  # make_program takes int8 only
        ports.append(
            {
                "title": title.capitalize(),
                "name": title if number == 0 else f"{title}_{number + 1}",
                "tensor": name.replace("*/", "* /"),
                "shape": " x ".join(map(str, tensor.shape[1:])),
                "layout": _describe_layout(tensor.shape),
                "scale": repr(float(np.float32(tensor.quant.scale[0]))),
                "zero_point": int(tensor.quant.zero_point[0]),
                "offset": None if len(names) == 1 else offset,
            }
        )
        offset += tensor.byte_count
    return ports


def _describe_layout(shape: tuple[int, ...]) -> str:
    if len(shape) == 4:
        return " (time, channels)" if shape[1] == 1 else " (height, width, channels)"
    return ""


def _describe_normalization(content: FolderContent) -> dict[str, object]:
    normalization = content.normalization or Normalization()
    area = find_area(content.graph.tensors[content.graph.inputs[0]].shape)
    words = {
        "none": "",
        "per_series": "each channel minus its mean, divided by its standard deviation",
        "per_channel": "each channel minus the training set's mean, divided by its standard deviation",
    }
    return {
        "normalize": words[normalization.kind],
        "kind": normalization.kind,
        "mean": ", ".join(map(repr, normalization.mean)),
        "std": ", ".join(map(repr, normalization.std)),
        "pixels": area.pixels,
        "channels": area.channels,
    }


def _make_golden(content: FolderContent) -> dict[str, object]:
    """Self-test samples and what they give, by the reference: TFLite Micro's arithmetic."""
    graph = content.graph
    inputs = content.golden_inputs
    if inputs is None or len(graph.inputs) > 1:
        generator = np.random.default_rng(0)
        samples = {
            name: generator.integers(-128, 128, (2, *graph.tensors[name].shape[1:])).astype(np.int8)
            for name in graph.inputs
        }
    else:
        samples = {graph.inputs[0]: inputs.astype(np.int8)}
    count = len(next(iter(samples.values())))
    joined_inputs = np.concatenate([samples[name].reshape(count, -1) for name in graph.inputs], axis=1)
    outputs = run_joined(graph, samples)
    return {"count": count, "inputs": _format_values(joined_inputs), "outputs": _format_values(outputs)}


def _format_values(values: np.ndarray) -> str:
    flat = [str(int(value)) for value in values.reshape(-1)]
    return "\n".join("    " + ", ".join(flat[at : at + 24]) + "," for at in range(0, len(flat), 24))


__all__ = ["FolderContent", "MeasuredSizes", "quote_c_string", "render_folder", "render_readme"]
