"""The arena over time: steps of the firmware from left to right, bytes of the arena upwards, a box for each buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edgeprune.report.axis import choose_axis
from edgeprune.report.picture import LegendEntry, Picture, join_markup
from edgeprune.report.plotting import Document
from edgeprune.report.tables import Table

PLOT_HEIGHT = 320
# width of a step, in pixels: at least, where the plot scrolls; and the plot's on a wide screen, to choose how names lie
STEP_WIDTH, WIDE_PLOT = 22, 900
LINE_HEIGHT = 14
LETTER_WIDTH = 7
MOST_LETTERS = 36  # of a step's name below the plot
KINDS: Mapping[str, tuple[str, str]] = {
    "whole": ("whole feature map", "var(--memory-whole)"),
    "window": ("window of rows, streamed", "var(--memory-window)"),
    "scratch": ("scratch of one call", "var(--memory-scratch)"),
    "state": ("state kept between calls", "var(--memory-state)"),
}

_FRAME = Markup(
    '<div class="timeline">\n<svg class="scale" width="64" height="{total}" aria-hidden="true">{ticks}</svg>\n'
    '<div class="wide" tabindex="0" role="region" aria-label="{title}: scrolls sideways">\n'
    '<svg class="steps" style="min-width:{least}px" height="{total}" role="img" aria-label="{words}">\n'
    "{lines}{runs}{boxes}{peak}{names}</svg>\n</div>\n</div>\n"
)
_TICK = Markup('<text x="56" y="{y:.1f}" dy=".35em">{label}</text>')
_LINE = Markup('<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>\n')
_BOX = Markup(
    '<svg x="{x:.3f}%" y="{y:.1f}" width="{width:.3f}%" height="{height:.1f}"><title>{title}</title>'
    '<rect class="buffer{inner}" width="100%" height="100%" style="fill:{color}"/>{text}</svg>\n'
)
_ALONG = Markup('<text x="5" y="{y}">{words}</text>')
_UPRIGHT = Markup('<text transform="translate(14 {y:.1f}) rotate(-90)">{words}</text>')
_RUN = Markup(
    '<rect class="run" x="{x:.3f}%" y="{top}" width="{width:.3f}%" height="{height}"/>'
    '<text class="run" x="{x:.3f}%" dx="4" y="{text_y}">{words}<title>{words}</title></text>\n'
)
_STEP = Markup(
    '<svg x="{x:.3f}%" y="{y}" overflow="visible"><text class="step{full}" transform="rotate(-90)" dy=".35em">{name}'
    "<title>{title}</title></text></svg>\n"
)


def draw_memory_plan(document: Document) -> Picture | None:
    """The compiled firmware's arena; None where the report has no plan."""
    return _draw_plan(document["firmware"], "Arena of the firmware over time", _find_most_bytes(document))


def draw_base_memory_plan(document: Document) -> Picture | None:
    """The arena of the model as given."""
    base = document["firmware"].get("base") or {}
    title = "Arena of the firmware over time, before: the model as given"
    return _draw_plan(base, title, _find_most_bytes(document))


def _find_most_bytes(document: Document) -> int:
    """The top of both pictures: they have one scale, so that heights compare."""
    sections = document["firmware"], document["firmware"].get("base") or {}
    return max([1, *(section["memory_plan"]["bytes"] for section in sections if section.get("memory_plan"))])


def list_memory_plan(document: Document) -> Table | None:
    """Each buffer of the arena, in words."""
    plan = document["firmware"].get("memory_plan")
    if not plan or not plan["buffers"]:
        return None
    rows = tuple(
        (
            " = ".join([item["name"], *item.get("holds", ())]),
            _name_kind(item),
            f"{item['bytes']:,}",
            f"{item['offset']:,}",
            _name_steps(plan["steps"], item),
        )
        for item in plan["buffers"]
    )
    return Table("Buffers of the arena", ("buffer", "what", "bytes", "offset", "alive in"), rows, (0, 1, 4))


def _draw_plan(firmware: Mapping[str, Any], title: str, most: int) -> Picture | None:
    plan = firmware.get("memory_plan")
    if not plan or not plan["steps"] or not plan["buffers"]:
        return None
    live = _count_live_bytes(plan)
    fullest = max(range(len(live)), key=live.__getitem__)
    words = (
        f"{plan['bytes']:,} bytes in all for {len(plan['buffers'])} buffers over {len(plan['steps'])} steps; fullest "
        f"at {plan['steps'][fullest]}, with {live[fullest]:,} bytes alive. Input and output lie outside of the arena."
    )
    for run in plan.get("streamed", ()):
        words += f" {_describe_run(plan, run)}."
    top = 24 if plan.get("streamed") else 10  # room for the names of streamed runs
    longest = max(len(_shorten(name)) for name in plan["steps"])
    total = top + PLOT_HEIGHT + 12 + (LETTER_WIDTH + 1) * longest  # one of them is bold
    axis = choose_axis([0, most], {"range": [0, most]})

    def find_y(offset: float) -> float:
        return top + PLOT_HEIGHT * (1 - axis.place(offset))

    # the peak has its own label; a tick too near to it would lie under that
    ticks = [(value, f"{value:,.0f}") for value, _ in axis.ticks if abs(value - plan["bytes"]) > 0.06 * most]
    ticks.append((plan["bytes"], f"{plan['bytes']:,}"))
    body = _FRAME.format(
        title=title,
        words=words,
        total=total,
        least=STEP_WIDTH * len(plan["steps"]),
        ticks=join_markup([_TICK.format(y=find_y(value), label=label) for value, label in ticks]),
        lines=join_markup([_LINE.format(kind="grid", y=find_y(value)) for value, _ in ticks]),
        peak=_LINE.format(kind="peak", y=find_y(plan["bytes"])),
        runs=join_markup([_draw_run(plan, run, top) for run in plan.get("streamed", ())]),
        boxes=join_markup([_draw_box(plan, item, find_y(item["offset"]), most) for item in _order(plan["buffers"])]),
        names=join_markup(
            [_draw_name(plan, number, live, fullest, top + PLOT_HEIGHT + 8) for number in range(len(plan["steps"]))]
        ),
    )
    used = {item.get("kind", "whole") for item in plan["buffers"]}
    legend = tuple(LegendEntry(label, color) for kind, (label, color) in KINDS.items() if kind in used)
    return Picture(title, words, legend, body)


