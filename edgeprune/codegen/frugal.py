"""Which layers are computed by portable kernels although faster ones exist: flash for time that nobody notices.

A fast kernel brings code of its own. Where a layer is a small part of the program, and no other layer needs that code,
the bytes are better spent elsewhere: a dense layer of 32 x 5 weights at the end of a network is not worth a kilobyte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

from edgeprune.codegen.kernel import Lowered

# A KB of flash may cost this part of the program's cycles.
_CYCLES_PER_KB = 0.003
# Code bytes of a character of C and of a line of assembly: means over runtime/ and generated functions for Cortex-M4.
# Only differences of several hundred bytes decide.
_BYTES_PER_CHARACTER, _BYTES_PER_LINE = 0.2, 3.3


def find_frugal_steps(fast: Mapping[str, Lowered], portable: Mapping[str, Lowered]) -> frozenset[str]:
    """The steps whose portable kernel saves more flash than its cycles are worth; by step name.

    fast: the kernels with the fewest cycles. portable: the portable ones, where there are any.
    """
    chosen = dict(fast)
    budget = sum(lowered.cycles for lowered in fast.values()) * _CYCLES_PER_KB / 1024  # cycles for a byte
    frugal = set()
    for name in sorted(portable, key=lambda name: portable[name].cycles - fast[name].cycles):
        if portable[name].kernel == fast[name].kernel:
            continue
        saved = count_code_bytes(chosen.values()) - count_code_bytes({**chosen, name: portable[name]}.values())
        saved += fast[name].constant_bytes - portable[name].constant_bytes
        if portable[name].cycles - fast[name].cycles < budget * saved:
            chosen[name] = portable[name]
            frugal.add(name)
    return frozenset(frugal)


def count_code_bytes(lowered: Iterable[Lowered]) -> int:
    """The code that a set of lowered ops needs, each source and generated function once: an estimate."""
    sources = {source for item in lowered for source in item.sources}
    functions = {function.name: function.text for item in lowered for function in item.assembly}
    lines = sum(text.count("\n\t") for text in functions.values())
    return round(sum(map(_count_source_bytes, sources)) + lines * _BYTES_PER_LINE)


@cache
def _count_source_bytes(source: str) -> float:
    text = resources.files("edgeprune.codegen").joinpath("runtime", source).read_text("utf-8")
    return len(text) * _BYTES_PER_CHARACTER
