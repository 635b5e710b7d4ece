"""Training in parallel beside torch's threads: mpiexec -n 2 python -m benchmarks.time_parallel.

Gradient errors, and times. Both sides take their turn in one run; while torch or exact stepping
works on one rank, the others sleep.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from mpi4py import MPI
from rich.console import Console
from rich.table import Table

from benchmarks import _measure
from benchmarks.gru_vs_torch import Case, _pint_runs, _torch_training
from pint import AdjointSolver, MGRITOptions, TimeGrid
from pint.data.har import SequenceData, load_har
from pint.mgrit.solver import MGRIT
from pint.parallel.comm import SerialCommunicator
from pint.rnn.network import Network
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.accuracy import exact_solver
from pint.train.log import TrainingLog
from pint.train.optimizers import Adam
from pint.train.trainer import Trainer, TrainingOptions

BATCH, LEARNING_RATE = 100, 1e-3
LONG = Case(T=1024, B=1, inputs=9, H=64)
TORCHBRAID = 576e-6
"""Seconds a step of TorchBraid's in the long case, on a machine of the same kind."""


class Setting(NamedTuple):
    """Two levels, one interval for each rank, numbers of cycles, and parts of the coarse step."""

    forward: int
    backward: int
    substep: int


SETTINGS = tuple(Setting(*s) for s in ((1, 1, 4), (1, 1, 3), (1, 1, 2), (2, 1, 8), (2, 1, 4)))


def main() -> int:
    """Train serially, compare gradients on the way, then time; JSON is the last line."""
    args = _parse()
    world = MPI.COMM_WORLD
    data = load_har(args.data_dir)
    network = Network(
        RecurrenceOptions(num_features=data.num_features, layers=2, cell=args.cell),
        data.num_classes,
    )
    solvers = {setting: _solver(network, data, setting, world) for setting in SETTINGS}
    errors = _errors(network, data, solvers, args.epochs)
    steps: dict[Any, Callable[[], object]] = {
        setting: _training(network, data, solver) for setting, solver in solvers.items()
    }
    alone = {"exact": _training(network, data, exact_solver(network, data.num_steps))}
    torch.set_num_threads(world.size)
    alone["torch"] = _torch_training()
    seconds = _medians(world, steps, alone, args.repeats)
    long = _medians(world, {"parallel": _long(world)}, {"exact": _exact_long()}, args.repeats)
    if world.rank == 0:
        _report(args, world.size, errors, seconds, long)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder of UCI-HAR")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 6, 12],
        help="after which gradients are compared; 1 6 12 if left out")  # fmt: skip
    parser.add_argument("--cell", choices=("implicit", "classic"), default="implicit",
        help="of the network; %(default)s if left out")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=15,
        help="turns of each side; %(default)s if left out")  # fmt: skip
    return parser.parse_args()


def _options(num_steps: int, size: int) -> MGRITOptions:
    """Return two levels in which every rank but the first begins with a C-point of its own."""
    m = -(-(num_steps + 1) // size)
    return MGRITOptions(levels=2, coarsening=m, min_coarse=1, relax=0, max_iterations=1)


def _solver(
    network: Network, data: SequenceData, setting: Setting, world: MPI.Comm
) -> NetworkSolver:
    forward = _options(data.num_steps, world.size)
    kept = network.options
    network.options = replace(kept, substep=setting.substep)
    try:
        return NetworkSolver(
            network,
            data.num_steps,
            replace(forward, max_iterations=setting.forward),
            replace(forward, max_iterations=setting.backward),
            world,
        )
    finally:
        network.options = kept


def _errors(
    network: Network,
    data: SequenceData,
    solvers: dict[Setting, NetworkSolver],
    epochs: list[int],
) -> dict[Setting, list[float]]:
    """Train by exact stepping, every rank by itself; return errors of gradients at some epochs."""
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]
    exact = exact_solver(network, data.num_steps)
    errors: dict[Setting, list[float]] = {setting: [] for setting in solvers}

    def compare(log: TrainingLog) -> None:
        if len(log.epochs) not in epochs or log.finished:
            return
        g_exact = exact.loss_and_gradient(x, y).gradient
        for setting, solver in solvers.items():
            g = solver.loss_and_gradient(x, y).gradient
            errors[setting].append(float(np.linalg.norm(g - g_exact) / np.linalg.norm(g_exact)))

    options = TrainingOptions(
        epochs=max(epochs) + 1, batch=BATCH, optimizer=Adam(learning_rate=LEARNING_RATE)
    )
    Trainer(exact, data, options, SerialCommunicator(), on_epoch=compare).train()
    return errors


