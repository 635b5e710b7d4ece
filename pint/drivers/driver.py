"""How a propagator is driven: one point at a time, a stack of points, or compiled sweeps.

A driver does the arithmetic of a level, for all points of this rank. It is independent of
cycles and messages. Points are given as slots of `Level.u`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level
from pint.grid.slots import Slots
from pint.parallel.exact_sum import integer_digits, squared_norms
from pint.propagator import HasNorm, Propagator, State, has


class StepCorrection(Protocol):
    """What corrects the coarse steps of a driver at each iterate."""

    def attach(self, hierarchy: Hierarchy) -> None:
        """Start a solve on these levels."""

    def linearize(self, level: Level, coarse: Level) -> None:
        """Set the corrections of the coarse steps; both levels hold the iterate. Collective."""

    def lyapunov(self) -> Any:
        """Return the Lyapunov vectors of the last cycle, None without any; collective."""


class Driver(ABC):
    """Does the arithmetic of the levels with the steps of a propagator.

    Parameters
    ----------
    propagator : Propagator
        The model.

    Attributes
    ----------
    model : Propagator
        The user's propagator; `propagator` unless that corrects its steps.
    correction : StepCorrection or None
        Corrects the coarse steps; None: they are not corrected.
    iteration : int
        Number of the cycle under way, from 0.
    num_steps : dict of int to int
        Evaluations of Phi in this solve, by level.
    blas_threads : int or None
        What the BLAS library is limited to during a solve; None leaves it alone.
    """

    replays_cycles = False
    """Whether `run_cycle` records a cycle and replays it the next time."""

    def __init__(self, propagator: Propagator, blas_threads: int | None = None) -> None:
        self.propagator = propagator
        self.model = propagator
        self.blas_threads = blas_threads
        self.iteration = 0
        self.num_steps: dict[int, int] = {}
        self.correction: StepCorrection | None = None

    @abstractmethod
    def sweep(self, level: Level, starts: Slots, length: int) -> None:
        """From each of the slots `starts` take `length` steps to the right.

        A step sets u_i = Phi(u_{i-1}) + g_i; the last interval may end with the block.
        """

    @abstractmethod
    def chain(self, level: Level, begin: int, length: int) -> None:
        """From the slot `begin` take `length` steps to the right."""

    @abstractmethod
    def residual(self, level: Level, slots: Slots, first_row: int) -> None:
        """Set consecutive rows of r to Phi(u_{i-1}) - u_i + g_i at these slots."""

    def relax_all_points(self, level: Level) -> None:
        """Set u_i = Phi(u_{i-1}) + g_i at all C-points, which are all points, from old states."""
        self.residual(level, level.c_steps, level.c_rows.start)
        self.add_residual(level)

    def linearize(self, level: Level, coarse: Level) -> None:
        """Correct the coarse steps, where they are corrected, at the iterate."""
        if self.correction is not None:
            self.correction.linearize(level, coarse)

    @abstractmethod
    def coarse_rhs(self, coarse: Level) -> None:
        """Set g_i = g_i + u_i - Phi(u_{i-1}), where g holds the restricted residual."""

    @abstractmethod
    def restrict(self, u: State, level: int) -> State:
        """Restrict a stack of states in space; `u` itself where space stays as it is."""

    @abstractmethod
    def interpolate(self, u: State, level: int) -> State:
        """Interpolate a stack of states in space; `u` itself where space stays as it is."""

    def restrict_state(self, level: Level, coarse: Level) -> None:
        """Set the coarse states to the restricted C-points."""
        coarse.u[coarse.owned] = self.restrict(level.u[level.c_points], level.index)

    def restrict_residual(self, level: Level, coarse: Level) -> None:
        """Set the coarse right-hand side to the restricted residual."""
        r = level.r[coarse.targets]
        if r.shape[0] == 0:
            return
        restricted = self.restrict(r, level.index)
        if not (restricted is r and level.r is coarse.g):
            coarse.g[coarse.targets] = restricted

    def measure(self, level: Level) -> None:
        """Set the squared norms of the residuals at C-points."""
        level.norms[level.c_rows] = self.squares(level.r[level.c_rows])

    def measure_f_points(self, level: Level) -> None:
        """Set the squared norms of the residuals at F-points, some at a time; r is lost."""
        slots, at_once = level.f_points, level.r.shape[0]
        for begin in range(0, slots.size, at_once):
            part = slots[begin : begin + at_once]
            self.residual(level, part, 0)
            level.f_norms[begin : begin + part.size] = self.squares(level.r[: part.size])

    def squares(self, r: State) -> NDArray[np.float64]:
        """Return the squared norms of a stack of residuals."""
        if not has(self.model, HasNorm):
            return squared_norms(r)
        norms = [self.model.norm(r[row, ...]) for row in range(r.shape[0])]
        return np.array(norms, dtype=np.float64) ** 2

    def add_residual(self, level: Level) -> None:
        """Add the residuals to their C-points, times the weight of C-relaxation."""
        level.u[level.c_steps] += level.relax_weight * level.r[level.c_rows]

    def correct(self, level: Level, coarse: Level) -> None:
        """Add the interpolated change of the coarse states to the C-points.

        The C-points are what the coarse states were restricted from, so that no copy of the coarse
        start is kept. The coarse states are lost.
        """
        change = coarse.u[coarse.owned]
        change -= self.restrict(level.u[level.c_points], level.index)
        level.u[level.c_points] += self.interpolate(change, level.index)

    def digits(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the exact sum of numbers >= 0, see `pint.parallel.exact_sum.integer_digits`."""
        return integer_digits(values)

    def compile(self) -> None:  # noqa: B027
        """Compile what will be called, so that no solve waits for it."""

    def attach(self, hierarchy: Hierarchy) -> None:
        """Start a solve on these levels, which have their arrays."""
        self.num_steps = {}
        if self.correction is not None:
            self.correction.attach(hierarchy)

    def reattach(self, hierarchy: Hierarchy) -> None:
        """Continue a solve on other levels."""
        num_steps = self.num_steps
        self.attach(hierarchy)
        self.num_steps = num_steps

    def run_cycle(
        self, name: str, cycle: Callable[[Hierarchy], None], hierarchy: Hierarchy
    ) -> None:
        """Run a cycle. Cycles of one name do the same on the same levels."""
        cycle(hierarchy)

    def _count(self, level: Level, n: int) -> None:
        if n:
            self.num_steps[level.index] = self.num_steps.get(level.index, 0) + n
