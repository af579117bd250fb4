#!/usr/bin/env python3
"""Random layers on an emulated Cortex-M against the reference: every output byte must be equal.

    python tools/fuzz_layers.py [--count N] [--seed S] [--core cortex-m4] [--toolchain zig|gcc] [--any-kernel]
                                [--series|--images] [--form whole|streamed|both]

Layers stand side by side in programs of 25 (tests/codegen/random_layers.py), half of them series, half images; each
program is built and run over whole maps and, where its layers can be, a few rows at a time. Run from a checkout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the generators are with the tests

from edgeprune.errors import EdgepruneError
from edgeprune.target import load_target
from tests.codegen.random_layers import LayerSeed, isolate, run_layers

BATCH = 25


def main() -> None:
    """Fuzz and print figures; exit 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="layers")
    parser.add_argument("--seed", type=int, default=0, help="of the first layer")
    parser.add_argument("--core", default="cortex-m4")
    parser.add_argument("--toolchain", choices=("zig", "gcc"), default="zig")
    parser.add_argument("--form", choices=("whole", "streamed", "both"), default="both")
    parser.add_argument("--any-kernel", action="store_true", help="any kernel that fits, not only the cheapest")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--series", action="store_true", help="series only")
    which.add_argument("--images", action="store_true", help="images only")
    arguments = parser.parse_args()
    failures = fuzz(arguments)
    sys.exit(1 if failures else 0)


def fuzz(arguments: argparse.Namespace) -> int:
    """Run all programs; answers how many layers failed."""
    target = load_target(arguments.core)
    forms = {"whole": (False,), "streamed": (True,), "both": (False, True)}[arguments.form]
    layers = streamed = compared = differing = failures = 0
    kernels: Counter[str] = Counter()
    started = time.monotonic()
    for number, first in enumerate(range(arguments.seed, arguments.seed + arguments.count, BATCH)):
        last = min(first + BATCH, arguments.seed + arguments.count)
        is_series = arguments.series or (number % 2 == 0 and not arguments.images)
        seeds = [LayerSeed(seed, is_series) for seed in range(first, last)]
        layers += len(seeds)
        for streams in forms:
            options = {"streams": streams, "any_kernel": arguments.any_kernel, "toolchain": arguments.toolchain}
            try:
                results = run_layers(seeds, target, **options)
            except (EdgepruneError, AssertionError) as error:
                print(f"FAILED program of layers {first} to {last - 1}, {options}: {error}", flush=True)
                alone = isolate(seeds, target, **options)
                for seed, problem in alone:
                    print(f"    {seed}: {problem}", flush=True)
                failures += max(1, len(alone))
                continue
            for result in results:
                kernels[result.kernel] += 1
                streamed += result.is_streamed
                compared += result.compared
                differing += result.differing
                if result.differing:
                    failures += 1
                    print(f"DIFFERS {result}, {options}", flush=True)
        print(
            f"{layers} layers ({streamed} streamed too), {compared:,} outputs compared, {differing} differing, "
            f"{failures} failures, {time.monotonic() - started:.0f} s",
            flush=True,
        )
    for kernel, count in kernels.most_common():
        print(f"{count:7d} x {kernel}")
    return failures


if __name__ == "__main__":
    main()
