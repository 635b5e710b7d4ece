"""One problem on 1, 2, 4, ... ranks: mpiexec -n P python -m benchmarks.strong_scaling."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

from mpi4py import MPI
from rich.console import Console
from rich.table import Table

from benchmarks._cases import CASES, Case
from benchmarks._measure import save


def main() -> int:
    """Measure all numbers of ranks in turn; rank 0 prints a table and, as the last line, JSON."""
    args = _parse()
    world = MPI.COMM_WORLD
    rows = [row for name in args.cases for row in _rows(name, world, args)]
    if world.Get_rank() == 0:
        _print_table(rows)
        ratios = {f"{row['case']}_speedup_{row['ranks']}": row["speedup"] for row in rows}
        command = f"mpiexec -n {world.Get_size()} python -m benchmarks.strong_scaling"
        save("strong_scaling", {"command": command, "ratios": ratios, "rows": rows})
        print(json.dumps(ratios))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["heat129", "heat1025"])
    parser.add_argument("--driver", default="auto", help="driver of the propagator")
    parser.add_argument("--rounds", type=int, default=7, help="solves on each number of ranks")
    return parser.parse_args()


def _rows(name: str, world: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one case; the rows are complete on rank 0."""
    case = CASES[name]()
    counts = [1 << k for k in range(world.Get_size().bit_length())]
    groups = {count: world.Split(int(world.Get_rank() < count)) for count in counts}
    mine = {count: comm for count, comm in groups.items() if world.Get_rank() < count}
    solvers = {count: case.solver(args.driver, comm) for count, comm in mine.items()}
    results = {count: solver.solve(case.initial_value) for count, solver in solvers.items()}
    times: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(args.rounds):
        for count in counts:
            times[count].append(_seconds(case, solvers.get(count), world))
    medians = {count: statistics.median(values) for count, values in times.items()}
    return [
        {
            "case": name,
            "ranks": count,
            "seconds": seconds,
            "iterations": results[count].num_iterations if count in results else 0,
            "speedup": medians[1] / seconds,
        }
        for count, seconds in medians.items()
    ]


def _seconds(case: Case, solver: Any, world: Any) -> float:
    """Return the wall time until the last rank is done; ranks without a solver sleep."""
    world.Barrier()
    begin = time.perf_counter()
    if solver is not None:
        solver.solve(case.initial_value)
    done = world.Ibarrier()
    while not done.Test():  # a rank that waits inside MPI takes the core of one that works
        time.sleep(1e-4)
    return time.perf_counter() - begin


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Strong scaling, medians of solves in turn")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
