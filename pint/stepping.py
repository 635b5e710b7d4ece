"""How a propagator is driven: one point at a time, or a stack of points in one call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from pint.options import MGRITOptions
from pint.propagator import Propagator, State, Step

if TYPE_CHECKING:
    from pint.mgrit.hierarchy import Level


class Driver(ABC):
    """Evaluates Phi on the points of a level. Points are given as slots of `Level.u`.

    Parameters
    ----------
    propagator : Propagator
        The model.
    """

    def __init__(self, propagator: Propagator) -> None:
        self.propagator = propagator
        self.num_steps: dict[int, int] = {}

    @abstractmethod
    def phi(self, u: State, step: Step) -> State:
        """Return Phi of a stack of states, shape (n, ...); a new array."""

    @abstractmethod
    def restrict(self, u: State, level: int) -> State:
        """Restrict a stack of states in space."""

    @abstractmethod
    def interpolate(self, u: State, level: int) -> State:
        """Interpolate a stack of states in space."""

    def evaluate(self, level: Level, slots: slice) -> State:
        """Return Phi(u_{i-1}) for the points i in `slots`."""
        before = level.u[slots.start - 1 : slots.stop - 1 : slots.step]
        n = before.shape[0]
        if n == 0:
            return before
        self._count(level, n)
        return self.phi(before, level.steps(slots))

    def _count(self, level: Level, n: int) -> None:
        self.num_steps[level.index] = self.num_steps.get(level.index, 0) + n

    def update(self, level: Level, slots: slice) -> None:
        """Set u_i = Phi(u_{i-1}) + g_i for the points i in `slots`, all at once."""
        new = self.evaluate(level, slots)
        level.u[slots] = new if level.g is None else new + level.g[slots]

    def chain(self, level: Level, slots: range) -> None:
        """Set u_i = Phi(u_{i-1}) + g_i for the points i in `slots`, one after another."""
        for slot in slots:
            self.update(level, slice(slot, slot + 1, 1))


class LoopDriver(Driver):
    """Calls the propagator once per point: the honest default for a user's own code."""

    def phi(self, u: State, step: Step) -> State:
        """Return Phi of a stack of states, one call for each."""
        out = array_api_compat.array_namespace(u).empty_like(u)
        singles = zip(*(np.asarray(field).tolist() for field in step[1:]), strict=True)
        for i, fields in enumerate(singles):
            out[i, ...] = self._one(u[i, ...], Step(step.level, *fields))
        return out

    def _one(self, u: State, step: Step) -> State:
        return self.propagator.step(u, step)

    def restrict(self, u: State, level: int) -> State:
        """Restrict a stack of states, one call for each."""
        return _stacked(self.propagator.restrict, u, level)

    def interpolate(self, u: State, level: int) -> State:
        """Interpolate a stack of states, one call for each."""
        return _stacked(self.propagator.interpolate, u, level)


class StackDriver(Driver):
    """Calls a batched propagator once for all points that can be done at once."""

    def chain(self, level: Level, slots: range) -> None:
        """Set u_i = Phi(u_{i-1}) + g_i for the points i in `slots`, one after another."""
        if not slots:
            return
        self._count(level, len(slots))
        points = slice(slots.start, slots.stop, 1)
        g = None if level.g is None else level.g[points]
        before = level.u[slots.start - 1, ...]
        self.propagator.chain(before, level.steps(points), g, level.u[points])

    def phi(self, u: State, step: Step) -> State:
        """Return Phi of a stack of states in one call."""
        return self.propagator.step(u, step)

    def restrict(self, u: State, level: int) -> State:
        """Restrict a stack of states in one call."""
        return self.propagator.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:
        """Interpolate a stack of states in one call."""
        return self.propagator.interpolate(u, level)


class SingleStackDriver(StackDriver):
    """Calls a batched propagator with stacks of one: the same bits on any number of ranks."""

    chain = Driver.chain

    def phi(self, u: State, step: Step) -> State:
        """Return Phi of a stack of states, one call for each."""
        out = array_api_compat.array_namespace(u).empty_like(u)
        for i in range(u.shape[0]):
            row = slice(i, i + 1)
            out[row, ...] = self.propagator.step(u[row, ...], step.at(row))
        return out


def make_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return the driver that the options ask for.

    Raises
    ------
    ValueError
        If a stack driver is asked of a propagator that is not batched.
    """
    if options.driver == "stack" and not propagator.batched:
        raise ValueError(
            f"driver 'stack' needs a batched propagator, and {type(propagator).__name__} is not: "
            "set batched = True and let step take stacks, or use driver 'loop'"
        )
    if not propagator.batched:
        return LoopDriver(propagator)
    return SingleStackDriver(propagator) if options.driver == "loop" else StackDriver(propagator)


def _stacked(transfer: Any, u: State, level: int) -> State:
    xp = array_api_compat.array_namespace(u)
    return xp.stack([transfer(u[i, ...], level) for i in range(u.shape[0])])
