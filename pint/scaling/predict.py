"""Time, speedup and memory of a run on any number of ranks, before it is run."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pint.scaling.costs import Costs
from pint.scaling.schedule import Run, Schedule
from pint.scaling.simulate import simulate


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run is expected to take.

    Attributes
    ----------
    ranks : int
        All ranks.
    groups : int
        Groups of them that share the batch; the ranks of each share time.
    steps : int
        Steps of the finest level.
    seconds : float
        Of a solve, or of a step of training.
    speedup : dict of str to float
        Over each of the baselines, on one rank.
    efficiency : float
        Speedup over the first baseline, divided by the ranks.
    megabytes : float
        Of the rank that keeps most.
    phases : dict of str to float
        Seconds of the rank that is done last, by solve and phase.
    """

    ranks: int
    groups: int = 1
    steps: int
    seconds: float
    speedup: dict[str, float] = field(default_factory=dict)
    efficiency: float
    megabytes: float
    phases: dict[str, float]


def predict(run: Run, costs: Costs, ranks: int) -> Prediction:
    """Return what a run takes on so many ranks.

    Parameters
    ----------
    run : Run
        What is run; its groups share the ranks.
    costs : Costs
        How long work and messages take; work on a part of a batch is taken to cost as much as that
        on as many rows of the whole.
    ranks : int
        All ranks, a multiple of the groups.

    Raises
    ------
    ValueError
        If the groups do not divide the ranks.
    """
    if ranks % run.groups:
        raise ValueError(f"groups must divide the ranks, {ranks}, got {run.groups}")
    schedule = Schedule.of(run, ranks // run.groups)
    timing = simulate(schedule, replace(costs, share=1 / run.groups))
    last = int(timing.clocks.argmax())
    speedup = {
        name: per_step * run.num_steps / costs.machine.speed / timing.seconds
        for name, per_step in costs.baselines.items()
    }
    first = next(iter(speedup.values()), float("nan"))
    return Prediction(
        ranks=ranks,
        groups=run.groups,
        steps=run.num_steps,
        seconds=timing.seconds,
        speedup=speedup,
        efficiency=first / ranks,
        megabytes=max(program.num_bytes for program in schedule.programs) / 1e6,
        phases={name: float(spent[last]) for name, spent in timing.phases.items()},
    )


def crossover(predictions: Sequence[Prediction], baseline: str) -> tuple[int, int] | None:
    """Return the least and the greatest number of ranks that beat a baseline, or None."""
    faster = [one.ranks for one in predictions if one.speedup[baseline] > 1]
    return (min(faster), max(faster)) if faster else None


def rows(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return flat rows for tables: every speedup and every phase is a column."""
    found = []
    for one in predictions:
        row = asdict(one)
        speedup, phases = row.pop("speedup"), row.pop("phases")
        row.update({f"speedup over {name}": value for name, value in speedup.items()})
        row.update({f"seconds of {name}": value for name, value in phases.items()})
        found.append({"predicted": True, **row})
    return found


def write_csv(path: str | os.PathLike[str], predictions: Sequence[Prediction]) -> None:
    """Write the rows; a phase that some of them lack is empty there."""
    table = rows(predictions)
    names = list(dict.fromkeys(name for row in table for name in row))
    with Path(path).open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)


def draw(path: str | os.PathLike[str], predictions: Sequence[Prediction], title: str) -> None:
    """Draw time by phase, and speedups, over ranks; matplotlib is needed (extra ``report``)."""
    from matplotlib import pyplot as plt

    figure, (times, speedups) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    x = np.arange(len(predictions))
    bottom = np.zeros(len(predictions))
    phases = list(dict.fromkeys(name for one in predictions for name in one.phases))
    totals = {name: sum(one.phases.get(name, 0.0) for one in predictions) for name in phases}
    shown = sorted(phases, key=lambda name: -totals[name])
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for color, name in zip(colors, shown[:11], strict=False):
        heights = np.array([one.phases.get(name, 0.0) / one.seconds for one in predictions])
        times.bar(x, heights, bottom=bottom, color=color, label=name, width=0.85)
        bottom += heights
    times.bar(x, 1 - bottom, bottom=bottom, color="lightgrey", label="all else", width=0.85)
    labels = [f"{one.ranks:,}" for one in predictions]
    times.set_xticks(x, labels, rotation=60, ha="right", fontsize=8)
    times.set(xlabel="ranks", ylabel="part of the time (predicted)", ylim=(0, 1))
    times.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    ranks = [one.ranks for one in predictions]
    for name in predictions[0].speedup:
        values = [one.speedup[name] for one in predictions]
        speedups.plot(ranks, values, "o--", markerfacecolor="none", label=f"over {name}")
    speedups.axhline(1.0, color="grey", linewidth=0.8)
    speedups.set(xscale="log", yscale="log", xlabel="ranks", ylabel="speedup (predicted)")
    speedups.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)
