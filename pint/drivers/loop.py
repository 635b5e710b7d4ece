"""Drivers that call the model once for each point."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.grid.slots import Slots, shifted, slots_of
from pint.propagator import State, Step


class LoopDriver(Driver):
    """Calls the propagator once per point: the honest default for a user's own code."""

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        for k in range(1, length + 1):
            self._update(level, slots_of(shifted(starts, k), level.num_slots))

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        self._update(level, range(begin + 1, begin + 1 + length))

    def _update(self, level: Level, slots: range | NDArray[np.int64]) -> None:
        u, g = level.u, level.g
        for slot, new in self._evaluate(level, slots):
            u[slot, ...] = new if g is None else new + g[slot, ...]

    def relax_all_points(self, level: Level) -> None:  # noqa: D102
        for slot in reversed(slots_of(level.c_steps, level.num_slots)):
            self._update(level, range(slot, slot + 1))

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        u, g, r = level.u, level.g, level.r
        evaluated = self._evaluate(level, slots_of(slots, level.num_slots))
        for row, (slot, new) in enumerate(evaluated, first_row):
            r[row, ...] = new - u[slot, ...]
            if g is not None:
                r[row, ...] += g[slot, ...]

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        u, g = coarse.u, coarse.g
        for slot, new in self._evaluate(coarse, range(coarse.targets.start, coarse.num_slots)):
            g[slot, ...] = (g[slot, ...] + u[slot, ...]) - new

    def _evaluate(
        self, level: Level, slots: range | NDArray[np.int64]
    ) -> Iterator[tuple[int, State]]:
        """Yield each slot with Phi of the state before it, evaluated when its turn comes."""
        self._count(level, len(slots))
        u, phi = level.u, self._phi
        for slot, step in zip(slots, level.single_steps(slots), strict=True):
            yield slot, phi(u, slot - 1, step)

    def _phi(self, u: State, slot: int, step: Step) -> State:
        return self.propagator.step(u[slot, ...], step)

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return _stacked(self.propagator.restrict, u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return _stacked(self.propagator.interpolate, u, level)


class SingleStackDriver(LoopDriver):
    """Calls a batched propagator with stacks of one: the same bits on any number of ranks."""

    def _phi(self, u: State, slot: int, step: Step) -> State:
        stack = Step(step.level, *(np.array([field]) for field in step[1:]))
        return self.propagator.step(u[slot : slot + 1, ...], stack)[0, ...]

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.interpolate(u, level)


def _stacked(transfer: Callable[[State, int], State], u: State, level: int) -> State:
    """Apply a transfer to each state; the stack itself where it returns what it is given."""
    if u.shape[0] == 0:
        return u
    state = u[0, ...]
    first = transfer(state, level)
    if first is state:
        return u
    rest = [transfer(u[i, ...], level) for i in range(1, u.shape[0])]
    return array_api_compat.array_namespace(u).stack([first, *rest])
