"""The driver that calls the model once for all intervals."""

from __future__ import annotations

from typing import Any

from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.grid.slots import Slots, shifted, slots_of
from pint.propagator import State, Step

FEW_INTERVALS = 16
"""Greatest number of intervals for which consecutive fast chains take less time than stacks."""


class StackDriver(Driver):
    """Calls a batched propagator once for all points that can be done at once."""

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        which = slots_of(starts, level.num_slots)
        # A stack is a call for each step of an interval, a chain one for each interval.
        few = min(length, FEW_INTERVALS) if self.propagator.prefer_chain else 1
        if len(which) <= few:
            for begin in map(int, which):
                self.chain(level, begin, min(length, level.num_slots - 1 - begin))
            return
        for k in range(1, length + 1):
            slots = _within(shifted(starts, k), level.num_slots)
            g = None if level.g is None else level.g[slots]
            before, steps = self._before(level, slots)
            out = level.u[slots]  # a copy where the slots lie anywhere
            if out.shape[0]:
                self.propagator.step_into(before, steps, g, out)
            if not isinstance(slots, slice):
                level.u[slots] = out

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        if length > 0:
            slots = slice(begin + 1, begin + 1 + length, 1)
            g = None if level.g is None else level.g[slots]
            _, steps = self._before(level, slots)
            self.propagator.chain(level.u[begin, ...], steps, g, level.u[slots])

    def relax_all_points(self, level: Level) -> None:  # noqa: D102
        slots, new = level.targets, level.r[level.c_rows]
        if new.shape[0]:
            g = None if level.g is None else level.g[slots]
            self.propagator.step_into(*self._before(level, slots), g, new)
            level.u[slots] = new

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        num = len(slots_of(slots, level.num_slots))
        r = level.r[first_row : first_row + num]
        if num:
            self.propagator.step_into(*self._before(level, slots), None, r)
            r -= level.u[slots]
            if level.g is not None:
                r += level.g[slots]

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        g, slots = coarse.g[coarse.targets], coarse.targets
        if g.shape[0]:
            g += coarse.u[slots]
            g -= self.propagator.step(*self._before(coarse, slots))

    def _before(self, level: Level, slots: Slots) -> tuple[State, Step]:
        """Return the states before the slots, and the stack of steps that leads from them."""
        before = level.u[shifted(slots, -1)]
        self._count(level, before.shape[0])
        if isinstance(slots, slice):
            key: Any = (slots.start, before.shape[0], slots.step)
        else:
            key = slots.tobytes()
        if key not in level.kept_steps:
            level.kept_steps[key] = level.steps(slots)
        return before, level.kept_steps[key]

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.interpolate(u, level)


def _within(slots: Slots, num_slots: int) -> Slots:
    """Return the slots without those behind the end of the block."""
    return slice(slots.start, num_slots, slots.step) if isinstance(slots, slice) else slots
