"""How benchmarks.paper draws its tables: measured points are full, predicted ones hollow."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PARTS = ("forward", "backward", "seconds")


def draw_accuracy(path: Path, rows: list[Row]) -> None:
    """Draw the test accuracy of each method: every seed, their mean, and from least to most."""
    figure, axes = _new_figure(1, (6.5, 4.5))
    names = list(dict.fromkeys(row["method"] for row in rows))
    for place, name in enumerate(names):
        own = [100 * row["exact_test_accuracy"] for row in rows if row["method"] == name]
        mean = statistics.mean(own)
        spread = [[mean - min(own)], [max(own) - mean]]
        axes[0].errorbar(place, mean, spread, fmt="s", capsize=8, color=f"C{place}", markersize=9)
        axes[0].plot([place + 0.12] * len(own), own, ".", color=f"C{place}")
        axes[0].annotate(f"{mean:.1f}", (place - 0.1, mean), ha="right", va="center")
    ranks = {row["method"]: row["ranks"] for row in rows}
    labels = [f"{name}\n{ranks[name]} rank(s)" for name in names]
    axes[0].set(
        ylabel="test accuracy in %, exact inference", xlim=(-0.6, len(names) - 0.4),
        title=f"{rows[0]['data']}: {len(rows) // len(names)} seed(s), {rows[0]['epochs']} epoch(s)",
    )  # fmt: skip
    axes[0].set_xticks(range(len(names)), labels)
    axes[0].grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_ranks(path: Path, rows: list[Row]) -> None:
    """Draw forward, backward and whole time of a step over the cores."""
    shape = rows[0]
    title = (
        f"a training step: {shape['steps']} steps x {shape['features']} features, batch "
        f"{shape['batch']}, hidden {shape['hidden']}"
    )
    _draw(path, rows, title, lambda row: row["ranks"] * row["threads"], "cores (ranks x threads)")


def draw_length(path: Path, rows: list[Row]) -> None:
    """Draw forward, backward and whole time of a step over the length of the sequences."""
    shape = rows[0]
    title = (
        f"a training step: batch {shape['batch']}, {shape['features']} features, hidden "
        f"{shape['hidden']}"
    )
    _draw(path, rows, title, lambda row: row["steps"], "length of the sequences")


def _draw(path: Path, rows: list[Row], title: str, at: Any, label: str) -> None:
    """Draw one panel for each part of a step; a line for each method, measured or predicted."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _new_figure(len(PARTS), (14, 5.5))
    figure.suptitle(f"{title}\nmeasured on {shape_of_machine(rows)}")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = _lines(rows)
    for panel, part in zip(axes, PARTS, strict=True):
        for text, own in lines.items():
            own.sort(key=at)
            points = [at(row) for row in own], [1e3 * row[part] for row in own]
            panel.plot(
                *points, color=f"C{methods.index(own[0]['method'])}", label=text, **_style(own)
            )
        title_of_part = {"seconds": "forward + backward"}.get(part, part)
        panel.set(yscale="log", xlabel=label, title=title_of_part)
        panel.set_xscale("log", base=2)
        places = sorted({at(row) for row in rows})
        panel.set_xticks(places, [str(place) for place in places], rotation=45)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def _lines(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each line by its text in the legend."""
    are_ranks_told = len({row["steps"] for row in rows}) > 1  # else they are along the axis
    lines: dict[str, list[Row]] = {}
    for row in rows:
        who = f", {row['ranks']} rank(s) x {row['threads']} thread(s)" if are_ranks_told else ""
        kind = "PREDICTED: " if row["kind"] == "predicted" else ""
        lines.setdefault(f"{kind}{row['method']}{who}", []).append(row)
    return lines


def _style(own: list[Row]) -> dict[str, Any]:
    """Predicted points are hollow, on dashed lines; diamonds are of several threads."""
    marker = "D" if all(row["threads"] > 1 for row in own) else "o"
    if own[0]["kind"] == "measured":
        return {"marker": marker, "linestyle": "-"}
    return {"marker": marker, "linestyle": "--", "markerfacecolor": "none"}


def shape_of_machine(rows: list[Row]) -> str:
    """Return the machine of the measured rows."""
    return next(str(row["machine"]) for row in rows if row["kind"] == "measured")


def _new_figure(panels: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure without a display, and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]
