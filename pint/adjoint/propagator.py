"""The adjoint problem as a propagator on the reversed time grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.arrays import in_library_of
from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level, wait
from pint.grid.slots import shifted
from pint.mgrit.at_mgrit import bring
from pint.propagator import CoarsensSpace, Linearization, Propagator, State, Step, Wrapper, has


class AdjointPropagator(Wrapper):
    """Steps adjoint states along the reversed grid, linearised at the states of a forward solve.

    Point j of the reversed grid is point N - j of the forward grid. On level l, the step is the
    transpose of the coarse step Phi_l that covers the same finest steps, at the forward state
    where that step starts.

    Parameters
    ----------
    propagator : Propagator
        The forward model, with `adjoint_step`.
    times : ndarray of float64, shape (N + 1,)
        Forward times.
    """

    def __init__(self, propagator: Propagator, times: NDArray[np.float64]) -> None:
        super().__init__(propagator)
        self.propagator = propagator
        self.prefer_chain = propagator.prefer_chain
        self.times = times
        self.num_steps = times.size - 1
        self._linearized: list[_LinearizedLevel] = []
        self._is_serial = False
        self._on_the_way: NDArray[Any] | None = None

    def forward_step(self, step: Step) -> Step:
        """Return the forward step that covers the same finest steps as a reversed one."""
        first, last = self.num_steps + 1 - step.last, self.num_steps + 1 - step.first
        start, stop = self.times[first - 1], self.times[last]
        if np.ndim(first) == 0:
            start, stop = float(start), float(stop)
        return Step(step.level, start, stop, first, last)

    def at_levels(
        self, hierarchy: Hierarchy, driver: Driver, u: State
    ) -> list[tuple[Level, State]]:
        """Return each level with the forward states at this rank's points of it; collective.

        Parameters
        ----------
        hierarchy : Hierarchy
            The levels of the reversed problem.
        driver : Driver
            Restricts states in space.
        u : array, shape (number of own reversed points, ...state_shape)
            Forward states at this rank's points of the reversed grid, in reversed order.
        """
        levels, found = hierarchy.levels, []
        for level in levels:
            if level.index > 0:
                above = levels[level.index - 1]
                u = u[shifted(above.c_points, -1)]
                if has(self.propagator, CoarsensSpace) and u.shape[0]:
                    u = driver.restrict(u, level.index - 1)
            if level is levels[-1]:
                level, u = hierarchy.coarsest, _at_coarsest(hierarchy, u)
            found.append((level, u))
        return found

    def linearize_at(self, levels: list[tuple[Level, State]]) -> None:
        """Linearise every step that this rank takes on any level.

        Parameters
        ----------
        levels : list of (Level, array)
            All levels of the reversed problem, see `at_levels`.
        """
        self._is_serial, self._on_the_way, self._linearized = len(levels) == 1, None, []
        for level, u in levels:
            self._linearized.append(self._linearize(level, u))

    def _linearize(self, level: Level, u: State) -> _LinearizedLevel:
        targets = level.targets
        begin = targets.start - 1 + level.block.start
        u = u[targets.start - 1 :]
        if u.shape[0] == 0:
            return _LinearizedLevel(begin, u, None)
        steps = self.forward_step(level.steps(targets))
        tape = self.propagator.linearize(u, steps) if self.batched else None
        return _LinearizedLevel(begin, u, tape)

    def step(self, u: State, step: Step) -> State:
        """Return (dPhi/du)^T of an adjoint state, or of a stack of them."""
        here = self._linearized[step.level]
        rows = here.rows(step)
        if here.tape is not None:
            return here.tape.adjoint(u, rows)
        return self.propagator.adjoint_step(u, here.u[rows, ...], self.forward_step(step))

    def step_into(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a step, or a stack of steps, as `Propagator.step_into` says."""
        here = self._linearized[step.level]
        if here.tape is None:
            super().step_into(u, step, g, out)
            return
        new = here.tape.adjoint(u, here.rows(step))
        out[...] = new if g is None else new + g

    def chain(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a stack of steps one after another, as `Propagator.chain` says."""
        here = self._linearized[step.level]
        if here.tape is None:
            super().chain(u, step, g, out)
        else:
            total = here.tape.adjoint_chain(u, here.rows(step), g, out)
            if self._is_serial:  # else the states may change afterwards
                self._on_the_way = total

    def diagonal(self, u: State, step: Step) -> State:
        """Return the diagonal of (dPhi/du)^T, or of dPhi/du, for a step or a stack."""
        here = self._linearized[step.level]
        rows = here.rows(step)
        if here.tape is not None:
            return here.tape.diagonal(rows)
        return self.propagator.diagonal(here.u[rows, ...], self.forward_step(step))

    def gradient(self, w: State, level: Level) -> NDArray[Any]:
        """Return the sum of (dPhi/dtheta)^T w over this rank's finest steps.

        Parameters
        ----------
        w : array, shape (number of own reversed points + 1, ...state_shape)
            Adjoint states, the ghost included; without it where there is none.
        level : Level
            The finest level of the reversed problem.
        """
        if self._on_the_way is not None:
            return self._on_the_way
        here = self._linearized[0]
        count = here.u.shape[0]
        starts = w[w.shape[0] - 1 - count : w.shape[0] - 1]
        if here.tape is not None:
            return here.tape.gradient(starts)
        parameters = self.propagator.parameters
        if parameters is None:
            return np.zeros(0, dtype=np.asarray(here.u[:0]).dtype)
        total = np.zeros_like(parameters)
        for row in range(count):
            step = self.forward_step(level.grid.steps(here.begin + row))
            total += self.propagator.adjoint_gradient(starts[row, ...], here.u[row, ...], step)
        return total

    def release(self) -> None:
        """Forget the linearisations."""
        for level in self._linearized:
            if level.tape is not None:
                level.tape.release()
        self._linearized, self._on_the_way = [], None


@dataclass(eq=False)
class _LinearizedLevel:
    """Forward states (and, if batched, a tape) for the steps to points begin, begin + 1, ..."""

    begin: int
    u: State
    tape: Linearization | None

    def rows(self, step: Step) -> Any:
        """Return which rows belong to a step, or to a stack whose points are evenly spaced."""
        if np.ndim(step.last) == 0:
            return step.last // step.num_fine - self.begin
        last: Any = step.last
        num_fine = int(step.num_fine[0])
        first_row = int(last[0]) // num_fine - self.begin
        spacing = int(last[1] - last[0]) // num_fine if last.size > 1 else 1
        return slice(first_row, first_row + (last.size - 1) * spacing + 1, spacing)


def _at_coarsest(hierarchy: Hierarchy, u: State) -> State:
    """Return the states at the points of `Hierarchy.coarsest`, given those at the own points."""
    own, length = hierarchy.levels[-1], hierarchy.options.local_points
    if not hierarchy.gathers_coarsest:
        return u
    if length is None:
        rows = np.diff(own.layout.bounds)
        everything = hierarchy.comm.allgather_blocks(np.ascontiguousarray(u), rows)
        return in_library_of(u, everything)
    num_points = len(hierarchy.coarsest.block)
    local = array_api_compat.array_namespace(u).empty((num_points, *u.shape[1:]), dtype=u.dtype)
    wait(*bring(own, length - 1, u, local))
    return local