def _order(buffers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Windows that lie inside of others come last, so that they are seen."""
    return sorted(buffers, key=lambda item: bool(item.get("inside")))


def _count_live_bytes(plan: Mapping[str, Any]) -> list[int]:
    """By step; of a plan that does not say so, from its buffers."""
    if plan.get("live_bytes"):
        return list(plan["live_bytes"])
    return [
        sum(item["bytes"] for item in plan["buffers"] if item["first"] <= step <= item["last"])
        for step in range(len(plan["steps"]))
    ]


def _draw_box(plan: Mapping[str, Any], item: Mapping[str, Any], bottom: float, most: int) -> Markup:
    count = len(plan["steps"])
    steps = item["last"] - item["first"] + 1
    height = PLOT_HEIGHT * item["bytes"] / most
    title = (
        f"{' = '.join([item['name'], *item.get('holds', ())])}: {item['bytes']:,} bytes at offset {item['offset']:,}, "
        f"{_name_kind(item)}, {_name_steps(plan['steps'], item)}"
    )
    return _BOX.format(
        x=100 * item["first"] / count,
        y=bottom - height,
        width=100 * steps / count,
        height=height,
        title=title,
        inner=" inner" if item.get("inside") else "",
        color=KINDS[item.get("kind", "whole")][1],
        text=_write_name(item, max(STEP_WIDTH, WIDE_PLOT / count) * steps, height),
    )


def _write_name(item: Mapping[str, Any], width: float, height: float) -> Markup:
    """Name and bytes where they fit, one under the other, in one line, upright, or not at all."""
    name, size = item["name"], f"{item['bytes']:,} B"
    length = LETTER_WIDTH * len(name)
    if height >= 2 * LINE_HEIGHT + 4 and width >= min(length, 8 * LETTER_WIDTH):
        return _ALONG.format(y=LINE_HEIGHT, words=name) + _ALONG.format(y=2 * LINE_HEIGHT, words=size)
    if height >= LINE_HEIGHT and width >= min(length, 8 * LETTER_WIDTH):
        return _ALONG.format(y=LINE_HEIGHT - 2, words=f"{name} {size}")
    if height >= 8 * LETTER_WIDTH and width >= LINE_HEIGHT:
        return _UPRIGHT.format(y=height - 5, words=f"{name} {size}")
    return Markup("")


def _draw_run(plan: Mapping[str, Any], run: Mapping[str, Any], top: int) -> Markup:
    count = len(plan["steps"])
    return _RUN.format(
        x=100 * run["first"] / count,
        width=100 * (run["last"] - run["first"] + 1) / count,
        top=0,
        height=top + PLOT_HEIGHT,
        text_y=LINE_HEIGHT,
        words=f"streamed in {run['ticks']} ticks",
    )


def _draw_name(plan: Mapping[str, Any], number: int, live: Sequence[int], fullest: int, y: int) -> Markup:
    name = plan["steps"][number]
    return _STEP.format(
        x=100 * (number + 0.5) / len(plan["steps"]),
        y=y,
        name=_shorten(name),
        full=" fullest" if number == fullest else "",
        title=f"step {number + 1}, {name}: {live[number]:,} bytes alive",
    )


def _shorten(name: str) -> str:
    """A name's beginning and end; the whole of it is its title."""
    half = (MOST_LETTERS - 1) // 2
    return name if len(name) <= MOST_LETTERS else f"{name[:half]}…{name[-half:]}"


def _name_kind(item: Mapping[str, Any]) -> str:
    label = KINDS[item.get("kind", "whole")][0]
    return f"{label}, in finished rows of {item['inside']}" if item.get("inside") else label


def _name_steps(steps: Sequence[str], item: Mapping[str, Any]) -> str:
    first, last = item["first"], item["last"]
    if first == last:
        return f"step {first + 1} ({steps[first]})"
    return f"steps {first + 1} to {last + 1} ({steps[first]} to {steps[last]})"


def _describe_run(plan: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    steps = plan["steps"]
    return f"{steps[run['first']]} to {steps[run['last']]} are streamed, a few rows in each of {run['ticks']} ticks"
