"""Derivatives noted during a forward solve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.arrays import empty
from pint.mgrit.solver import MGRIT
from pint.propagator import Step
from pint.rnn.coarse_step import GateEvaluation
from pint.rnn.layers import Layers, take

Array = NDArray[Any]
Indices = NDArray[np.int64]

ROWS = 1024
"""Rows of a matrix product (points times sequences) treated at once: they stay in cache."""


def parts(count: int, batch: int) -> Iterator[slice]:
    """Return slices that split `count` points so that each has about `ROWS` rows."""
    size = max(1, ROWS // max(batch, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count), 1)


class DerivativeTape:
    """What the derivative of steps needs, for each step ("slot") and gate evaluation.

    Evaluation p of slot s has row ``s P + p`` of the arrays.

    Parameters
    ----------
    layers : Layers
        The layers.
    table : tuple of GateEvaluation
        Gate evaluations of the steps.
    num_slots : int
        Number of steps that can be noted.

    Attributes
    ----------
    coefficients : list of ndarray, (num_slots P, B, C)
        Of each layer: outputs of `layer_forward`.
    hidden_after : list of ndarray, (num_slots P, B, H)
        Of each layer: h after each evaluation.
    is_noted : ndarray of bool, shape (num_slots,)
        Slots whose derivatives are there.
    """

    def __init__(self, layers: Layers, table: tuple[GateEvaluation, ...], num_slots: int) -> None:
        num_layers, batch, _ = layers.state_shape
        hidden, self.table = layers.options.hidden, table
        self.key = table, num_slots, batch
        shape = (num_slots * len(table), batch)
        widths = (layers.cell.num_coefficients * hidden, hidden)
        self.coefficients, self.hidden_after = (
            [empty((*shape, width), layers.dtype) for _ in range(num_layers)] for width in widths
        )
        self.is_noted = np.zeros(num_slots, dtype=bool)

    def rows(self, slots: Indices) -> Indices:
        """Return the rows of all evaluations of slots, (n, P)."""
        return slots[:, None] * len(self.table) + np.arange(len(self.table))

    def hidden_rows(self, layer: int, rows: Indices) -> Array | None:
        """Return h of a layer at rows, (n, P, B, H), if that is one piece of the tape's memory."""
        held = self.hidden_after[layer]
        own = take(held, rows.reshape(-1))
        if own.flags.c_contiguous and np.may_share_memory(own, held):
            return own.reshape(*rows.shape, *held.shape[1:])
        return None


class TapePool:
    """Tapes whose memory is used again, by their sizes."""

    def __init__(self) -> None:
        self._spares: dict[tuple[tuple[GateEvaluation, ...], int, int], DerivativeTape] = {}

    def get(
        self, layers: Layers, table: tuple[GateEvaluation, ...], num_slots: int
    ) -> DerivativeTape:
        """Return an empty tape."""
        spare = self._spares.pop((table, num_slots, layers.batch), None)
        return DerivativeTape(layers, table, num_slots) if spare is None else spare

    def put(self, tape: DerivativeTape) -> None:
        """Take back a tape that is not used any more."""
        tape.is_noted[:] = False
        self._spares[tape.key] = tape

    def keep(self, batch: int) -> None:
        """Drop the tapes for other numbers of sequences."""
        self._spares = {key: tape for key, tape in self._spares.items() if key[2] == batch}


def in_rows(out: Array, dtype: Any) -> Array:
    """Return `out` if kernels can write to it, and memory of its shape if not."""
    return out if out.flags.c_contiguous and out.dtype == dtype else np.empty(out.shape, dtype)


def stale_steps(solver: MGRIT) -> Step:
    """Return the steps of a rank whose recorded derivatives are not at the solution.

    After the last correction of the C-points, all F-points are stepped to again, but not the
    C-points. In time stepping each step is taken once, from its final state. Local solves of the
    coarsest level take a step from many states.
    """
    level = solver.hierarchy.levels[0]
    if len(solver.hierarchy.levels) > 1:
        return level.steps(level.c_steps)
    return level.steps(slice(1, 1) if solver.options.local_points is None else level.targets)
