"""report.html: one file with everything in it, that works without a network."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.report import tables
from edgeprune.report.figures import draw_figures
from edgeprune.report.tables import Table

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def render_html(document: Mapping[str, Any]) -> str:
    """The report as a page; text from models and data files is escaped by the template."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections: Sequence[tuple[str, list[str], list[Table | None]]] = (
        (
            "Result",
            ["accuracy-against-macs"],
            [tables.list_variants(document), tables.list_budgets(document), tables.list_confusion(document)],
        ),
        (
            "Layers",
            ["layers-macs", "layers-parameters"],
            [tables.list_layers(document), tables.list_unpruned(document), tables.list_program(document)],
        ),
        (
            "Firmware",
            ["firmware-layers"],
            [
                tables.list_firmware(document),
                tables.list_memory_choices(document),
                tables.list_firmware_layers(document),
            ],
        ),
        ("Latency", [], [tables.list_latency(document)]),
        ("Parity", ["parity"], [tables.list_parity(document)]),
        ("Quantization", ["sqnr"], [tables.list_sqnr(document)]),
        ("Files", [], [tables.list_artifacts(document)]),
    )
    figures = draw_figures(document)
    return environment.get_template(TEMPLATE.name).render(
        document=document,
        summary=tables.summarize(document),
        sections=[
            (title, [name for name in names if name in figures], [table for table in found if table is not None])
            for title, names, found in sections
        ],
        figures_json=_embed_json(figures),
        settings_json=json.dumps(
            {key: document[key] for key in ("settings", "pruning", "target", "data", "tools", "timings")}, indent=2
        ),
        plotly_script=load_plotly_script(),
    )


@cache
def load_plotly_script() -> str:
    """plotly.js as the plotly package brings it, read without importing the package."""
    specification = importlib.util.find_spec("plotly")
    if specification is None or specification.origin is None:
        raise EdgepruneError("the package plotly is missing; install edgeprune again with its dependencies")
    return (Path(specification.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _embed_json(value: Any) -> str:
    """JSON that is safe inside a script element: no '</script>' can appear in it."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
