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
    fine_index : ndarray of int64, shape (N + 1,), optional
        Index of each point on the finest grid; 0..N if left out.
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
    fine_index: NDArray[np.int64] | None = None
    level: int = 0

    def __post_init__(self) -> None:
        times = np.asarray(self.times, dtype=np.float64)
        if self.fine_index is None:
            times = times.copy()  # who gave it may change it
        object.__setattr__(self, "times", times)
        if self.fine_index is None:  # a coarsened grid comes from one that was validated
            _check_times(times)
            object.__setattr__(self, "fine_index", np.arange(times.size))

    @classmethod
    def uniform(cls, start: float, stop: float, num_steps: int) -> TimeGrid:
        """Return t_i = start + (i / N) (stop - start) for i = 0..N, N = `num_steps`."""
        at_least("num_steps", num_steps, 1)
        if not (np.isfinite([start, stop]).all() and stop > start):
            raise ValueError(f"stop must be later than start, got start={start}, stop={stop}")
        return cls(start + np.arange(num_steps + 1) / num_steps * (stop - start))

    @property
    def num_steps(self) -> int:
        """Number of steps N."""
        return self.times.size - 1

    def coarsen(self, m: int) -> TimeGrid:
        """Return the grid of every m-th point, with N // m steps; views, nothing is copied."""
        kept = slice(0, self.num_steps // m * m + 1, m)
        assert self.fine_index is not None
        return TimeGrid(self.times[kept], self.fine_index[kept], self.level + 1)

    def reversed(self) -> TimeGrid:
        """Return the grid run backwards, t -> t_0 + t_N - t; on finest grids only."""
        # Rounding may join points of a valid grid, so the reversed times are not validated again.
        times = self.times[0] + self.times[-1] - self.times[::-1]
        return TimeGrid(times, np.arange(times.size))

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
        assert self.fine_index is not None
        if isinstance(index, slice):
            before = slice(index.start - 1, index.stop - 1, index.step)
            return Step(
                self.level,
                self.times[before],
                self.times[index],
                self.fine_index[before] + 1,
                self.fine_index[index],
            )
        start, stop = self.times[index - 1 : index + 1].tolist()
        first, last = self.fine_index[index - 1 : index + 1].tolist()
        return Step(self.level, start, stop, first + 1, last)


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
