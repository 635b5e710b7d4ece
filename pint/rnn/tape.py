"""Derivatives noted during a forward solve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pint.arrays import empty
from pint.rnn.coarse_step import GateEvaluation
from pint.rnn.fingerprints import Fingerprints

if TYPE_CHECKING:
    from pint.rnn.recurrence import Recurrence

Array = NDArray[Any]
Indices = NDArray[np.int64]

ROWS = 1024
"""Rows of a matrix product (points times sequences) treated at once: they stay in cache."""


def parts(count: int, batch: int) -> Iterator[slice]:
    """Return slices that split `count` points so that each has about `ROWS` rows."""
    size = max(1, ROWS // max(batch, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count), 1)


class Tape:
    """What the derivative of steps needs, for each step ("slot") and gate evaluation.

    Evaluation p of slot s has row ``s P + p`` of the arrays.

    Parameters
    ----------
    model : Recurrence
        The layers.
    table : tuple of GateEvaluation
        Gate evaluations of the steps.
    num_slots : int
        Steps that can be noted.

    Attributes
    ----------
    coefficients : list of ndarray, (num_slots P, B, C)
        Of each layer: outputs of `gates_linearize`.
    news : list of ndarray, (num_slots P, B, H)
        Of each layer: h after each evaluation.
    """

    def __init__(
        self, model: Recurrence, table: tuple[GateEvaluation, ...], num_slots: int
    ) -> None:
        layers, batch, _ = model.state_shape
        hidden, self.table = model.options.hidden, table
        self.key = table, num_slots, batch
        shape = (num_slots * len(table), batch)
        widths = (model.cell.num_coefficients * hidden, hidden)
        self.coefficients, self.news = (
            [empty((*shape, width), model.dtype) for _ in range(layers)] for width in widths
        )
        self._starts = np.empty(num_slots, dtype=np.uint64)
        self._is_noted = np.zeros(num_slots, dtype=bool)

    def clear(self) -> None:
        """Forget all steps, and keep the memory."""
        self._is_noted[:] = False

    def note(self, slots: Indices, starts: Fingerprints) -> None:
        """Remember from which states steps are taken."""
        self._starts[slots], self._is_noted[slots] = starts, True

    def holds(self, slots: Indices, starts: Fingerprints) -> NDArray[np.bool_]:
        """Tell which steps were noted from these very states."""
        same: NDArray[np.bool_] = self._is_noted[slots] & (self._starts[slots] == starts)
        return same


def take(held: Array, rows: Indices) -> Array:
    """Return ``held[rows]``, as a view where the rows follow one another, up or down."""
    if rows.size == 0:
        return held[rows]
    by = -1 if rows[-1] < rows[0] else 1
    stop = int(rows[0]) + by * rows.size
    if not (rows == np.arange(rows[0], stop, by)).all():
        return held[rows]
    return held[rows[0] : stop if stop >= 0 else None : by]


def in_rows(out: Array, dtype: Any) -> Array:
    """Return `out` if kernels can write to it, and memory of its shape if not."""
    return out if out.flags.c_contiguous and out.dtype == dtype else np.empty(out.shape, dtype)
