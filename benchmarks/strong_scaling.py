"""One problem on 1, 2, 4, ... ranks: mpiexec -n P python -m benchmarks.strong_scaling."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from typing import Any, NamedTuple

from mpi4py import MPI

from benchmarks._experiments import (
    EXPERIMENTS,
    TURN,
    Experiment,
    Prepared,
    Training,
    gru_configurations,
    heats,
    sleep_until_all_are_here,
)
from benchmarks._measure import print_table, save

DEFAULT_CASES = ["heat129", "heat1025", "gru_har", "gru_long"]


class Entry(NamedTuple):
    """Something that is timed in turn with others.

    Attributes
    ----------
    ranks : int
        How many ranks work; the others sleep.
    is_stepping : bool
        Serial stepping, with which time-parallel ranks are compared.
    experiment : Experiment
        The problem, of its size.
    """

    ranks: int
    is_stepping: bool
    experiment: Experiment


class Ready(NamedTuple):
    """What a rank has of an entry that it works on."""

    prepared: Prepared
    predicted: float


def main() -> int:
    """Measure all numbers of ranks in turn; rank 0 prints a table and, as the last line, JSON."""
    args = _parse()
    world = MPI.COMM_WORLD
    if args.accuracy_check:
        return _check(world, args)
    rows = [row for name in args.cases for row in _rows(EXPERIMENTS[name](), world, args)]
    if world.Get_rank() == 0:
        title = "Weak scaling" if args.weak else "Strong scaling"
        print_table(f"{title}: medians of {args.rounds} rounds in turn, and predictions", rows)
        ratios = {
            f"{row['case']}_speedup_{row['ranks']}": row["speedup"]
            for row in rows
            if row["how"] == "parallel"
        }
        name = "weak_scaling" if args.weak else "strong_scaling"
        save(name, {"command": _command(world), "ratios": ratios, "rows": rows})
        print(json.dumps(ratios))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(EXPERIMENTS), default=DEFAULT_CASES)
    parser.add_argument("--driver", default="auto", help="driver of the propagator")
    parser.add_argument("--rounds", type=int, default=7, help="solves on each number of ranks")
    parser.add_argument("--weak", action="store_true", help="so many times more steps as ranks")
    parser.add_argument(
        "--accuracy-check",
        action="store_true",
        help="compare predictions of five ways to solve heat and five to train GRUs",
    )
    return parser.parse_args()


def _command(world: MPI.Comm) -> str:
    arguments = " ".join(sys.argv[1:])
    return f"mpiexec -n {world.Get_size()} python -m benchmarks.strong_scaling {arguments}".strip()


def _rows(
    experiment: Experiment, world: MPI.Comm, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure one case; the rows are complete on rank 0."""
    counts = [1 << k for k in range(world.Get_size().bit_length())]
    entries = []
    for count in counts:
        grown = experiment.grown(count if args.weak else 1)
        if args.weak or count == 1:
            entries.append(Entry(1, True, grown))
        entries.append(Entry(count, False, grown))
    ready, seconds, errors = _measured(entries, world, args)
    rows: list[dict[str, Any]] = []
    one_rank, stepping = seconds[1], seconds[0]
    for entry, mine, taken, error in zip(entries, ready, seconds, errors, strict=True):
        stepping = taken if entry.is_stepping else stepping
        predicted = mine.predicted if mine else math.nan
        row = {
            "case": experiment.name,
            "how": "stepping" if entry.is_stepping else "parallel",
            "steps": entry.experiment.num_steps,
            "ranks": entry.ranks,
            "seconds": taken,
            "predicted": predicted,
            "ratio": predicted / taken,
            "iterations": mine.prepared.iterations if mine else 0,
            "speedup": one_rank / taken,
            "over_stepping": stepping / taken,
            "gradient_error": error,
        }
        rows.append(row)
    return rows


def _measured(
    entries: list[Entry], world: MPI.Comm, args: argparse.Namespace
) -> tuple[list[Ready | None], list[float], list[float | None]]:
    """Calibrate, predict and measure; return medians of seconds, and errors of gradients."""
    ready = [_ready(entry, world, args) for entry in entries]
    errors = [_error(entry, mine, world) for entry, mine in zip(entries, ready, strict=True)]
    times: list[list[float]] = [[] for _ in entries]
    for _ in range(args.rounds):
        for mine, taken in zip(ready, times, strict=True):
            taken += [_seconds(mine, world) for _ in range(TURN)][1:]
    return ready, [statistics.median(taken) for taken in times], errors


def _ready(entry: Entry, world: MPI.Comm, args: argparse.Namespace) -> Ready | None:
    """Prepare and calibrate on the ranks that work; the others sleep, and get None."""
    works = world.Get_rank() < entry.ranks
    comm = world.Split(int(works))
    found = None
    if works:
        prepared = entry.experiment.prepare(comm, args.driver, serial=entry.is_stepping)
        found = Ready(prepared, prepared.predict(comm, args.rounds).seconds)
    sleep_until_all_are_here(world)
    return found


def _error(entry: Entry, mine: Ready | None, world: MPI.Comm) -> float | None:
    """Return the error of the gradient on rank 0; None on others, and where there is none."""
    error = None
    if mine is not None and mine.prepared.gradient is not None and not entry.is_stepping:
        gradient = mine.prepared.gradient()
        if world.Get_rank() == 0 and isinstance(entry.experiment, Training):
            error = entry.experiment.gradient_error(gradient)
    sleep_until_all_are_here(world)
    return error


def _seconds(mine: Ready | None, world: MPI.Comm) -> float:
    """Return the wall time until the last rank is done; ranks without work sleep."""
    world.Barrier()
    begin = time.perf_counter()
    if mine is not None:
        mine.prepared.action()
    sleep_until_all_are_here(world)
    return time.perf_counter() - begin


def _check(world: MPI.Comm, args: argparse.Namespace) -> int:
    """Print predicted over measured seconds of ten problems, and medians of their errors."""
    rows, errors = [], {}
    counts = [1 << k for k in range(world.Get_size().bit_length())]
    for kind, experiments in (("heat", heats()), ("gru", gru_configurations())):
        by_count: dict[int, list[float]] = {count: [] for count in counts}
        for experiment in experiments:
            entries = [Entry(count, False, experiment) for count in counts]
            ready, seconds, _ = _measured(entries, world, args)
            for count, mine, taken in zip(counts, ready, seconds, strict=True):
                predicted = mine.predicted if mine else math.nan
                by_count[count].append(abs(predicted / taken - 1))
                row = {"ranks": count, "seconds": taken, "predicted": predicted}
                rows.append({"case": experiment.name, **row, "ratio": predicted / taken})
        errors |= {f"{kind}_{n}": statistics.median(each) for n, each in by_count.items()}
    if world.Get_rank() == 0:
        print_table("Predicted beside measured", rows)
        save("prediction", {"command": _command(world), "median_errors": errors, "rows": rows})
        print(json.dumps(errors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
