"""Times of training steps for the paper's figures: started by benchmarks.paper under mpiexec.

At least two processes are needed, which measure messages; --ranks of them work."""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mpi4py import MPI

from benchmarks._experiments import (
    NUM_CLASSES,
    TURN,
    Training,
    sleep_until_all_are_here,
    training,
)
from benchmarks._measure import machine, rank_counts
from pint.options import LocalGrids
from pint.parallel.comm import as_communicator
from pint.rnn.network import Network
from pint.rnn.solver import NetworkSolver
from pint.scaling import Costs, PredictedRun, Schedule, Timing, simulate
from pint.scaling.calibrate import lengths
from pint.scaling.measurement import mean_costs
from pint.scaling.message_costs import measure_network
from pint.train.accuracy import exact_solver
from pint.train.optimizers import Adam

HAS_TORCH = importlib.util.find_spec("torch") is not None
CLASSIC = "classic, torch.nn.GRU" if HAS_TORCH else "classic, pint's own (torch is not installed)"
SERIAL, PARALLEL = "implicit, serial stepping", "implicit, parallel"
PREDICTED_RANKS = (1, 2, 4, 8, 16, 32)

Clock = Callable[[], tuple[float, float]]
"""Does a step; returns its forward and its backward seconds."""


def main() -> int:
    """Time a figure; rank 0 prints its progress, and in the last line the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figure", choices=list(TIMED), help="what to measure")
    parser.add_argument("--ranks", type=int, required=True, help="that work")
    parser.add_argument("--lengths", type=int, nargs="+", default=[], help="of the sequences")
    parser.add_argument("--quick", action="store_true", help="tiny problems, to see that it works")
    args = parser.parse_args()
    world = MPI.COMM_WORLD
    rows = TIMED[args.figure](world, args)
    if world.Get_rank() == 0:
        print(json.dumps(rows))
    return 0


def batches(quick: bool) -> list[tuple[str, Training]]:
    """Return what is timed over ranks: the shape of HMDB51's features, by two choices of cycles."""
    num_steps, batch, hidden, features = (32, 4, 8, 8) if quick else (128, 100, 100, 1000)
    options: dict[str, Any] = {
        "levels": 3,
        "coarsening": 4,
        "relax": (0, 1),
        "coarsest": "pipelined",
    }
    published = training(
        "published", num_steps, batch, hidden, coarse_step="implicit", iterations=(2, 1), **options
    )
    accurate = training("averaged", num_steps, batch, hidden, iterations=(2, 2), **options)
    return [
        (f"{PARALLEL}, {label}", replace(one, cell=replace(one.cell, num_features=features)))
        for label, one in (("published 2 + 1", published), ("averaged 2 + 2", accurate))
    ]


