"""Cycles that are recorded, and run again as a single call."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pint.drivers.operations import NUM_FIELDS

Line = tuple[int, ...]
"""An operation as `pint.drivers.operations` takes it."""


@dataclass(eq=False)
class RecordedCycle:
    """What a cycle did on one rank that owns all points.

    Attributes
    ----------
    lines : list of Line
        Operations.
    num_steps : dict of int to int
        Steps by level.
    relaxed : tuple of bool
        Which levels were left relaxed.
    complete : bool
        Whether the operations are all that the cycle did.
    program : ndarray of int64, shape (number of operations, NUM_FIELDS)
        The operations, set by `finish`.
    """

    lines: list[Line] = field(default_factory=list)
    num_steps: dict[int, int] = field(default_factory=dict)
    relaxed: tuple[bool, ...] = ()
    complete: bool = True

    def finish(self) -> None:
        """Make the program of the operations."""
        self.program: NDArray[np.int64] = np.array(self.lines, dtype=np.int64)
        self.program = self.program.reshape(-1, NUM_FIELDS)
