"""Problems whose time is measured beside the predicted one: solves, and steps of training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from benchmarks._cases import CASES, heat
from pint import LocalGrids, MGRITOptions
from pint.drivers.driver import Driver
from pint.mgrit.solver import MGRIT
from pint.parallel.comm import SerialCommunicator, as_communicator
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.scaling import Costs, PredictedRun, Schedule, Timing, simulate
from pint.scaling.calibrate import SolveCalibration, TrainingCalibration
from pint.scaling.measurement import mean_costs
from pint.scaling.message_costs import measure_network
from pint.scaling.workload import training_run
from pint.train.optimizers import Adam

NUM_CLASSES = 6
STEPPING = MGRITOptions(levels=1)


TURN = 3
"""Calls of each way in a round; the first one is for free, since others were in the caches."""


class Calibration(Protocol):
    """Measures costs on one process."""

    def measure(self, lengths: list[int], repeats: int) -> Costs:
        """Return the costs of work."""


class Prepared(NamedTuple):
    """What some ranks do, and how its time is predicted.

    Attributes
    ----------
    action : callable
        A solve, or a step of training; collective.
    run : PredictedRun
        Its schedule.
    calibration : Calibration
        Of its work.
    interval : int
        Steps between C-points of the finest level.
    iterations : int
        Cycles forward.
    gradient : callable or None
        Returns the gradient of a step of training; collective.
    """

    action: Callable[[], object]
    run: PredictedRun
    calibration: Calibration
    interval: int
    iterations: int
    gradient: Callable[[], NDArray[Any]] | None = None

    def predict(self, comm: MPI.Comm, repeats: int) -> Timing:
        """Calibrate on all ranks at the same time; return the predicted time; collective."""
        num_steps, size = self.run.num_steps, comm.Get_size()
        own = max(-(-num_steps // size), min(2 * self.interval, num_steps))
        lengths = sorted({num_steps, own, max(own // 2, min(2 * self.interval, own))})
        costs = mean_costs(self.calibration.measure(lengths[::-1], repeats), comm)
        if size > 1:
            costs = replace(costs, machine=measure_network(as_communicator(comm)))
        return simulate(Schedule.of(self.run, size), costs)


@dataclass(frozen=True, kw_only=True)
class Solving:
    """Solves of one of the engine's problems, to its tolerance.

    Attributes
    ----------
    name : str
        Of the case.
    num_steps : int
        Steps of the finest level.
    options : dict of str to object
        Changes to the options of the case.
    make : callable
        Makes the case from its number of steps.
    """

    name: str
    num_steps: int
    make: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    def grown(self, factor: int) -> Solving:
        """Return the problem with more steps."""
        return replace(self, num_steps=self.num_steps * factor)

    def prepare(self, comm: MPI.Comm, driver: str, *, serial: bool = False) -> Prepared:
        """Return what the ranks do; collective, solves once."""
        case = self.make(num_steps=self.num_steps)
        changes = {"levels": 1, "tolerance": None} if serial else dict(self.options)
        solver: MGRIT = case.solver(driver, comm, **changes)
        result = solver.solve(case.initial_value)
        options = replace(solver.options, max_iterations=result.num_iterations)
        stepper = solver.driver
        run = PredictedRun(
            num_steps=self.num_steps,
            forward=options,
            state_bytes=(np.asarray(case.initial_value).nbytes,),
            replays=type(stepper).run_cycle is not Driver.run_cycle,
        )
        return Prepared(
            lambda: solver.solve(case.initial_value),
            run,
            SolveCalibration(solver.propagator, case.grid, case.initial_value, options),
            _interval(options, self.num_steps),
            result.num_iterations,
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """Steps of training a GRU, with the update of Adam, on random sequences.

    Attributes
    ----------
    name : str
        Of the experiment.
    num_steps, batch, features : int
        Length, number and width of the sequences.
    cell : RecurrenceOptions
        The layers.
    forward, backward : MGRITOptions
        How both problems are solved.
    memory : int, optional
        Steps that the slowest units remember; as random weights have it, if left out.
    """

    name: str
    num_steps: int
    batch: int
    cell: RecurrenceOptions
    forward: MGRITOptions
    backward: MGRITOptions
    memory: int | None = None

    def grown(self, factor: int) -> Training:
        """Return the problem with longer sequences."""
        return replace(self, num_steps=self.num_steps * factor)

    def prepare(self, comm: MPI.Comm, driver: str, *, serial: bool = False) -> Prepared:
        """Return what the ranks do; collective, does a step."""
        forward, backward = (
            replace(STEPPING if serial else options, driver=driver)  # type: ignore[arg-type]
            for options in (self.forward, self.backward)
        )
        network = self.network()
        solver = NetworkSolver(network, self.num_steps, forward, backward, comm)
        x, y = self.sequences()
        optimizer = Adam(learning_rate=1e-3)
        state = optimizer.init(network.parameters)

        def gradient() -> NDArray[Any]:
            return solver.loss_and_gradient(x, y).gradient

        def update(found: NDArray[Any]) -> None:
            optimizer.update(found, state, network.parameters)

        gradient()
        return Prepared(
            lambda: update(gradient()),
            training_run(network, self.num_steps, self.batch, forward, backward),
            TrainingCalibration(network, forward, backward, self.batch, update),
            _interval(forward, self.num_steps),
            1 if serial else forward.max_iterations,
            gradient,
        )

    def network(self) -> Network:
        """Return a new network.

        The biases of its update gates are the logarithms of uniform random numbers of steps up to
        `memory`: Tallec and Ollivier, "Can recurrent neural networks warp time?", ICLR 2018.
        """
        network = Network(self.cell, NUM_CLASSES)
        if self.memory is not None:
            hidden, rng = self.cell.hidden, np.random.default_rng(1)
            z = slice(hidden, 2 * hidden)
            for layer in range(self.cell.layers):
                network.weights[f"bias_ih_l{layer}"][z] = np.log(
                    rng.uniform(1, self.memory, hidden)
                )
                network.weights[f"bias_hh_l{layer}"][z] = 0
        return network

    def sequences(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return random sequences and labels, the same on every rank."""
        rng = np.random.default_rng(0)
        shape = (self.batch, self.num_steps, self.cell.num_features)
        x = rng.standard_normal(shape, dtype=np.float32).astype(self.cell.dtype)
        return x, rng.integers(NUM_CLASSES, size=self.batch)

    def gradient_error(self, gradient: NDArray[Any]) -> float:
        """Return the relative error of a gradient, beside backpropagation through all steps."""
        network = self.network()
        exact = NetworkSolver(network, self.num_steps, STEPPING, STEPPING, SerialCommunicator())
        expected = exact.loss_and_gradient(*self.sequences()).gradient
        return float(np.linalg.norm(gradient - expected) / np.linalg.norm(expected))


