"""Time points of a level, their coarsening and reversal. Index arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pint.options import at_least
from pint.propagator import Step


@dataclass(frozen=True, eq=False)
class TimeGrid:
    """The points t_0 < t_1 < ... < t_N of one level.

    Parameters
    ----------
    times : array_like of float64, shape (N + 1,)
        Strictly increasing times.
    num_fine : int, default 1
        Number of steps of the finest grid that a step covers.
    level : int, default 0
        Level of the grid.
    fine : ndarray of int64, shape (N + 1,), optional
        Index of each point on the finest grid, where steps cover different numbers of its steps;
        `num_fine` is then unused.

    Raises
    ------
    ValueError
        If there are fewer than two points, or times are not finite and strictly increasing.

    Examples
    --------
    >>> grid = TimeGrid.uniform(0.0, 5.0, 10)
    >>> grid.coarsen(4).times
    array([0., 2., 4.])
    """

    times: NDArray[np.float64]
    num_fine: int = 1
    level: int = 0
    fine: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        times = np.array(self.times, dtype=np.float64)  # a copy: the caller may change its array
        object.__setattr__(self, "times", times)
        _check_times(times)

    @classmethod
    def _of(
        cls,
        times: NDArray[np.float64],
        num_fine: int,
        level: int,
        fine: NDArray[np.int64] | None = None,
    ) -> TimeGrid:
        """Return the grid of times from a validated grid, without a copy."""
        grid = object.__new__(cls)
        fields = {"times": times, "num_fine": num_fine, "level": level, "fine": fine}
        for name, value in fields.items():
            object.__setattr__(grid, name, value)
        return grid

    @classmethod
    def uniform(cls, start: float, stop: float, num_steps: int) -> TimeGrid:
        """Return t_i = start + (i / N) (stop - start) for i = 0..N, N = `num_steps`."""
        at_least("num_steps", num_steps, 1)
        if not (np.isfinite([start, stop]).all() and stop > start):
            raise ValueError(f"stop must be later than start, got start={start}, stop={stop}")
        times = np.arange(num_steps + 1, dtype=np.float64)
        times /= num_steps
        times *= stop - start
        times += start
        _check_times(times)
        return cls._of(times, 1, 0)

    @property
    def num_steps(self) -> int:
        """Number of steps N."""
        return self.times.size - 1

    @property
    def fine_index(self) -> NDArray[np.int64]:
        """Index of each point on the finest grid, shape (N + 1,); new."""
        return self._fine_at(np.arange(self.times.size)).copy()

    def _fine_at(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices on the finest grid of points of this grid."""
        return points * self.num_fine if self.fine is None else self.fine[points]

    def coarsen(self, m: int | NDArray[np.int64]) -> TimeGrid:
        """Return the grid of every m-th point, with N // m steps, or of the points m."""
        if isinstance(m, np.ndarray):
            return TimeGrid._of(self.times[m], 0, self.level + 1, self._fine_at(m))
        kept = slice(None, self.num_steps // m * m + 1, m)
        fine = None if self.fine is None else self.fine[kept].copy()
        # Contiguous, so that a sweep on a coarse level reads no more than it needs.
        times = np.ascontiguousarray(self.times[kept])
        return TimeGrid._of(times, self.num_fine * m, self.level + 1, fine)

    def after(self, point: int) -> TimeGrid:
        """Return the grid from a point on; steps cover unchanged finest steps."""
        return TimeGrid._of(self.times[point:], 0, self.level, self.fine_index[point:])

    def reversed(self) -> TimeGrid:
        """Return the reversed grid, t -> t_0 + t_N - t; on finest grids only."""
        # Rounding may join points of a valid grid: do not validate the reversed times again.
        times = self.times[0] + self.times[-1] - self.times[::-1]
        return TimeGrid._of(times, 1, 0)

    def steps(self, index: Any) -> Step:
        """Return the step that ends at point `index`, or a stack of them.

        Parameters
        ----------
        index : int, slice, or ndarray of int64
            End points, each in 1..N of this level.

        Returns
        -------
        Step
            Scalars (plain float and int) for an int, arrays for a slice or an array.
        """
        if isinstance(index, slice):
            before: Any = slice(index.start - 1, index.stop - 1, index.step)
            points = np.arange(index.start, index.stop, index.step or 1)
        elif isinstance(index, np.ndarray):
            before, points = index - 1, index
        else:
            stack = self.steps(slice(index, index + 1, 1))
            start, stop, first, last = (np.asarray(field).item() for field in stack[1:])
            return Step(self.level, start, stop, first, last)
        begins, ends = self._fine_at(points - 1) + 1, self._fine_at(points)
        return Step(self.level, self.times[before], self.times[index], begins, ends)


def as_grid(times: TimeGrid | ArrayLike) -> TimeGrid:
    """Return `times` as a grid."""
    return times if isinstance(times, TimeGrid) else TimeGrid(np.asarray(times, dtype=np.float64))


def _check_times(times: NDArray[np.float64]) -> None:
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"a time grid needs at least 2 points in 1 dimension, got {times.shape}")
    if not np.isfinite(times).all():
        raise ValueError(f"time {np.flatnonzero(~np.isfinite(times))[0]} is not finite")
    if not (np.diff(times) > 0).all():
        i = int(np.flatnonzero(np.diff(times) <= 0)[0])
        raise ValueError(
            f"times must increase: point {i} is at {times[i]}, point {i + 1} at {times[i + 1]}"
        )
