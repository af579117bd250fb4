"""README.md beside the Linux programs: how to run them by hand, and what their files hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from edgeprune import __version__

if TYPE_CHECKING:
    from edgeprune.stages.linux import LinuxResult

TEMPLATE = "linux_readme.md.jinja"


def render_linux_readme(result: LinuxResult) -> str:
    """The text. result.firmware must be there."""
    assert result.firmware is not None  # who asks has files to describe
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    firmware = result.firmware
    graph = firmware.content.graph
    source, output = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    return environment.get_template(TEMPLATE).render(
        version=__version__,
        model=graph.name,
        target=firmware.content.target,
        firmware=firmware,
        source=source,
        output=output,
        sources=sorted({*firmware.sources, "bench.c"}),
        programs=result.programs,
        count=result.count,
        requires=sorted({word for program in result.programs for word in program.executable.requires}),
    )