Experiment = Solving | Training


def sleep_until_all_are_here(world: MPI.Comm) -> None:
    """Wait for all ranks; one that waits inside MPI would take the core of one that works."""
    done = world.Ibarrier()
    while not done.Test():
        time.sleep(1e-4)


def _interval(options: MGRITOptions, num_steps: int) -> int:
    """Return the steps between C-points that a shorter problem must have, to be one of its kind."""
    if options.levels == 1:
        return 1
    return int(np.prod(list(options.factors(num_steps)), dtype=np.int64))


def _solving(name: str) -> Solving:
    return Solving(name=name, make=CASES[name], num_steps=CASES[name]().grid.num_steps)


def training(
    name: str, num_steps: int, batch: int, hidden: int, *,
    iterations: tuple[int, int], memory: int | None = None, **options: Any,
) -> Training:  # fmt: skip
    """Return steps of training on nine features; `options` are of the cell and of the solver."""
    own = {field.name for field in fields(RecurrenceOptions)}
    of_cell = {name: options.pop(name) for name in own & options.keys()}
    cell = RecurrenceOptions(num_features=9, hidden=hidden, **of_cell)
    forward, backward = (MGRITOptions(max_iterations=n, **options) for n in iterations)
    return Training(
        name=name, num_steps=num_steps, batch=batch, cell=cell,
        forward=forward, backward=backward, memory=memory,
    )  # fmt: skip


def har() -> Training:
    """UCI-HAR's shape: two levels, whose coarse steps are accurate."""
    return training(
        "gru_har", 128, 100, 100, iterations=(1, 1), levels=2, coarsening=15, relax=0,
        coarsest="pipelined",
    )  # fmt: skip


def long(num_steps: int = 16_384) -> Training:
    """Sequences longer than a network remembers: truncated local coarse grids."""
    return training(
        "gru_long", num_steps, 4, 64, iterations=(1, 1), substep=32, memory=128, levels=2,
        coarsening=500, relax=0, coarsest=LocalGrids(2),
    )  # fmt: skip


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    **{name: lambda name=name: _solving(name) for name in CASES},  # type: ignore[misc]
    "gru_har": har,
    "gru_long": long,
}
"""Makers of what is scaled, by name."""


def heats() -> list[Solving]:
    """Return five ways to solve the heat equation, for comparing predictions."""
    five: list[tuple[str, int, int, dict[str, Any]]] = [
        ("heat129, m 16", 129, 10_000, {}),
        ("heat1025, m 16", 1025, 4_000, {}),
        ("heat257, m 4", 257, 4_000, {"levels": 5, "coarsening": 4}),
        ("heat513, 2 levels", 513, 4_000, {"levels": 2, "coarsening": 32}),
        ("heat257, F-cycles", 257, 4_000, {"levels": 3, "coarsening": 8, "cycle": "F", "relax": 0}),
    ]
    return [
        Solving(
            name=name,
            num_steps=num_steps,
            make=lambda num_steps, n=nodes: heat(n, num_steps),
            options=tuple(options.items()),
        )
        for name, nodes, num_steps, options in five
    ]


def gru_configurations() -> list[Training]:
    """Return five ways to train GRUs, for comparing predictions."""
    three: dict[str, Any] = {"levels": 3, "coarsening": 4, "relax": (0, 1)}
    return [
        har(),
        training("gru, 2 + 2 cycles", 128, 100, 100, iterations=(2, 2), **three),
        training("gru, 2 layers", 512, 16, 64, layers=2, iterations=(2, 1), **three),
        training(
            "gru, implicit, m 8", 2048, 4, 64, coarse_step="implicit", iterations=(2, 1),
            levels=3, coarsening=8, coarsest="pipelined",
        ),
        long(8_192),
    ]  # fmt: skip
