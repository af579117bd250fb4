"""`edgeprune cache ...`: what is kept of earlier runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli_options import JsonFlag, make_console

cache_app = typer.Typer(
    name="cache", no_args_is_help=True, help="Results kept of earlier runs: list them, remove them."
)

FolderOption = Annotated[
    Path | None, typer.Option("--cache", help="The folder. (default: $EDGEPRUNE_CACHE, or .edgeprune)")
]


@cache_app.callback()
def describe_cache() -> None:
    """What is kept of earlier runs: list it, remove it.

    Every result is found by the content it was made from, so none is ever out of date; removing one costs the time to
    make it again, nothing else.
    """


@cache_app.command("ls")
def list_command(folder: FolderOption = None, as_json: JsonFlag = False) -> None:
    """List what is kept, the longest unused first."""
    from edgeprune.cache import Cache, find_cache_folder

    where = find_cache_folder(folder)
    entries = Cache(where).list_entries()
    if as_json:
        rows = [{"name": e.name, "kind": e.kind, "bytes": e.bytes, "used": round(e.used)} for e in entries]
        typer.echo(json.dumps(rows, indent=2))
        return
    from edgeprune.console import print_tables
    from edgeprune.report.tables import Table

    now = time.time()
    table = Table(
        f"{where}: {len(entries)} kept, {sum(entry.bytes for entry in entries):,} bytes",
        ("what", "name", "bytes", "last used"),
        tuple((entry.kind, entry.name, f"{entry.bytes:,}", _format_age(now - entry.used)) for entry in entries),
        (0, 1, 3),
    )
    print_tables(make_console(), [table])


@cache_app.command("rm")
def remove_command(
    names: Annotated[list[str] | None, typer.Argument(help="Names of `cache ls`, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    unused_for: Annotated[
        str | None, typer.Option(help="Only what was not used for so long, such as 12h or 30d.")
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Remove results: by name, all that was not used for a while, or all."""
    from edgeprune.cache import Cache, choose_entries, find_cache_folder
    from edgeprune.errors import InputError
    from edgeprune.settings import parse_duration

    if not names and not everything and unused_for is None:
        raise InputError("cache rm: nothing was named; give names of `edgeprune cache ls`, --unused-for 30d, or --all")
    seconds = None if unused_for is None else parse_duration(unused_for, "--unused-for")
    cache = Cache(find_cache_folder(folder))
    chosen = choose_entries(cache.list_entries(), names=tuple(names or ()), unused_for=seconds)
    for entry in chosen:
        cache.remove(entry)
    typer.echo(f"removed: {len(chosen)}, {sum(entry.bytes for entry in chosen):,} bytes")


def _format_age(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"
