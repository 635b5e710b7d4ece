"""Warm starts: states of a sequence from its latest solve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.grid.level import Level
from pint.grid.slots import shifted

Array = NDArray[Any]


class WarmStart:
    """Keep states at this rank's C-points; F-relaxation gives all other points.

    It takes num_sequences times own C-points times layers times W numbers of memory.

    Parameters
    ----------
    num_sequences : int
        Ids of sequences are 0..num_sequences - 1.
    level : Level
        The finest level of the solver.
    """

    def __init__(self, num_sequences: int, level: Level) -> None:
        self._known = np.zeros(num_sequences, dtype=bool)
        self._own = len(level.block)
        self._c_points = shifted(level.c_points, -1)
        self._states: Array | None = None

    def guess(self, sequence_ids: NDArray[np.int64]) -> Array | None:
        """Return initial iterates at the own points, (n, layers, B, W); None if one is unknown.

        States at F-points are zero.
        """
        if self._states is None or not self._known[sequence_ids].all():
            return None
        kept = self._states[sequence_ids]  # (B, C-points, layers, W)
        batch, _, layers, width = kept.shape
        states = np.zeros((self._own, layers, batch, width), dtype=kept.dtype)
        states[self._c_points] = kept.transpose(1, 2, 0, 3)
        return states

    def keep(self, sequence_ids: NDArray[np.int64], u: Array) -> None:
        """Keep the states at the own points, (n, layers, B, W)."""
        kept = u[self._c_points].transpose(2, 0, 1, 3)
        if self._states is None:
            self._states = np.empty((self._known.size, *kept.shape[1:]), dtype=u.dtype)
        self._states[sequence_ids] = kept
        self._known[sequence_ids] = True
