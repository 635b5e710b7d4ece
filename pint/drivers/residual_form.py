"""The driver of propagators that give their equation A(u_i, u_{i-1}) = g_i themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pint.drivers.driver import Driver
from pint.drivers.loop import LoopDriver
from pint.drivers.stack import StackDriver
from pint.grid.level import Level
from pint.grid.slots import Slots, shifted, slots_of
from pint.propagator import Propagator, State, Step


class ResidualFormDriver(Driver):
    """Calls `solve_step` in place of `step`, and `residual` for residuals.

    Parameters
    ----------
    propagator : Propagator
        The model, with both methods.
    stacks : bool
        Whether all slots that can be done at once are one call; else every slot is one.
    blas_threads : int, optional
        What the BLAS library is limited to during a solve.
    """

    def __init__(
        self, propagator: Propagator, stacks: bool, blas_threads: int | None = None
    ) -> None:
        super().__init__(propagator, blas_threads)
        self.stacks = stacks
        self._transfer = (StackDriver if propagator.batched else LoopDriver)(propagator)

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        for k in range(1, length + 1):
            self._step_to(level, shifted(starts, k))

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        for slot in range(begin + 1, begin + 1 + length):
            self._step_to(level, slice(slot, slot + 1, 1))

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        row = first_row
        for part in self._parts(level, slots):
            new = self._defect(level, part)
            r = level.r[row : row + len(part)]
            r[...] = -new if level.g is None else level.g[part] - new
            row += len(part)

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        for part in self._parts(coarse, coarse.targets):
            coarse.g[part] += self._defect(coarse, part)

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return self._transfer.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return self._transfer.interpolate(u, level)

    def _parts(self, level: Level, slots: Slots) -> Iterator[NDArray[np.int64]]:
        """Yield slots that are treated in one call."""
        which = np.asarray(slots_of(slots, level.num_slots), dtype=np.int64)
        if which.size:
            yield from [which] if self.stacks else which[:, None]

    def _step_to(self, level: Level, slots: Slots) -> None:
        """Set u_i so that A(u_i, u_{i-1}) = g_i."""
        for part in self._parts(level, slots):
            u, step = self._arguments(level, part)
            g = None if level.g is None else self._one_or_all(level.g[part])
            new = self.propagator.solve_step(u, step, g, self._one_or_all(level.u[part]))
            level.u[part] = new if self.propagator.batched else new[None, ...]

    def _defect(self, level: Level, part: NDArray[np.int64]) -> State:
        """Return A(u_i, u_{i-1}), a stack."""
        u, step = self._arguments(level, part)
        new = self.propagator.residual(self._one_or_all(level.u[part]), u, step)
        return new if self.propagator.batched else new[None, ...]

    def _arguments(self, level: Level, part: NDArray[np.int64]) -> tuple[State, Step]:
        """Return the states before the slots, and their steps, as the propagator takes them."""
        self._count(level, part.size)
        step = level.steps(part)
        if not self.propagator.batched:
            start, stop, first, last = (np.asarray(field).item() for field in step[1:])
            step = Step(step.level, start, stop, first, last)
        return self._one_or_all(level.u[part - 1]), step

    def _one_or_all(self, stack: State) -> State:
        return stack if self.propagator.batched else stack[0, ...]
