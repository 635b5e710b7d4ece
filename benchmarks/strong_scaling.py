"""One problem on 1, 2, 4, ..., P ranks: mpiexec -n P python -m benchmarks.strong_scaling."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
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
from benchmarks._measure import RESULTS, print_table, rank_counts, write
from pint.cli.arguments import at_least

DEFAULT_CASES = ["heat129", "heat1025", "gru_har", "gru_long"]
FULL_ROUNDS = 5
"""Least number of rounds of a run whose results are kept without a request."""


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
    world = MPI.COMM_WORLD
    args = _agreed(world)
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
        _keep({"ratios": ratios, "rows": rows}, world, args)
        print(json.dumps(ratios))
    return 0


def _agreed(world: MPI.Comm) -> argparse.Namespace:
    """Return the arguments of rank 0; all ranks exit if they are wrong, or for help; collective."""
    args, status = None, None
    if world.Get_rank() == 0:
        try:
            args = _parse(world.Get_size())
        except SystemExit as exit_:
            status = exit_.code
    args, status = world.bcast((args, status))
    if args is None:
        sys.exit(status)
    return args


def _parse(size: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--cases", nargs="+", choices=list(EXPERIMENTS), metavar="CASE",
        help=f"of {', '.join(EXPERIMENTS)}; {' '.join(DEFAULT_CASES)} if left out")  # fmt: skip
    add("--driver", choices=("auto", "loop", "stack", "compiled"), default="auto",
        help="of the propagator")  # fmt: skip
    add("--rounds", type=at_least(1), default=7,
        help="turns of each number of ranks; %(default)s if left out")  # fmt: skip
    add("--weak", action="store_true", help="multiply the number of steps by the number of ranks")
    add("--accuracy-check", action="store_true",
        help="compare predictions of five ways to solve heat and five to train GRUs")  # fmt: skip
    add("--output", type=Path,
        help="file of results; if left out, benchmarks/results/NAME.json is written by full runs "
        f"only: at least {FULL_ROUNDS} rounds and 2 ranks, no --cases, no --driver")  # fmt: skip
    args = parser.parse_args()
    if args.accuracy_check and (args.cases or args.weak):
        parser.error("--accuracy-check has cases of its own: leave out --cases and --weak")
    if args.output is None and _is_full(args, size):
        args.output = RESULTS / f"{_name(args)}.json"
    if args.output is not None and not args.output.parent.is_dir():
        parser.error(f"--output: there is no folder {args.output.parent}")
    args.cases = list(dict.fromkeys(args.cases or DEFAULT_CASES))
    return args


def _is_full(args: argparse.Namespace, size: int) -> bool:
    """Return whether results stand for the benchmark, and not for a part of it."""
    return not args.cases and args.driver == "auto" and args.rounds >= FULL_ROUNDS and size > 1


def _name(args: argparse.Namespace) -> str:
    """Return the name of what is measured."""
    if args.accuracy_check:
        return "prediction"
    return "weak_scaling" if args.weak else "strong_scaling"


def _keep(result: dict[str, Any], world: MPI.Comm, args: argparse.Namespace) -> None:
    """Write the results, or say that they are not kept."""
    if args.output is None:
        print("not a full run: results are not kept; --output FILE keeps them")
    else:
        write(args.output, {"command": _command(world), **result})
        print(f"results are in {args.output}")


def _command(world: MPI.Comm) -> str:
    arguments = " ".join(sys.argv[1:])
    return f"mpiexec -n {world.Get_size()} python -m benchmarks.strong_scaling {arguments}".strip()


def _rows(
    experiment: Experiment, world: MPI.Comm, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure one case; the rows are complete on rank 0."""
    _tell(world, experiment.name)
    counts = rank_counts(world.Get_size())
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
    ready = []
    for entry in entries:
        how = "stepping" if entry.is_stepping else "in parallel"
        _tell(world, f"  calibrating, {how} on {entry.ranks} rank(s)")
        ready.append(_ready(entry, world, args))
    errors = [_error(entry, mine, world) for entry, mine in zip(entries, ready, strict=True)]
    times: list[list[float]] = [[] for _ in entries]
    for turn in range(args.rounds):
        _tell(world, f"  round {turn + 1} of {args.rounds}")
        for mine, taken in zip(ready, times, strict=True):
            taken += [_seconds(mine, world) for _ in range(TURN)][1:]
    return ready, [statistics.median(taken) for taken in times], errors


def _tell(world: MPI.Comm, text: str) -> None:
    """Say on rank 0 how far it is."""
    if world.Get_rank() == 0:
        print(text, flush=True)


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
    counts = rank_counts(world.Get_size())
    for kind, experiments in (("heat", heats()), ("gru", gru_configurations())):
        by_count: dict[int, list[float]] = {count: [] for count in counts}
        for experiment in experiments:
            _tell(world, experiment.name)
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
        _keep({"median_errors": errors, "rows": rows}, world, args)
        print(json.dumps(errors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
