"""The picture of a run on an ARM Linux device: median times of each form, by number of threads."""

from __future__ import annotations

from edgeprune.report.plotting import VARIANT_COLORS, Document, Figure, make_figure


def draw_device_times(document: Document) -> Figure | None:
    """A row for each form, a bar for each number of threads; None without a device or where nothing ran."""
    runs = [run for run in document.get("device", {}).get("runs", ()) if run["n"] is not None]
    if not runs:
        return None
    names = list(dict.fromkeys(run["name"] for run in runs))
    counts = sorted({run["threads"] for run in runs})
    most = max(run["p50_us"] for run in runs)
    unit, factor = ("milliseconds", 1e-3) if most >= 1000 else ("microseconds", 1.0)
    traces = []
    for place, count in enumerate(counts):
        own = {run["name"]: factor * run["p50_us"] for run in runs if run["threads"] == count}
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{count} thread" + ("s" if count > 1 else ""),
                "x": [own.get(name) for name in names],
                "y": names,
                "marker": {"color": VARIANT_COLORS[place % len(VARIANT_COLORS)]},
            }
        )
    fastest = min(runs, key=lambda run: run["p50_us"])
    threads = f"{fastest['threads']} thread" + ("s" if fastest["threads"] > 1 else "")
    words = (
        f"Median time of one inference, {unit}; the shortest is {fastest['name']} with {threads}: "
        f"{factor * fastest['p50_us']:,.4g}."
    )
    height = 120 + 22 * len(names) * len(counts)
    return make_figure(traces, unit, "", height=height, title="Time on the device", words=words)
