"""Time points, how a grid is coarsened and reversed. Index arithmetic only."""

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

    def __post_init__(self) -> None:
        times = np.array(self.times, dtype=np.float64)  # a copy: who gave it may change it
        object.__setattr__(self, "times", times)
        _check_times(times)

    @classmethod
    def _of(cls, times: NDArray[np.float64], num_fine: int, level: int) -> TimeGrid:
        """Return the grid of times that come from a validated one, without a copy."""
        grid = object.__new__(cls)
        for name, value in (("times", times), ("num_fine", num_fine), ("level", level)):
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
        return np.arange(self.times.size) * self.num_fine

    def coarsen(self, m: int) -> TimeGrid:
        """Return the grid of every m-th point, with N // m steps."""
        kept = self.times[: self.num_steps // m * m + 1 : m]
        # Contiguous, so that a sweep on a coarse level reads no more than it needs.
        return TimeGrid._of(np.ascontiguousarray(kept), self.num_fine * m, self.level + 1)

    def reversed(self) -> TimeGrid:
        """Return the grid run backwards, t -> t_0 + t_N - t; on finest grids only."""
        # Rounding may join points of a valid grid, so the reversed times are not validated again.
        times = self.times[0] + self.times[-1] - self.times[::-1]
        return TimeGrid._of(times, 1, 0)

    def steps(self, index: Any) -> Step:
        """Return the step that ends at point `index`, or a stack of them.

        Parameters
        ----------
        index : int or slice
            End points, each in 1..N of this level.

        Returns
        -------
        Step
            Scalars (plain float and int) for an int, arrays for a slice.
        """
        if isinstance(index, slice):
            before = slice(index.start - 1, index.stop - 1, index.step)
            last = np.arange(index.start, index.stop, index.step or 1) * self.num_fine
            first = last - (self.num_fine - 1)
            return Step(self.level, self.times[before], self.times[index], first, last)
        start, stop = self.times[index - 1 : index + 1].tolist()
        last_step = index * self.num_fine
        return Step(self.level, start, stop, last_step - self.num_fine + 1, last_step)


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
