"""Common parts of the own_cell examples: a small task, the training loop, the command line.

The task is to predict the frequency of a sine wave. Its sequences have one feature, and the first
unit of the last state is the prediction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid, check_propagator
from pint.parallel.comm import Communicator, run, world
from pint.train.optimizers import Adam

from .arguments import quiet_unless, refuse
from .option_parser import OptionParser

Array = NDArray[np.float64]

DURATION = 12.0
"""Duration of a sequence in seconds; the cell works on time scales of a second and more."""


class Cell(Protocol):
    """A propagator with parameters that takes sequences."""

    parameters: NDArray[Any]
    state_shape: tuple[int, ...]

    def set_inputs(self, x: Array) -> None:
        """Bind sequences, shape (B, T, num_features)."""


MakeCell = Callable[[int, int, int], Any]
"""(num_features, hidden, seed) -> Cell."""


def waves(count: int, num_steps: int, seed: int) -> tuple[Array, Array]:
    """Return sine waves (count, num_steps, 1), and their frequencies scaled to [-0.8, 0.8]."""
    rng = np.random.default_rng(seed)
    y, phase = rng.uniform(-0.8, 0.8, count), rng.uniform(0, 2 * np.pi, (count, 1))
    x = np.sin((1 + y[:, None] / 2) * np.linspace(0, DURATION, num_steps) + phase)
    return x[:, :, None], y


def squared_error(h: Array, y: Array) -> tuple[float, Array]:
    """Return the mean of (h_0 - y)^2 / 2, and its gradient by the last state h, shape (B, H)."""
    error = h[:, 0] - y
    d_h = np.zeros_like(h)
    d_h[:, 0] = error / y.size
    return float(error @ error / 2 / y.size), d_h


class Solver:
    """Loss and gradient of a cell, forwards and backwards by MGRIT on the ranks of `comm`."""

    def __init__(
        self, cell: Cell, zeros: Any, num_steps: int, options: MGRITOptions, comm: Any = None
    ) -> None:
        self.cell, self.zeros = cell, zeros
        grid = TimeGrid.uniform(0, DURATION, num_steps)
        self.forward = MGRIT(cell, grid, options, comm)
        self.backward = AdjointSolver(self.forward)

    def loss_and_gradient(self, x: Array, y: Array) -> tuple[float, Array]:
        """Return both, on every rank; collective."""
        self.cell.set_inputs(x)  # also refreshes the cell after a change of its parameters
        result = self.forward.solve(self.zeros(self.cell.state_shape))
        loss, d_h = squared_error(result.final_state(), y)
        return loss, self.backward.solve(result, d_h).parameter_gradient


def main_of(
    name: str, make_cell: MakeCell, argv: Sequence[str] | None, zeros: Callable[..., Any] = np.zeros
) -> int:
    """Run an example by its command line; return the exit status.

    `zeros` makes the initial state, and so determines the array library of the states.
    """
    comm = world()
    with quiet_unless(comm.rank == 0):
        args = _parser(name).parse_args(sys.argv[1:] if argv is None else argv)
    return run(lambda: _train(name, make_cell, zeros, args, comm), comm)


def _train(
    name: str, make_cell: MakeCell, zeros: Any, args: argparse.Namespace, comm: Communicator
) -> int:
    try:
        cell = make_cell(1, args.hidden, args.seed)
        options = MGRITOptions(
            levels=args.levels, coarsening=args.coarsening, max_iterations=args.iterations
        )
        x, y = waves(args.count, args.steps, args.seed)
        cell.set_inputs(x[:2])
        check_propagator(cell, grid=TimeGrid.uniform(0, DURATION, args.steps))
        parallel = Solver(cell, zeros, args.steps, options, comm)
        serial = Solver(cell, zeros, args.steps, MGRITOptions(levels=1))
    except (ValueError, ImportError) as error:  # equal on every rank
        return refuse(f"apps.{name}", error, comm)
    optimizer = Adam(learning_rate=args.lr)
    state = optimizer.init(cell.parameters)
    for update in range(args.updates + 1):
        loss, gradient = parallel.loss_and_gradient(x, y)
        if update % args.every == 0 or update == args.updates:
            _, exact = serial.loss_and_gradient(x, y)
            error = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
            if comm.rank == 0:
                print(f"update {update:4d}  loss {loss:.6f}  gradient off by {error:.1e}")
        change, state = optimizer.update(gradient, state, cell.parameters)
        cell.parameters += change
    return 0


def _parser(name: str) -> OptionParser:
    parser = OptionParser(
        f"apps.{name}",
        "Train a user's cell to predict frequencies, in parallel over time, and compare its "
        "gradient with serial backpropagation.",
    )
    add = parser.add_argument
    add("--hidden", type=int, default=16, help="width of the state")
    add("--count", type=int, default=64, help="number of sequences")
    add("--steps", type=int, default=128, help="length of the sequences")
    add("--updates", type=int, default=60, help="updates of Adam, each with all sequences")
    add("--every", type=int, default=20, help="updates between two lines")
    add("--lr", type=float, default=3e-2, help="learning rate")
    add("--seed", type=int, default=0, help="seed of parameters and sequences")
    add("--levels", type=int, default=2, help="greatest number of time levels")
    add("--coarsening", type=int, default=4, help="factor between levels")
    add("--iterations", type=int, default=4, help="MGRIT cycles, forwards and backwards")
    return parser
