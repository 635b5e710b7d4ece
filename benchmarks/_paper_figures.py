"""How benchmarks.paper draws its tables: measured points are full, predicted ones hollow."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Workers = Callable[[Row], str]
"""Describes the ranks and threads of a measurement for the legend."""

PARTS = {
    "forward_seconds": "forward",
    "backward_seconds": "backward",
    "seconds": "forward + backward",
}
"""Of a training step: columns, and titles of panels."""


def draw_accuracy(path: Path, rows: list[Row]) -> None:
    """Draw the test accuracy of each method: every seed, their mean, and from least to most."""
    figure, (axes,) = _new_figure(1, (7, 5))
    names = list(dict.fromkeys(row["method"] for row in rows))
    for place, name in enumerate(names):
        own = [100 * row["exact_test_accuracy"] for row in rows if row["method"] == name]
        mean = statistics.mean(own)
        spread = [[mean - min(own)], [max(own) - mean]]
        axes.errorbar(place, mean, spread, fmt="s", capsize=8, color=f"C{place}", markersize=9)
        axes.plot([place + 0.12] * len(own), own, ".", color=f"C{place}")
        axes.annotate(f"{mean:.1f} %", (place - 0.1, mean), ha="right", va="center")
    axes.errorbar(
        [], [], [], fmt="s", capsize=8, color="k", label="mean, and from the least to the greatest"
    )
    axes.plot([], [], ".", color="k", label="each seed")
    ranks = {row["method"]: _count(row["ranks"], "rank") for row in rows}
    shape = rows[0]
    axes.set(
        ylabel="test accuracy in %, by exact inference", xlim=(-0.6, len(names) - 0.4),
        title=f"Test accuracy on {shape['data']} after {_count(shape['epochs'], 'epoch')}, "
        f"{_count(len(rows) // len(names), 'seed')}\nmeasured on {_machine(rows)}, "
        f"ranks of {_count(shape['threads'], 'thread')}",
    )  # fmt: skip
    middle = statistics.mean(axes.get_ylim())
    axes.set_ylim(min(axes.get_ylim()[0], middle - 2), max(axes.get_ylim()[1], middle + 2))
    axes.set_xticks(range(len(names)), [f"{name}\n{ranks[name]}" for name in names])
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def draw_ranks(path: Path, rows: list[Row]) -> None:
    """Draw forward, backward and whole time of a step over the cores."""
    shape = rows[0]
    title = (
        f"One training step: sequences of {shape['steps']} steps x {shape['features']} features, "
        f"batch {shape['batch']}, hidden {shape['hidden']}"
    )

    def cores(row: Row) -> int:
        return int(row["ranks"] * row["threads"])

    def workers(row: Row) -> str:
        is_parallel = row["method"].startswith("implicit, parallel")
        return "ranks of 1 thread" if is_parallel else "threads of 1 rank"

    _draw(path, rows, title, cores, "cores: ranks x threads", workers)


def draw_length(path: Path, rows: list[Row]) -> None:
    """Draw forward, backward and whole time of a step over the length of the sequences."""
    shape = rows[0]
    title = (
        f"One training step: sequences of {shape['features']} features, batch {shape['batch']}, "
        f"hidden {shape['hidden']}"
    )

    def workers(row: Row) -> str:
        return f"{_count(row['ranks'], 'rank')} x {_count(row['threads'], 'thread')}"

    _draw(path, rows, title, itemgetter("steps"), "length of the sequences in steps", workers)


def _draw(
    path: Path, rows: list[Row], title: str, at: Callable[[Row], int], label: str, workers: Workers
) -> None:
    """Draw one panel for each part of a step; a line for each method, measured or predicted."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _new_figure(len(PARTS), (14, 6))
    figure.suptitle(
        f"{title}\nmeasured on {_machine(rows)}; predicted by the cost model, calibrated there"
    )
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = _lines(rows, workers)
    for panel, (part, name) in zip(axes, PARTS.items(), strict=True):
        for text, own in lines.items():
            own.sort(key=at)
            points = [at(row) for row in own], [1e3 * row[part] for row in own]
            panel.plot(
                *points, color=f"C{methods.index(own[0]['method'])}", label=text, **_style(own)
            )
        panel.set(yscale="log", xlabel=label, title=name)
        panel.set_xscale("log", base=2)
        places = sorted({at(row) for row in rows})
        panel.set_xticks(places, [str(place) for place in places], rotation=45)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("time in milliseconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)


def _lines(rows: list[Row], workers: Workers) -> dict[str, list[Row]]:
    """Return the rows of each line by its text in the legend: one kind, method and workers."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(f"{row['kind']}: {row['method']}, {workers(row)}", []).append(row)
    return lines


def _style(own: list[Row]) -> dict[str, Any]:
    """Predicted points are hollow, on dashed lines; diamonds are of several threads."""
    marker = "D" if all(row["threads"] > 1 for row in own) else "o"
    if own[0]["kind"] == "measured":
        return {"marker": marker, "linestyle": "-"}
    return {"marker": marker, "linestyle": "--", "markerfacecolor": "none"}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _machine(rows: list[Row]) -> str:
    """Return the machine of the measured rows."""
    return next(str(row["machine"]) for row in rows if row["kind"] == "measured")


def _new_figure(panels: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a figure without a display, and its panels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False, sharey=True)[0]
