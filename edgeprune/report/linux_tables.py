"""Tables of the Linux programs: what each takes, what it was proven by, and the instructions of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.report.tables import Table

Document = Mapping[str, Any]


def list_linux_programs(document: Document) -> Table | None:
    """A row for each static program; None where none was built. Sizes are the ELF file's, nothing is a time."""
    section = document.get("device", {}).get("linux") or {}
    if not section.get("programs"):
        return None
    head = ("program", "the core must have", "bytes", "code", "constants", "writable memory", "instructions", "outputs")
    rows = tuple(
        (
            program["path"],
            ", ".join(program["requires"]) or "nothing more than its architecture",
            f"{program['bytes']:,}",
            f"{program['text']:,}",
            f"{program['rodata']:,}",
            f"{program['ram_bytes']:,}",
            _count(section["counted"], program["architecture"]),
            _describe_proof(program),
        )
        for program in section["programs"]
    )
    caption = (
        f"Static Linux programs, C library included ({section['arena_bytes']:,} bytes of their memory are the arena)"
    )
    return Table(caption, head, rows, (0, 1, 7))


def list_linux_layers(document: Document) -> Table | None:
    """Instructions of each layer of the 64-bit program; None where they were not counted."""
    section = document.get("device", {}).get("linux") or {}
    counted = section.get("counted")
    if not counted:
        return None
    rows = tuple(
        (
            layer["name"],
            layer["kind"],
            f"{layer['macs']:,}",
            f"{layer['instructions']:,}",
            f"{layer['instructions'] / counted['instructions']:.1%}",
            f"{layer['instructions'] / layer['macs']:.2f}" if layer["macs"] else "",
        )
        for layer in section["layers"]
    )
    caption = (
        f"Instructions of one inference, {counted['architecture']}: {counted['instructions']:,} ({counted['emulator']})"
    )
    return Table(caption, ("layer", "kind", "MACs", "instructions", "share", "instructions per MAC"), rows, (0, 1))


def _count(counted: Mapping[str, Any] | None, architecture: str) -> str:
    return f"{counted['instructions']:,}" if counted and counted["architecture"] == architecture else ""


def _describe_proof(program: Mapping[str, Any]) -> str:
    proof = program["proof"]
    if proof is None:
        return f"not run: {program['reason']}"
    found = "equal to the reference" if proof["different"] == 0 else f"{proof['different']:,} values differ"
    return f"{found} on {proof['samples']:,} samples ({proof['emulator']} -cpu {proof['core']})"
