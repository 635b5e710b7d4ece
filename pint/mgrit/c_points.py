"""Storage of C-points only: a problem whose steps are whole intervals, with F-points on demand.

Every point of this problem is a C-point (factor 1), and level 1 is unchanged. F-points exist
only while an interval is stepped through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.grid.layout import Layout
from pint.grid.timegrid import TimeGrid
from pint.options import Coarsening, MGRITOptions, at_least
from pint.parallel.comm import Communicator
from pint.parallel.once import once
from pint.propagator import HasResidual, Propagator, State, Step, Wrapper, has, kernel_of


class Composed(Wrapper):
    """A model whose step on the finest level is `m` steps of another model.

    Parameters
    ----------
    model : Propagator
        The other model.
    grid : TimeGrid
        Its finest grid; the composed problem has every m-th of its points.
    m : int
        Number of the model's steps in one step.
    """

    passes_on = ("state_shape", "dtype", "norm", "set_outer_residual")

    def __init__(self, model: Propagator, grid: TimeGrid, m: int) -> None:
        super().__init__(model)
        self.grid = grid
        self.m = m
        self.parameters = model.parameters

    @property
    def kernel(self) -> Any:
        """The step, compiled; None where the model has no kernel."""
        inner = kernel_of(self.model)
        return None if inner is None else composed_kernel(inner)

    def kernel_params(self) -> Any:
        """Return the kernel parameters of the model, and the times of all points."""
        return self.model.kernel_params(), self.grid.times

    def step(self, u: State, step: Step) -> State:
        """Return the state behind the interval; on coarser levels the model's step."""
        for one in self._parts(step):
            u = self.model.step(u, one)
        return u

    def tangent_step(self, v: State, u: State, step: Step) -> State:
        """Return the derivative of the step in the direction v."""
        for one in self._parts(step):
            v = self.model.tangent_step(v, u, one)
            u = self.model.step(u, one)
        return v

    def diagonal(self, u: State, step: Step) -> State:
        """Return the product of the diagonals of the steps."""
        product = 1
        for one, before in self._path(u, step):
            product = product * self.model.diagonal(before, one)
        return product

    def adjoint_step(self, w: State, u: State, step: Step) -> State:
        """Return the transposed derivative times w; the inner states are computed again."""
        for one, before in reversed(self._path(u, step)):
            w = self.model.adjoint_step(w, before, one)
        return w

    def adjoint_gradient(self, w: State, u: State, step: Step) -> NDArray[Any]:
        """Return the sum of the gradients of the model's steps."""
        parts = []
        for one, before in reversed(self._path(u, step)):
            parts.append(self.model.adjoint_gradient(w, before, one))
            w = self.model.adjoint_step(w, before, one)
        total: NDArray[Any] = np.sum(parts, axis=0)
        return total

    def refresh(self) -> None:
        """Call the method of the model."""
        self.model.refresh()

    def _parts(self, step: Step) -> list[Step]:
        """Return the model's steps inside a step, each one or a stack."""
        first, last = (step.first - 1) * self.m + 1, step.last * self.m
        if step.level > 0:
            return [Step(step.level, step.start, step.stop, first, last)]
        return [self.grid.steps(first + k) for k in range(self.m)]

    def _path(self, u: State, step: Step) -> list[tuple[Step, State]]:
        """Return these steps, each with the state before it."""
        path = []
        for one in self._parts(step):
            path.append((one, u))
            u = self.model.step(u, one)
        return path


