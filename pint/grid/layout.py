"""Owners of the points of each level. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from operator import mul
from typing import cast

import numpy as np
from numpy.typing import NDArray

IMBALANCE = 1.1
"""Allowed relative excess of a block over the mean length, for a start at a C-point."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Contiguous blocks of the points 0..N of one level; block p is owned by rank p.

    Parameters
    ----------
    bounds : ndarray of int64, shape (size + 1,)
        Rank p owns the points ``bounds[p] <= i < bounds[p + 1]``; a block may be empty. On a ring,
        where point 0 is point N, the first block begins with point 1.

    Examples
    --------
    >>> layout = Layout.balanced(num_steps=8, size=2, coarsening=(4,))
    >>> layout.block(0), layout.block(1)
    (range(0, 4), range(4, 9))
    >>> layout.coarsen(4).block(1)
    range(1, 3)
    """

    bounds: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", np.asarray(self.bounds, dtype=np.int64))

    @classmethod
    def balanced(
        cls, num_steps: int, size: int, coarsening: Sequence[int | tuple[int, ...]] = ()
    ) -> Layout:
        """Split points 0..N evenly; blocks start at C-points of the coarsest suitable level.

        Parameters
        ----------
        num_steps : int
            N on the finest level.
        size : int
            Number of ranks.
        coarsening : sequence
            Coarsening factor of each level but the last, or the indices of its C-points. Blocks
            ignore C-points that are given by indices, and all levels below.
        """
        factors = takewhile(lambda factor: not isinstance(factor, tuple), coarsening)
        units = [1, *accumulate(cast(Iterable[int], factors), mul)]
        unit = max(unit for unit in units if _longest(num_steps, size, unit))
        num_units = -(-num_steps // unit)
        bounds = -(-np.arange(size + 1, dtype=np.int64) * num_units // size) * unit
        bounds[-1] = num_steps + 1
        return cls(np.minimum(bounds, num_steps + 1))

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self.bounds.size - 1

    @property
    def is_ring(self) -> bool:
        """Return whether point 0 is the last point."""
        return bool(self.bounds[0] == 1)

    def ring(self) -> Layout:
        """Return the layout of a ring: without point 0, which is point N."""
        return Layout(np.maximum(self.bounds, 1))

    def opened(self) -> Layout:
        """Return the layout of a ring in which the owner of point 1 also owns point 0."""
        return Layout(np.where(self.bounds == 1, 0, self.bounds)) if self.is_ring else self

    @property
    def num_points(self) -> int:
        """Number of points of the level."""
        return int(self.bounds[-1])

    def check(self, num_steps: int, size: int) -> None:
        """Raise ValueError unless the blocks of `size` ranks cover the points 0..N in order."""
        bounds = self.bounds
        covers = self.size == size and bounds[0] == 0 and bounds[-1] == num_steps + 1
        if not (covers and (np.diff(bounds) >= 0).all()):
            raise ValueError(
                f"layout must split points 0..{num_steps} over {size} ranks, got bounds "
                f"{bounds.tolist()}"
            )

    def block(self, rank: int) -> range:
        """Return the points of `rank`."""
        return range(int(self.bounds[rank]), int(self.bounds[rank + 1]))

    def coarsen(self, m: int | NDArray[np.int64]) -> Layout:
        """Return the layout of the multiples of m, or of the points m, with unchanged owners."""
        if isinstance(m, np.ndarray):
            return Layout(np.searchsorted(m, self.bounds))
        return Layout(-(-self.bounds // m))

    def after(self, point: int) -> Layout:
        """Return the layout of the points from `point` on, with unchanged owners."""
        return Layout(np.maximum(self.bounds - point, 0))

    def owner(self, point: int) -> int:
        """Return the rank that owns `point`."""
        return int(np.searchsorted(self.bounds, point, side="right")) - 1

    def left(self, rank: int) -> int | None:
        """Return the rank that owns the point before the block of `rank`; None without points."""
        block = self.block(rank)
        if block and block.start == 1 and self.is_ring:
            return self.owner(self.num_points - 1)
        return self.owner(block.start - 1) if block and block.start > 0 else None

    def right(self, rank: int) -> int | None:
        """Return the rank that owns the point after the block of `rank`; None without points."""
        block = self.block(rank)
        if block and block.stop == self.num_points and self.is_ring:
            return self.owner(1)
        return self.owner(block.stop) if block and block.stop < self.num_points else None

    def reversed(self) -> Layout:
        """Return the layout of the reversed grid, for ranks in reversed order.

        A rank with the points a..b-1 owns the points N-b..N-a-1 of the reversed grid, which are the
        adjoint states of the points a+1..b. Blocks that start at C-points forwards then start at
        C-points backwards (N a multiple of the factors). Rank 0 also owns the adjoint state of
        point 0, and must own point 0, as in balanced layouts.
        """
        num_steps = self.num_points - 1
        bounds = np.maximum(num_steps - self.bounds[::-1], 0)
        bounds[-1] = num_steps + 1
        return Layout(bounds)


def _longest(num_steps: int, size: int, unit: int) -> bool:
    """Return whether blocks in multiples of `unit` are nearly even."""
    num_units = -(-num_steps // unit)
    longest = -(-num_units // size) * unit
    return unit == 1 or longest <= max(IMBALANCE * num_steps / size, -(-num_steps // size))
