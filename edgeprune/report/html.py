"""report.html, and the page of an analysis: one file with everything in it, that works without a network."""

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
from edgeprune.report.plotting import Figure
from edgeprune.report.pruning_figures import HEAT_MAP, draw_pruning_figures
from edgeprune.report.pruning_tables import list_pruning_tables, list_redundancy
from edgeprune.report.tables import Table

Sections = Sequence[tuple[str, Sequence[str], Sequence[Table | None]]]  # title, figures by name, tables

# parts of the pruning section that stand in tables and pictures; the rest is shown as it is
PRUNING_SHOWN = (
    *("trainings", "steps", "ended_by", "masks", "transport", "ranks", "rank_history"),
    *("search", "redundancy", "heat_maps"),
)
PRUNING_FIGURES = ("search", "schedule", "information-flow", "rank-history", "ranks", "efficiency")


def render_html(document: Mapping[str, Any]) -> str:
    """The report as a page; text from models and data files is escaped by the template."""
    figures = draw_figures(document)
    sections: Sections = (
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
        ("Pruning", [*PRUNING_FIGURES, *name_heat_maps(figures)], list_pruning_tables(document)),
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
    shown = {key: document[key] for key in ("settings", "target", "data", "tools", "timings")}
    pruning = {key: value for key, value in document["pruning"].items() if key not in PRUNING_SHOWN}
    return _render(
        "page.html.jinja",
        document,
        sections,
        figures,
        summary=tables.summarize(document),
        settings_json=json.dumps({**shown, "pruning": pruning}, indent=2),
    )


def render_redundancy(document: Mapping[str, Any]) -> str:
    """The analysis of redundancy as a page; document: as `stages.analyze` makes it."""
    as_pruning = {"pruning": document}
    figures = draw_pruning_figures(as_pruning)
    sections = [("Redundancy", ["efficiency", *name_heat_maps(figures)], [list_redundancy(as_pruning)])]
    return _render("redundancy.html.jinja", document, sections, figures)


def name_heat_maps(figures: Mapping[str, Figure]) -> list[str]:
    """Names of the heat maps among the figures, in order."""
    return [name for name in figures if name.startswith(HEAT_MAP)]


def _render(
    template: str, document: Mapping[str, Any], sections: Sections, figures: Mapping[str, Figure], **values: Any
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        document=document,
        sections=[
            (title, [name for name in names if name in figures], [table for table in found if table is not None])
            for title, names, found in sections
        ],
        figures_json=_embed_json(figures),
        plotly_script=load_plotly_script(),
        **values,
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
