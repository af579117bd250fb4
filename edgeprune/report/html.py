"""report.html, and the page of an analysis: one file with everything in it, that works without a network.

Pictures are markup (`pictures`): the page opens at once, without a script, on a phone too. plotly.js, 4.8 MB, comes
along only in a page with a figure that nothing else draws.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.report import device_tables, gate_tables, provenance, tables
from edgeprune.report.figures import draw_figures
from edgeprune.report.fit_tables import list_fit, list_fit_widths
from edgeprune.report.ladder import climb_ladder, list_lockstep
from edgeprune.report.linux_tables import list_linux_layers, list_linux_programs
from edgeprune.report.memory_figures import draw_base_memory_plan, draw_memory_plan, list_memory_plan
from edgeprune.report.picture import Picture
from edgeprune.report.pictures import draw_picture
from edgeprune.report.plotting import Figure
from edgeprune.report.pruning_figures import HEAT_MAP, draw_pruning_figures
from edgeprune.report.pruning_tables import list_pruning_tables, list_redundancy
from edgeprune.report.summary import list_budget_bars, list_headlines, name_badge
from edgeprune.report.tables import Table

# parts of the pruning section that stand in tables and pictures; the rest is shown as it is
PRUNING_SHOWN = (
    *("trainings", "steps", "ended_by", "masks", "transport", "ranks", "rank_history"),
    *("search", "redundancy", "heat_maps"),
)
PRUNING_FIGURES = ("search", "schedule", "information-flow", "rank-history", "ranks", "efficiency")
WHOLE_WIDTH = ("memory-plan", "memory-plan-base")
SENTENCE_LETTERS = 40  # cells with more get room, so that they don't become towers on a phone
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Section:
    """A part of the page: figures by name, tables, and tables that a reader opens. What is missing is left out."""

    title: str
    figures: Sequence[str] = ()
    tables: Sequence[Table | None] = ()
    folded: Sequence[Table | None] = ()

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def render_html(document: Mapping[str, Any]) -> str:
    """The report as a page; text from models and data files is escaped by the template."""
    figures = draw_figures(document)
    pictures = {
        "memory-plan": draw_memory_plan(document),
        "memory-plan-base": draw_base_memory_plan(document),
        "timings": provenance.draw_timings(document),
    }
    shown = {key: document[key] for key in ("settings", "target", "data", "tools", "timings")}
    pruning = {key: value for key, value in document["pruning"].items() if key not in PRUNING_SHOWN}
    rungs = climb_ladder(document)
    return _render(
        "page.html.jinja",
        document,
        list_sections(document, figures),
        figures,
        {name: picture for name, picture in pictures.items() if picture is not None},
        kept=["Parity"] if rungs else [],
        badge=name_badge(document),
        headlines=list_headlines(document),
        budgets=list_budget_bars(document),
        rungs=rungs,
        settings_json=json.dumps({**shown, "pruning": pruning}, indent=2),
    )


def list_sections(document: Mapping[str, Any], figures: Mapping[str, Figure]) -> list[Section]:
    """The report's sections in order; a new part of the report adds its figures and tables here."""
    costs = [f"accuracy-against-{cost}" for cost in ("macs", "flash", "ram", "time")]
    return [
        Section(
            "Baseline",
            (),
            [gate_tables.list_baseline(document), *gate_tables.list_baseline_layers(document)],
            [gate_tables.list_baseline_differences(document)],
        ),
        Section("Fit", name_figures(figures, "fit-"), [list_fit(document)], [list_fit_widths(document)]),
        Section("Accuracy", costs, [tables.list_variants(document)], [tables.list_confusion(document)]),
        Section(
            "Layers",
            ["layers-time", "layers-ram", "layers-flash", "layers-macs", "layers-parameters"],
            (),
            [
                tables.list_firmware_layers(document),
                list_linux_layers(document),
                tables.list_layers(document),
                tables.list_program(document),
            ],
        ),
        Section(
            "Memory",
            ["memory-plan", "memory-plan-base"],
            [tables.list_firmware(document), tables.list_memory_choices(document), list_linux_programs(document)],
            [list_memory_plan(document)],
        ),
        Section(
            "Latency",
            name_figures(figures, "device-"),
            [tables.list_latency(document), device_tables.list_device_runs(document)],
            [device_tables.list_device(document)],
        ),
        Section("Parity", (), (), [list_lockstep(document)]),
        Section(
            "Pruning",
            [*PRUNING_FIGURES, *name_figures(figures, HEAT_MAP)],
            list_pruning_tables(document),
            [tables.list_unpruned(document)],
        ),
        Section("Quantization", ["sqnr"], (), [tables.list_sqnr(document)]),
        Section(
            "Provenance",
            ["timings"],
            [provenance.list_sources(document), tables.list_artifacts(document)],
            [
                provenance.list_settings(document),
                provenance.list_target(document),
                provenance.list_tools(document),
            ],
        ),
    ]


def render_redundancy(document: Mapping[str, Any]) -> str:
    """The analysis of redundancy as a page; document: as `stages.analyze` makes it."""
    as_pruning = {"pruning": document}
    figures = draw_pruning_figures(as_pruning)
    names = ["efficiency", *name_figures(figures, HEAT_MAP)]
    sections = [Section("Redundancy", names, [list_redundancy(as_pruning)])]
    return _render("redundancy.html.jinja", document, sections, figures)


def name_figures(figures: Mapping[str, Figure], start: str) -> list[str]:
    """Names of the figures that begin so, in order."""
    return [name for name in figures if name.startswith(start)]


def _render(
    template: str,
    document: Mapping[str, Any],
    sections: Sequence[Section],
    figures: Mapping[str, Figure],
    drawn: Mapping[str, Picture] | None = None,
    *,
    kept: Sequence[str] = (),
    **values: Any,
) -> str:
    """figures: to be drawn. drawn: pictures already. kept: titles of sections that are shown empty too."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["digest"] = lambda cell: _DIGEST.fullmatch(cell) is not None
    environment.globals["classify"] = classify_cell
    pictures = {**{name: draw_picture(figure) for name, figure in figures.items()}, **(drawn or {})}
    shown = [_keep_what_is_there(section, pictures) for section in sections]
    shown = [item for item in shown if item.figures or item.tables or item.folded or item.title in kept]
    placed = [name for section in shown for name in section.figures]
    left = {name: figures[name] for name in placed if pictures[name] is None}
    return environment.get_template(template).render(
        document=document,
        sections=shown,
        pictures=pictures,
        whole=WHOLE_WIDTH,
        plotly_figures=_embed_json(left) if left else "",
        plotly_script=load_plotly_script() if left else "",
        **values,
    )


def _keep_what_is_there(section: Section, pictures: Mapping[str, Picture | None]) -> Section:
    return replace(
        section,
        figures=[name for name in section.figures if name in pictures],
        tables=[table for table in section.tables if table is not None],
        folded=[table for table in section.folded if table is not None],
    )


def classify_cell(cell: str, is_text: bool) -> str | None:
    """The CSS classes of a table's cell: text or a figure, a good or bad state, room for a sentence."""
    if not is_text:
        return None
    state = {"pass": "good", "met": "good", "FAIL": "bad", "missed": "bad", "unavailable": "bad"}.get(cell, "")
    is_long = len(cell) > SENTENCE_LETTERS and not _DIGEST.fullmatch(cell)
    return " ".join(filter(None, ("text", state, "long" if is_long else "")))


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
