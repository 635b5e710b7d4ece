"""Measuring what work and messages take, by solving smaller problems of the same kind."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.grid.timegrid import TimeGrid
from pint.mgrit.solver import MGRIT
from pint.options import MGRITOptions
from pint.parallel.comm import SerialCommunicator
from pint.propagator import Propagator, State
from pint.rnn.network import Network
from pint.rnn.solver import NetworkSolver
from pint.scaling.costs import Costs, Machine
from pint.scaling.samples import WorkSamples
from pint.scaling.schedule import fixed

_NOBODY = Machine(latency=1e-6, bandwidth=1e10, name="one process")


def lengths(num_steps: int, coarsening: int, greatest: int = 1 << 16) -> list[int]:
    """Return the lengths to measure: halves of the whole, down to two intervals.

    Raises
    ------
    ValueError
        If `greatest` is less than the whole and than two intervals.
    """
    found, length = [], min(num_steps, greatest)
    if length < min(2 * coarsening, num_steps):
        raise ValueError(
            f"longest must be at least two intervals, 2 * {coarsening} steps, got {greatest}"
        )
    while length >= 2 * coarsening:
        found.append(length)
        length //= 2
    return found or [num_steps]


@dataclass(eq=False)
class SolveCalibration:
    """Measures solves of a model.

    Parameters
    ----------
    propagator : Propagator
        The model.
    grid : TimeGrid
        The whole grid; shorter ones are its begin.
    initial_value : array_like
        As in `MGRIT.solve`.
    options : MGRITOptions
        How it iterates.
    """

    propagator: Propagator
    grid: TimeGrid
    initial_value: State
    options: MGRITOptions

    def measure(self, lengths: Sequence[int], repeats: int = 3) -> Costs:
        """Return the costs without messages; not collective, on one process."""
        samples, overheads = WorkSamples(), []
        for length in lengths:
            grid = TimeGrid(self.grid.times[: length + 1])
            solver = MGRIT(self.propagator, grid, fixed(self.options))
            samples.watch_driver(solver.driver, "forward")
            for watched in (True, False):  # with and without a timer around each operation
                for repeat in range(repeats + 1):
                    samples.is_kept = repeat > 0
                    samples.begin()
                    result = solver.solve(self.initial_value, on_visit=_look if watched else None)
                    phases = result.phases
                    spent = sum(phases.values()) - phases["start"] - phases["rest"]
                    if watched and repeat:
                        overheads.append((spent - samples.total) / max(samples.count, 1))
                        samples.add(("forward", "start", 0), grid.num_steps + 2, phases["start"])
                        samples.add(("forward", "rest", -1), 1, phases["rest"])
        return Costs(_NOBODY, samples.tables(), max(statistics.median(overheads), 0.0))


def _look(visit: Any) -> None:
    """Do nothing; a callback prevents the replay of cycles."""


@dataclass(eq=False)
class TrainingCalibration:
    """Measures steps of training a network.

    Parameters
    ----------
    network : Network
        One stack of layers in one direction.
    forward, backward : MGRITOptions
        How both problems are solved.
    batch : int
        Sequences of a step.
    update : callable, optional
        Called with the gradient, as the optimizer's update.
    """

    network: Network
    forward: MGRITOptions
    backward: MGRITOptions
    batch: int
    update: Callable[[NDArray[Any]], object] = lambda gradient: None

    def measure(self, lengths: Sequence[int], repeats: int = 3) -> Costs:
        """Return the costs without messages; not collective, on one process."""
        samples, overheads = WorkSamples(), []
        for length in lengths:
            step = _Step(self, length, samples)
            for repeat in range(repeats + 1):
                samples.is_kept = repeat > 0
                overhead = step.run()
                if repeat:
                    overheads.append(overhead)
        return Costs(_NOBODY, samples.tables(), max(statistics.median(overheads), 0.0))


class _Step:
    """A step of training whose parts are timed."""

    def __init__(self, calibration: TrainingCalibration, length: int, samples: WorkSamples) -> None:
        network, self.samples, self.length = calibration.network, samples, length
        forward, backward = fixed(calibration.forward), fixed(calibration.backward)
        self.update = calibration.update
        self.solver = NetworkSolver(network, length, forward, backward, SerialCommunicator())
        rng, a = np.random.default_rng(0), network.architecture
        shape = (calibration.batch, length, a.num_features)
        self.x = rng.standard_normal(shape).astype(network.parameters.dtype)
        self.y = rng.integers(a.num_outputs, size=calibration.batch)
        self._watch()

    def _watch(self) -> None:
        """Time what the solvers do, and what is done around them."""
        samples, sweep = self.samples, self.solver.layer_solvers[0]
        adjoint = sweep.backward
        last = sweep.forward.options.max_iterations - 1
        samples.watch_driver(sweep.forward.driver, "forward", recording=last)
        samples.watch_driver(adjoint.solver.driver, "adjoint")

        model, length = adjoint.propagator, self.length
        samples.watch(sweep, "bind", lambda *_, **__: (("", "bind", 0), sweep.num_inputs, 1))
        samples.watch(
            model, "_linearize",
            lambda level, u: (
                ("adjoint", "linearize", level.index), level.num_slots - level.targets.start, 1
            ),
        )  # fmt: skip
        samples.watch(model, "gradient", lambda w, level: (("adjoint", "gradient", 0), length, 1))
        self.solved: dict[str, Any] = {}
        _keep(self.solved, "forward", sweep.forward, "solve")
        _keep(self.solved, "adjoint", adjoint.solver, "solve")
        _keep(self.solved, "both", adjoint, "solve")

    def run(self) -> float:
        """Do a step; return the seconds that the solvers took around each piece of work."""
        samples = self.samples
        samples.begin()
        begin = time.perf_counter()
        got = self.solver.loss_and_gradient(self.x, self.y)
        self.update(got.gradient)
        total = time.perf_counter() - begin
        in_phases = 0.0
        for solve in ("forward", "adjoint"):
            phases = self.solved[solve][0].phases
            samples.add((solve, "start", 0), self.length + 2, phases["start"])
            samples.add((solve, "rest", -1), 1, phases["rest"])
            in_phases += sum(phases.values()) - phases["start"] - phases["rest"]
        bound, linearized, differentiated = (
            samples.spent.get(key, 0.0)
            for key in (("", "bind"), ("adjoint", "linearize"), ("adjoint", "gradient"))
        )
        forward, adjoint, both = (self.solved[name][1] for name in ("forward", "adjoint", "both"))
        around = both - adjoint - linearized - differentiated
        samples.add(("adjoint", "turn", -1), self.length + 1, max(around, 0.0))
        samples.add(("", "update", -1), 1, max(total - forward - both - bound, 0.0))
        samples.add(("", "head", -1), 1, 0.0)
        in_drivers = samples.total - bound - linearized - differentiated
        return (in_phases - in_drivers) / max(samples.count, 1)


def _keep(found: dict[str, Any], name: str, owner: Any, method: str) -> None:
    """Let a method leave its latest result and its seconds under a name."""
    original = getattr(owner, method)

    def kept(*arguments: Any, **more: Any) -> Any:
        begin = time.perf_counter()
        result = original(*arguments, **more)
        found[name] = result, time.perf_counter() - begin
        return result

    setattr(owner, method, kept)
