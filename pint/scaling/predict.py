"""Time, speedup and memory of a run on any number of ranks, before it is run."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pint.scaling.costs import Costs
from pint.scaling.schedule import PredictedRun, Schedule
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
    beyond : float, default 1.0
        How many times larger than the largest measured a piece of work is, at most.
    """

    ranks: int
    groups: int = 1
    steps: int
    seconds: float
    speedup: dict[str, float] = field(default_factory=dict)
    efficiency: float
    megabytes: float
    phases: dict[str, float]
    beyond: float = 1.0


def predict(run: PredictedRun, costs: Costs, ranks: int, share: float | None = None) -> Prediction:
    """Return the predicted cost of a run on a number of ranks.

    Parameters
    ----------
    run : PredictedRun
        What is run; its groups share the ranks.
    costs : Costs
        How long work and messages take; work on a part of a batch is taken to cost as much as that
        on equally many rows of the whole.
    ranks : int
        All ranks, a multiple of the groups.
    share : float, optional
        Part of the batch that the largest group works on; equal ones if left out.

    Raises
    ------
    ValueError
        If the groups do not divide the ranks.
    """
    if ranks % run.groups:
        raise ValueError(f"groups must divide the ranks, {ranks}, got {run.groups}")
    schedule = Schedule.of(run, ranks // run.groups)
    costs = replace(costs, share=share or 1 / run.groups)
    timing = simulate(schedule, costs)
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
        beyond=max(
            costs.beyond(one)
            for one in {one for program in schedule.programs for one in program.operations}
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where time-parallel is faster than a baseline, among the numbers of ranks that are listed.

    Attributes
    ----------
    ranks : int or None
        The fewest from where on it stays faster; None: it is not on the most.
    slower_at : int or None
        The most below those: the crossover lies between the two. None: there are none below.
    faster : list of (int, int)
        First and last of each run of them on which it is faster.
    """

    ranks: int | None
    slower_at: int | None
    faster: list[tuple[int, int]]


def crossover(predictions: Sequence[Prediction], baseline: str) -> Crossover:
    """Return where a baseline is beaten.

    Parameters
    ----------
    predictions : sequence of Prediction
        Of one number of groups.
    baseline : str
        Its name.
    """
    faster: list[tuple[int, int]] = []
    slower_at, was_faster = None, False
    for one in sorted(predictions, key=lambda one: one.ranks):
        is_faster = one.speedup[baseline] > 1
        if not is_faster:
            slower_at = one.ranks
        elif was_faster:
            faster[-1] = (faster[-1][0], one.ranks)
        else:
            faster.append((one.ranks, one.ranks))
        was_faster = is_faster
    return Crossover(
        ranks=faster[-1][0] if was_faster else None, slower_at=slower_at, faster=faster
    )


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