@once
def composed_kernel(kernel: Any) -> Any:
    """Return the kernel of whole intervals, made from the kernel of one step."""
    from numba import njit  # import only where kernels are used

    @njit
    def interval(u: Any, start: Any, stop: Any, level: Any, params: Any, out: Any) -> None:
        inner, times = params
        if level > 0:
            kernel(u, start, stop, level, inner, out)
            return
        state = u.copy()
        i = np.searchsorted(times, start)
        while times[i] < stop:
            kernel(state, times[i], times[i + 1], 0, inner, out)
            state[...] = out
            i += 1

    return interval


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """States at all points, of which C-points are stored and F-points computed on demand.

    Attributes
    ----------
    times : ndarray of float64, shape (N + 1,)
        All time points.
    m : int
        The multiples of m are stored.
    """

    model: Propagator = field(repr=False)
    grid: TimeGrid = field(repr=False)
    m: int
    u: State = field(repr=False)
    layout: Layout = field(repr=False)
    comm: Communicator = field(repr=False)

    @property
    def times(self) -> NDArray[np.float64]:
        """All time points."""
        return self.grid.times

    def blocks(self, num_intervals: int = 1) -> Iterator[tuple[int, State]]:
        """Yield the states at this rank's points, some intervals at a time, in order.

        Parameters
        ----------
        num_intervals : int, default 1
            Number of intervals in memory.

        Yields
        ------
        first : int
            Index of the first point of the block.
        u : array, shape (number of points, ...state_shape)
            States at the points first, first + 1, ...; new. Each point comes once, on one rank.
        """
        at_least("num_intervals", num_intervals, 1)
        own = self.layout.block(self.comm.rank)
        for begin in range(own.start, own.stop, num_intervals):
            c_points = range(begin, min(begin + num_intervals, own.stop))
            stop = min(c_points.stop * self.m, self.times.size)
            rows = slice(begin - own.start, c_points.stop - own.start)
            yield begin * self.m, self._filled(self.u[rows], begin * self.m, stop)

    def state(self, point: int) -> NDArray[Any]:
        """Return the state at a point, shape state_shape, on every rank; new, collective.

        Raises
        ------
        ValueError
            If the point does not exist.
        """
        if not 0 <= point < self.times.size:
            raise ValueError(f"point must be one of 0..{self.times.size - 1}, got {point}")
        c_point = min(point // self.m, self.layout.num_points - 1)
        owner = self.layout.owner(c_point)
        state = np.empty(tuple(self.u.shape[1:]), dtype=np.asarray(self.u[:0]).dtype)
        if self.comm.rank == owner:
            row = c_point - self.layout.block(owner).start
            states = self._filled(self.u[row : row + 1], c_point * self.m, point + 1)
            state[...] = np.asarray(states[-1, ...])
        return self.comm.bcast(state, owner)

    def _filled(self, c_states: State, first: int, stop: int) -> State:
        """Return the states at first, ..., stop - 1 from every m-th state."""
        xp = array_api_compat.array_namespace(c_states)
        u = xp.empty((stop - first, *c_states.shape[1:]), dtype=c_states.dtype)
        u[:: self.m] = c_states
        for k in range(1, self.m):
            rows = np.arange(k, stop - first, self.m)
            if rows.size == 0:
                break
            if self.model.batched:
                u[k :: self.m] = self.model.step(
                    u[k - 1 : -1 : self.m], self.grid.steps(rows + first)
                )
            else:
                for row in rows.tolist():
                    u[row, ...] = self.model.step(u[row - 1, ...], self.grid.steps(row + first))
        return u


def on_c_points(
    model: Propagator, grid: TimeGrid, options: MGRITOptions
) -> tuple[Composed, TimeGrid, MGRITOptions]:
    """Return the composed problem: its model, the grid of the C-points, and options.

    Raises
    ------
    ValueError
        If the options or the model do not allow it.
    """
    factors = options.factors(grid.num_steps)
    if not factors:
        raise ValueError("storage 'c_points' needs a second level: increase levels or the grid")
    m = factors[0]
    if not isinstance(m, int):
        raise ValueError("storage 'c_points' needs a coarsening factor, not indices of C-points")
    if has(model, HasResidual):
        raise ValueError(
            f"storage 'c_points' needs a model whose steps follow one another, and "
            f"{type(model).__name__} has a residual of its own"
        )
    given = options.coarsening if isinstance(options.coarsening, tuple) else (options.coarsening,)
    coarser: tuple[Coarsening, ...] = given[1:] or given[-1:]
    kept = TimeGrid(grid.times[::m])
    return Composed(model, grid, m), kept, replace(options, storage="all", coarsening=(1, *coarser))