def _training(network: Network, data: SequenceData, solver: NetworkSolver) -> Callable[[], None]:
    """Return a step of training: both passes, and Adam's update, which is not kept."""
    x, y, optimizer = data.x_train[:BATCH], data.y_train[:BATCH], Adam(learning_rate=LEARNING_RATE)
    state = optimizer.init(network.parameters)

    def step() -> None:
        gradient = solver.loss_and_gradient(x, y).gradient
        optimizer.update(gradient, state, network.parameters)

    return step


def _long(world: MPI.Comm) -> Callable[[], None]:
    """Return both passes over one long sequence, parallel in time."""
    model = Recurrence(RecurrenceOptions(num_features=LONG.inputs, hidden=LONG.H))
    options = _options(LONG.T, world.size)
    solver = MGRIT(model, TimeGrid.uniform(0.0, float(LONG.T), LONG.T), options, world)
    adjoint = AdjointSolver(solver)
    x = np.random.default_rng(0).standard_normal((LONG.B, LONG.T, LONG.inputs), dtype=np.float32)
    start = np.zeros((1, LONG.B, LONG.H), dtype=np.float32)
    stacks = solver.hierarchy.own_steps() + adjoint.own_steps()
    read = [model.input_windows(stack) for stack in stacks if np.size(stack.last)]
    windows = np.unique(np.concatenate(read), axis=0)

    def run() -> None:
        model.set_inputs(x, windows)
        model.recording = True
        result = solver.solve(start)
        model.recording = False
        adjoint.solve(result, np.ones_like(start))

    return run


def _exact_long() -> Callable[[], object]:
    return _pint_runs(LONG).backward[0]


def _medians(
    world: MPI.Comm,
    together: dict[Any, Callable[[], object]],
    alone: dict[Any, Callable[[], object]],
    repeats: int,
) -> dict[Any, float]:
    """Time what all ranks do together and what the first does alone, in turn; return medians."""
    times: dict[Any, list[float]] = {name: [] for name in (*together, *alone)}
    for round_ in range(repeats + 2):
        for name, run in (*together.items(), *alone.items()):
            _wait_asleep(world)
            begin = time.perf_counter()
            if name in together or world.rank == 0:
                run()
            if round_ > 1:
                times[name].append(time.perf_counter() - begin)
            _wait_asleep(world)
    return {name: statistics.median(values) for name, values in times.items()}


def _wait_asleep(world: MPI.Comm) -> None:
    """Wait for all ranks without keeping a core busy."""
    request = world.Ibarrier()
    while not request.Test():
        time.sleep(5e-4)


def _report(
    args: argparse.Namespace,
    ranks: int,
    errors: dict[Setting, list[float]],
    seconds: dict[Any, float],
    long: dict[str, float],
) -> None:
    table = Table(title=f"UCI-HAR, a training step on {ranks} ranks")
    for heading in ("", f"gradient error, epochs {args.epochs}", "ms", "torch / pint"):
        table.add_column(heading, justify="right")
    rows = []
    for name, value in seconds.items():
        error = errors.get(name, [])
        label = "{} + {} cycles, parts of {}".format(*name) if name in errors else name
        shown = " ".join(f"{100 * e:.2f} %" for e in error) or "-"
        table.add_row(label, shown, f"{1e3 * value:.1f}", f"{seconds['torch'] / value:.2f}")
        rows.append({"name": label, "gradient_errors": error, "ms": 1e3 * value})
    per_step = long["parallel"] / LONG.T
    Console(width=100).print(table)
    print(
        f"{LONG} both passes: {1e6 * per_step:.2f} us a step on {ranks} ranks, "
        f"{TORCHBRAID / per_step:.0f} times less than TorchBraid's 576 us; "
        f"{1e6 * long['exact'] / LONG.T:.2f} us by exact stepping on one"
    )
    result = {
        "ranks": ranks,
        "epochs": args.epochs,
        "training_step": rows,
        "long_sequence": {"us_per_step": 1e6 * per_step, "ratio": TORCHBRAID / per_step},
    }
    _measure.save("time_parallel", result)
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
