"""UCI-HAR: how exact states and gradients of few MGRIT iterations are, on trained weights."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks import _measure
from benchmarks._diagonal_delta import correct_by_diagonals
from pint import Delta, MGRITOptions
from pint.data.har import SequenceData, load_har
from pint.mgrit.cycle import visits
from pint.parallel.comm import SerialCommunicator
from pint.rnn.batch import Batch
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.log import TrainingLog
from pint.train.optimizers import Adam
from pint.train.trainer import Trainer, TrainingOptions

EPOCHS = (1, 6, 12)
BATCH = 100
ITERATIONS = ((2, 1), (2, 2), (3, 2))


class Setting(NamedTuple):
    """One way to solve."""

    coarse_step: str
    substep: int
    cycle: Literal["V", "F"]
    relax: tuple[int, int]
    forward: int
    backward: int
    correction: Literal["none", "diagonal", "diagonal alone"] = "none"


def settings() -> Iterator[Setting]:
    """Yield what is compared."""
    steps = [("implicit", 8), ("matched", 8)]
    steps += [(kind, substep) for kind in ("midpoint", "averaged") for substep in (16, 8, 4, 3)]
    for (coarse_step, substep), relax in product(steps, ((0, 1), (1, 1))):
        for forward, backward in ITERATIONS:
            yield Setting(coarse_step, substep, "V", relax, forward, backward)
    steps = [("implicit", 8), ("matched", 8), ("midpoint", 8), ("averaged", 8), ("averaged", 4)]
    for (coarse_step, substep), relax in product(steps, ((0, 1), (1, 1))):
        for forward, backward in ITERATIONS:
            yield Setting(coarse_step, substep, "V", relax, forward, backward, "diagonal")
    for cycles in (10, 14, 16, 18, 20):  # the first one has coarse steps
        yield Setting("averaged", 16, "V", (0, 1), cycles, cycles, "diagonal alone")
    for substep, relax in product((8, 4), ((0, 0), (0, 1), (1, 1))):
        for forward, backward in ((1, 1), *ITERATIONS[:2]):
            yield Setting("averaged", substep, "F", relax, forward, backward)


def main() -> int:
    """Train serially, compare on the way, print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder of UCI-HAR")
    parser.add_argument("--hidden", type=int, default=100, help="width of the state")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2], help="numbers of layers")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        default=list(EPOCHS),
        help="after which errors are measured",
    )
    args = parser.parse_args()
    data = load_har(args.data_dir)
    rows: list[dict[str, Any]] = []
    for layers in args.layers:
        rows += _rows(data, args.hidden, layers, args.epochs)
    _measure.print_table("UCI-HAR, 3 levels, coarsening 4: relative errors", rows)
    print(json.dumps(rows))
    return 0


def _rows(data: SequenceData, hidden: int, layers: int, epochs: list[int]) -> list[dict[str, Any]]:
    """Train a network of `layers` layers; return one row for each setting and moment."""
    cell = RecurrenceOptions(num_features=data.num_features, hidden=hidden, layers=layers)
    network = Network(cell, data.num_classes)
    stepping = MGRITOptions(levels=1)
    exact = NetworkSolver(network, data.num_steps, stepping, stepping)
    rows: list[dict[str, Any]] = []

    def compare(log: TrainingLog) -> None:
        epoch = len(log.epochs)
        print(f"{layers} layer(s), epoch {epoch}", file=sys.stderr, flush=True)
        if epoch in epochs and not log.finished:
            rows.extend(_compare(setting, exact, data, epoch) for setting in settings())

    options = TrainingOptions(
        epochs=max(epochs) + 1, batch=BATCH, optimizer=Adam(learning_rate=1e-3)
    )
    Trainer(exact, data, options, SerialCommunicator(), on_epoch=compare).train()
    return rows


def _compare(
    setting: Setting, exact: NetworkSolver, data: SequenceData, epoch: int
) -> dict[str, Any]:
    """Return the errors of one setting at the present weights, on the first training sequences."""
    x, y = data.x_train[:BATCH], data.y_train[:BATCH]
    forward = MGRITOptions(
        levels=3,
        coarsening=4,
        cycle=setting.cycle,
        relax=setting.relax,
        max_iterations=setting.forward,
        delta=Delta("diagonal") if setting.correction == "diagonal alone" else None,
    )
    backward = dataclasses.replace(forward, max_iterations=setting.backward)
    network = exact.network
    kept = network.options
    network.options = dataclasses.replace(
        kept, coarse_step=setting.coarse_step, substep=setting.substep
    )
    try:
        solver = NetworkSolver(network, data.num_steps, forward, backward)
    finally:
        network.options = kept
    if setting.correction == "diagonal":
        correct_by_diagonals(solver.layer_solvers[0])
    g, g_exact = (s.loss_and_gradient(x, y).gradient for s in (solver, exact))
    u, u_exact = (_last_state(s, x) for s in (solver, exact))
    return {
        "layers": network.options.layers,
        "epochs": epoch,
        **setting._asdict(),
        "state_error": float(np.linalg.norm(u - u_exact) / np.linalg.norm(u_exact)),
        "gradient_error": float(np.linalg.norm(g - g_exact) / np.linalg.norm(g_exact)),
        "cosine": float(g @ g_exact / np.linalg.norm(g) / np.linalg.norm(g_exact)),
        "evaluations": critical_path(solver, forward) + critical_path(solver, backward),
    }


def _last_state(solver: NetworkSolver, x: Any) -> Any:
    """Return the last hidden state of all layers."""
    sweep = solver.layer_solvers[0]
    sweep.bind(Batch(x), backward=False)
    zero = np.zeros(sweep.model.state_shape, dtype=sweep.model.dtype)
    return sweep.solve(zero, record=False).final_state()


def critical_path(solver: NetworkSolver, options: MGRITOptions) -> int:
    """Count cell evaluations that must follow one another, with a rank for each finest interval.

    A sweep over the F-points of an interval is m - 1 steps in a row, a C-relaxation, a residual or
    a coarse right-hand side one, the coarsest level all of its steps; a step on level l counts the
    cell evaluations of its coarse step. A correction by diagonals has none of its own; where
    diagonals take the place of coarse steps, the first cycle alone has any on coarse levels. The
    parameter gradient at the end is the same for all.
    """
    hierarchy = solver.layer_solvers[0].forward.hierarchy
    levels = hierarchy.levels
    cost = []
    for level in levels:
        num_fine = int(level.grid.steps(1).num_fine)
        cost.append(
            len(solver.layer_solvers[0].model.options.evaluations_of(level.index, num_fine))
        )

    def visit(index: int, shape: str, *, injects: bool, is_relaxed: bool) -> int:
        level, here = levels[index], cost[index]
        if index == len(levels) - 1:
            return level.grid.num_steps * here
        sweep = (level.m - 1) * here
        evaluations = sweep  # on the way up
        if not injects:
            evaluations += (level.relax + 1 - is_relaxed) * sweep + (level.relax + 1) * here
            evaluations += cost[index + 1]
        for number, below in enumerate(visits(hierarchy, shape, index + 1)):
            evaluations += visit(
                index + 1, below, injects=injects and number == 0, is_relaxed=number > 0
            )
        return evaluations

    first = visit(0, options.cycle, injects=True, is_relaxed=False)
    if options.uses_diagonals:
        cost[1:] = [0] * (len(levels) - 1)
    later = visit(0, options.cycle, injects=False, is_relaxed=True)
    return first + (options.max_iterations - 1) * later


if __name__ == "__main__":
    sys.exit(main())
