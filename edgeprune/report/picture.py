"""A picture: a figure as markup, ready for the page, that needs no script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from edgeprune.report.plotting import AFTER_COLOR, BEFORE_COLOR, GRID_COLOR, TEXT_COLOR, VARIANT_COLORS

# the figures' colours as variables of page.css, which has one set for light pages and one for dark ones
COLOR_VARIABLES: Mapping[str, str] = {
    BEFORE_COLOR: "var(--before)",
    AFTER_COLOR: "var(--after)",
    TEXT_COLOR: "var(--soft)",
    GRID_COLOR: "var(--line)",
    **{color: f"var(--form-{index})" for index, color in enumerate(VARIANT_COLORS)},
}
DEFAULT_COLOR = "var(--after)"


@dataclass(frozen=True)
class LegendEntry:
    """A colour (CSS) and what it stands for; mark: 'box', 'disc', 'line' or 'dash'."""

    label: str
    color: str
    mark: str = "box"


@dataclass(frozen=True)
class Picture:
    """title: above it. words: what there is to see. body: the markup, with all text escaped.

    scrolls: it is long, and gets a box of its own to scroll in.
    """

    title: str
    words: str
    legend: tuple[LegendEntry, ...]
    body: Markup
    scrolls: bool = False


def find_color(color: str | None) -> str:
    """A figure's colour as CSS that follows the page's theme."""
    return DEFAULT_COLOR if color is None else COLOR_VARIABLES.get(color, color)


def format_value(value: float) -> str:
    """A figure in a picture.

    >>> format_value(12345), format_value(0.123456), format_value(-3)
    ('12,345', '0.1235', '−3')
    """
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return text.replace("-", "−")


def join_markup(parts: list[Markup]) -> Markup:
    """Pieces of markup, one after the other."""
    return Markup("").join(parts)
