"""The figure of `pint predict`: time by phase, speedup, efficiency and memory over ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pint.scaling.predict import Prediction

NUM_PHASES = 9
"""Phases that have a line of their own."""


def draw(path: str | os.PathLike[str], by_groups: dict[int, list[Prediction]], title: str) -> None:
    """Draw a row of four panels for each split of the batch; needs matplotlib (extra ``report``).

    Parameters
    ----------
    path : path-like
        File to write, PNG or another format of matplotlib.
    by_groups : dict of int to list of Prediction
        Predictions over ranks, by the number of groups that share the batch.
    title : str
        Of the figure.
    """
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogFormatter

    figure, panels = plt.subplots(
        len(by_groups), 4, figsize=(20, 4.4 * len(by_groups)), layout="constrained", squeeze=False
    )
    for (groups, found), row in zip(by_groups.items(), panels, strict=True):
        _draw_phases(row[0], found)
        _draw_speedups(row[1], found)
        ranks = [one.ranks for one in found]
        row[2].plot(ranks, [one.efficiency for one in found], "o--", markerfacecolor="none")
        row[2].set(ylabel="efficiency (predicted)", ylim=(0, None))
        row[3].plot(ranks, [one.megabytes for one in found], "o--", markerfacecolor="none")
        row[3].set(ylabel="MB per rank (predicted)", yscale="log")
        for panel in row:
            panel.set(xscale="log", xlabel=f"ranks, {groups} x batch")
            panel.set_xticks(ranks, [f"{one:,}" for one in ranks], rotation=45)
            panel.minorticks_off()
            if panel.get_yscale() == "log":
                panel.yaxis.set_major_formatter(LogFormatter())
            panel.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_phases(panel: Any, found: Sequence[Prediction]) -> None:
    """Draw seconds of the longest phases, of all others together, and of everything."""
    ranks = [one.ranks for one in found]
    names = dict.fromkeys(name for one in found for name in one.phases)
    most = {name: max(one.phases.get(name, 0.0) / one.seconds for one in found) for name in names}
    shown = sorted(most, key=lambda name: -most[name])[:NUM_PHASES]
    panel.plot(ranks, [one.seconds for one in found], "k-", linewidth=2, label="all")
    for name in shown:
        style = "s:" if name.startswith("adjoint") else "o--"  # both may take as long
        panel.plot(ranks, [one.phases.get(name, 0.0) or None for one in found], style,
                   markersize=3, label=name)  # fmt: skip
    others = [sum(one.phases.values()) - sum(one.phases.get(n, 0.0) for n in shown)
              for one in found]  # fmt: skip
    panel.plot(ranks, [value if value > 0 else None for value in others], ":", color="black",
               label="all else")  # fmt: skip
    panel.set(yscale="log", ylabel="seconds by phase (predicted)")
    panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _draw_speedups(panel: Any, found: Sequence[Prediction]) -> None:
    for name in found[0].speedup:
        values = [one.speedup[name] for one in found]
        panel.plot([one.ranks for one in found], values, "o--", markerfacecolor="none",
                   label=f"over {name}")  # fmt: skip
    panel.axhline(1.0, color="grey", linewidth=0.8)
    panel.set(yscale="log", ylabel="speedup (predicted)")
    if found[0].speedup:
        panel.legend(fontsize=8, frameon=False)
