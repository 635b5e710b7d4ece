"""What recording a timeline costs: [mpiexec -n P] python -m benchmarks.timeline."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._measure import print_table, save
from pint import MGRIT, MGRITOptions
from pint.models import dahlquist, heat
from pint.parallel.comm import Communicator, world
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.stopwatch import Stopwatch
from pint.timeline import Timeline


def main() -> int:
    """Measure the cases; rank 0 prints a table and, as the last line, JSON, and saves all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    cases = f"all if left out; quote them: {', '.join(map(repr, CASES))}"
    parser.add_argument(
        "--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE", help=cases
    )
    seconds = "how long to measure each case; %(default)s if left out"
    parser.add_argument("--seconds", type=float, default=5.0, help=seconds)
    args = parser.parse_args()
    comm, cost = world(), seconds_per_event()
    rows = [measured(name, CASES[name](comm), comm, args.seconds, cost) for name in args.cases]
    if comm.rank == 0:
        print_table(f"Recording, {comm.size} rank(s), {1e9 * cost:.0f} ns for each event", rows)
        ratios = {f"{row['case']}_{comm.size}": row["ratio"] for row in rows}
        if set(args.cases) == set(CASES):
            command = f"mpiexec -n {comm.size} python -m benchmarks.timeline"
            save(f"timeline_{comm.size}", {"command": command, "event": cost, "rows": rows})
        print(json.dumps(ratios))
    return 0


def seconds_per_event(count: int = 20_000) -> float:
    """Return what a phase takes more where it is recorded; the least of a few times."""
    watch = Stopwatch()

    def phases() -> float:
        begin = time.perf_counter()
        with watch.phase("outermost"):
            for _ in range(count):
                watch.begin("relaxation", 0)
                watch.end()
        return time.perf_counter() - begin

    plain, recorded = [], []
    for _ in range(9):
        plain.append(phases())
        with Timeline():
            recorded.append(phases())
    return (min(recorded) - min(plain)) / count


def measured(
    name: str, solve: Callable[[], object], comm: Communicator, seconds: float, cost: float
) -> dict[str, Any]:
    """Solve plainly and recorded in turn; collective."""
    solve()
    with Timeline() as timeline:
        solve()
    rounds = 3 + int(seconds / (2 * _timed(solve, comm)))
    rounds = int(comm.bcast(np.array([rounds]), 0)[0])
    plain, recorded = [], []
    for number in range(rounds):
        for records in (number % 2 == 0, number % 2 == 1):  # A B B A
            if records:
                with Timeline():
                    recorded.append(_timed(solve, comm))
            else:
                plain.append(_timed(solve, comm))
    events = sum(isinstance(mark, tuple) for mark in timeline.marks)
    median = statistics.median(plain)
    return {
        "case": name,
        "rounds": rounds,
        "seconds": median,
        "recorded_seconds": statistics.median(recorded),
        "ratio": statistics.median(b / a for a, b in zip(plain, recorded, strict=True)),
        "events": events,
        "events_by_seconds": events * cost / median,
    }


def _timed(solve: Callable[[], object], comm: Communicator) -> float:
    """Return the wall time until the last rank is done."""
    comm.barrier()
    begin = time.perf_counter()
    solve()
    comm.barrier()
    return time.perf_counter() - begin


def _training(batch: int) -> Callable[[Communicator], Callable[[], object]]:
    """Return a function that computes loss and gradient of sequences like UCI-HAR's."""

    def make(comm: Communicator) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((batch, 128, 9)).astype(np.float32)
        y = rng.integers(0, 6, batch)
        network = Network(RecurrenceOptions(num_features=9, hidden=100), 6)
        options = MGRITOptions(levels=3, coarsening=4, max_iterations=2)
        solver = NetworkSolver(network, 128, options, options, comm)
        return lambda: solver.loss_and_gradient(x, y)

    return make


def _heat(comm: Communicator) -> Callable[[], object]:
    problem = heat.problem(1025)
    options = MGRITOptions(levels=3, coarsening=16, max_iterations=4, driver="compiled")
    solver = MGRIT(problem.propagator, problem.grid(16384), options, comm)
    return lambda: solver.solve(problem.initial_value)


def _scalar(comm: Communicator) -> Callable[[], object]:
    problem = dahlquist.problem()
    options = MGRITOptions(levels=4, coarsening=8, max_iterations=6, driver="compiled")
    solver = MGRIT(problem.propagator, problem.grid(16384), options, comm)
    return lambda: solver.solve(problem.initial_value)


CASES: dict[str, Callable[[Communicator], Callable[[], object]]] = {
    "training": _training(100),
    "training, batch 1": _training(1),
    "heat": _heat,
    "scalar": _scalar,
}


if __name__ == "__main__":
    sys.exit(main())