def sequence(num_steps: int, quick: bool) -> Training:
    """Return what is timed over the length: intervals as long as the network remembers, or less.

    No C-point is the last point, whose state would come from a coarse step.
    """
    hidden = 8 if quick else 64
    return training(
        "sequence", num_steps, 4, hidden, iterations=(1, 1), substep=32, memory=128, levels=2,
        coarsening=min(500, max(num_steps // 8 - 1, 3)), relax=0, coarsest=LocalGrids(2),
    )  # fmt: skip


def _over_ranks(world: MPI.Comm, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return rows for 1, 2, 4, ... and all ranks, measured, and predicted beyond."""
    counts = rank_counts(args.ranks)
    cases = batches(args.quick)
    methods = list(_alone(cases[0][1], counts))
    methods += [Method(name, one, n, 1) for name, one in cases for n in counts]
    _tell(world, f"{len(methods)} ways to train, on {', '.join(map(str, counts))} rank(s)")
    rows = _timed(methods, world, 1 if args.quick else 4)
    for name, one in cases:
        _tell(world, f"calibrating the prediction: {name}")
        goals = sorted({*counts, *PREDICTED_RANKS})
        rows += _predicted(name, one, goals, world, args.ranks, 1 if args.quick else 5)
    return rows


def _over_length(world: MPI.Comm, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return rows for sequences of all lengths, on all ranks."""
    size = args.ranks
    rows: list[dict[str, Any]] = []
    for count, num_steps in enumerate(args.lengths, 1):
        _tell(world, f"length {count} of {len(args.lengths)}: {num_steps} steps")
        one = sequence(num_steps, args.quick)
        methods = [*_alone(one, sorted({1, size})), Method(PARALLEL, one, size, 1)]
        rows += _timed(methods, world, 1 if args.quick else 3)
        _tell(world, "  calibrating the prediction")
        goals = (max(PREDICTED_RANKS),)
        rows += _predicted(PARALLEL, one, goals, world, size, 1 if args.quick else 3)
    return rows


TIMED = {"ranks": _over_ranks, "length": _over_length}
"""What each figure of times shows."""


def _tell(world: MPI.Comm, text: str) -> None:
    if world.Get_rank() == 0:
        print(f"... {text}", flush=True)


@dataclass(frozen=True)
class Method:
    """A way to train, on a number of ranks with a number of threads each.

    Attributes
    ----------
    name : str
        As in tables and figures.
    experiment : Training
        The problem.
    ranks, threads : int
        Numbers of ranks, and of threads of each rank.
    """

    name: str
    experiment: Training
    ranks: int
    threads: int

    def clock(self, comm: MPI.Comm) -> Clock:
        """Return what does and times a step; collective."""
        x, y = self.experiment.sequences()
        if self.name == CLASSIC and HAS_TORCH:
            return _torch_clock(self.experiment, x, y, self.threads)
        if self.name.startswith(PARALLEL):
            return _solver_clock(_parallel_solver(self.experiment, comm), x, y)
        cell = self.experiment.cell
        if self.name == CLASSIC:
            cell = replace(cell, cell="classic", coarse_step="averaged")
        network = Network(cell, NUM_CLASSES)
        return _solver_clock(
            exact_solver(network, self.experiment.num_steps, threads=self.threads), x, y
        )

    def row(self, kind: str, forward: float, seconds: float) -> dict[str, Any]:
        """Return a row of the tables."""
        one, facts = self.experiment, machine()
        return {
            "method": self.name,
            "kind": kind,
            "machine": f"{facts['processor']}, {facts['cores']} cores",
            "ranks": self.ranks,
            "threads": self.threads,
            "steps": one.num_steps,
            "batch": one.batch,
            "features": one.cell.num_features,
            "hidden": one.cell.hidden,
            "forward_seconds": forward,
            "backward_seconds": seconds - forward,
            "seconds": seconds,
            "gradient_error": None,
        }


def _alone(one: Training, threads: list[int]) -> Iterator[Method]:
    """Yield ways to train on one rank, whose threads share the sequences."""
    for count in threads:
        yield Method(CLASSIC, one, 1, count)
        yield Method(SERIAL, one, 1, count)


def _parallel_solver(one: Training, comm: MPI.Comm) -> NetworkSolver:
    forward, backward = (replace(o, threads=1) for o in (one.forward, one.backward))
    return NetworkSolver(one.network(), one.num_steps, forward, backward, comm)


def _solver_clock(solver: NetworkSolver, x: Any, y: Any) -> Clock:
    """Time pint: forward until the loss is known, backward until the parameters may change."""
    parameters, optimizer = solver.network.parameters, Adam(learning_rate=1e-3)
    state, watch = optimizer.init(parameters), solver.watch

    def clock() -> tuple[float, float]:
        watch.seconds.clear()
        begin = time.perf_counter()
        gradient = solver.loss_and_gradient(x, y).gradient
        end = time.perf_counter()
        optimizer.update(gradient, state, parameters)
        back = watch.seconds["backward solve"] + watch.seconds["messages"]
        return end - begin - back, back + time.perf_counter() - end

    return clock


def _torch_clock(one: Training, x: Any, y: Any, threads: int) -> Clock:
    import torch

    cell = one.cell
    gru = torch.nn.GRU(cell.num_features, cell.hidden, cell.layers, batch_first=True)
    head = torch.nn.Linear(cell.hidden, NUM_CLASSES)
    optimizer = torch.optim.Adam([*gru.parameters(), *head.parameters()], lr=1e-3)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def clock() -> tuple[float, float]:
        torch.set_num_threads(threads)
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(head(gru(inputs)[1][-1]), labels)
        middle = time.perf_counter()
        loss.backward()
        optimizer.step()
        return middle - begin, time.perf_counter() - middle

    return clock


def _timed(methods: list[Method], world: MPI.Comm, rounds: int) -> list[dict[str, Any]]:
    """Time all ways in turn; return rows of medians; those without work sleep meanwhile."""
    clocks = [_on_ranks(each, world) for each in methods]
    times: list[list[tuple[float, float]]] = [[] for _ in methods]
    for turn in range(rounds):
        _tell(world, f"  round {turn + 1} of {rounds}")
        for clock, taken in zip(clocks, times, strict=True):
            taken += [_once(clock, world) for _ in range(TURN)][1:]
    rows = []
    for each, taken in zip(methods, times, strict=True):
        forward, seconds = (statistics.median(column) for column in zip(*taken, strict=True))
        rows.append(each.row("measured", min(forward, seconds), seconds))
        if each.name.startswith(PARALLEL):
            rows[-1]["gradient_error"] = _gradient_error(each, world)
    return rows


def _once(clock: Clock | None, world: MPI.Comm) -> tuple[float, float]:
    """Do a step; return when the last rank was half way, and done."""
    world.Barrier()
    own = clock() if clock else (0.0, 0.0)
    sleep_until_all_are_here(world)
    forward, total = world.allreduce(np.array([own[0], sum(own)]), _LATEST).tolist()
    return forward, total


def _latest(a: Any, b: Any, _: Any = None) -> Any:
    return np.maximum(a, b)


_LATEST = MPI.Op.Create(_latest, commute=True)


def _on_ranks(method: Method, world: MPI.Comm) -> Clock | None:
    """Return the clock on the ranks that work, None on the others; collective."""
    works = world.Get_rank() < method.ranks
    comm = world.Split(int(works))
    clock = method.clock(comm) if works else None
    sleep_until_all_are_here(world)
    return clock


def _gradient_error(method: Method, world: MPI.Comm) -> float | None:
    """Return the error of the gradient, which is the same on any number of ranks; on rank 0."""
    error = None
    if world.Get_rank() == 0:
        one = method.experiment
        gradient = _parallel_solver(one, MPI.COMM_SELF).loss_and_gradient(*one.sequences()).gradient
        error = one.gradient_error(gradient)
    sleep_until_all_are_here(world)
    return error


def _predicted(
    name: str, one: Training, counts: Iterable[int], world: MPI.Comm, ranks: int, repeats: int
) -> list[dict[str, Any]]:
    """Calibrate on the ranks that work; return rows of predicted times, on rank 0; collective."""
    works = world.Get_rank() < ranks
    comm = world.Split(int(works))
    calibrated = _calibrated(one, comm, repeats) if works else None
    sleep_until_all_are_here(world)
    network = measure_network(as_communicator(world))
    rows = []
    if calibrated is not None and world.Get_rank() == 0:
        run, costs = calibrated
        for count in counts:
            timing = simulate(Schedule.of(run, count), replace(costs, machine=network), events=True)
            method = Method(name, one, count, 1)
            rows.append(method.row("predicted", _forward(timing), timing.seconds))
    sleep_until_all_are_here(world)
    return rows


def _calibrated(one: Training, comm: MPI.Comm, repeats: int) -> tuple[PredictedRun, Costs]:
    """Return the schedule, and what work costs on all ranks at the same time; collective."""
    prepared = one.prepare(MPI.COMM_SELF, "auto")
    m = one.forward.factors(one.num_steps)[0]
    costs = prepared.calibration.measure(lengths(one.num_steps, int(m)), repeats)
    return prepared.run, mean_costs(costs, comm)


def _forward(timing: Timing) -> float:
    """Return when the last rank has the loss."""
    return max(
        event.end
        for event in timing.events
        if event.operation.solve == "forward" or event.operation.name == "head"
    )


if __name__ == "__main__":
    sys.exit(main())
