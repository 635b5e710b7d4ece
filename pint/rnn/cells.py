"""The recurrent cells: their tensors, and how wide what they pass on is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pint.rnn.kernels import gru_backward, gru_forward, lstm_backward, lstm_forward

Array = NDArray[Any]
CellName = Literal["implicit", "classic", "lstm"]


@dataclass(frozen=True)
class Cell:
    """Properties of a cell that layers use.

    Attributes
    ----------
    is_gru, is_classic : bool
        Whether it is a gated recurrent unit, whose W_hh h is multiplied by r before it enters n;
        and whether that is the classic one.
    num_gates : int
        Row blocks of W_ih and W_hh, of H rows each: r, z, n, or i, f, g, o.
    num_states : int
        Blocks of H entries of a state: h, or h and c.
    num_coefficients : int
        Blocks of H entries that the kernels keep for the derivative.
    forward, backward : callable
        The kernels, see `pint.rnn.kernels`.
    """

    is_gru: bool
    is_classic: bool
    num_gates: int
    num_states: int
    num_coefficients: int
    forward: Any
    backward: Any

    def bias(self, ih: Array, hh: Array) -> Array:
        """Return the sums of biases as the kernels take them, shape (4 H,); new."""
        if not self.is_gru:
            return ih + hh
        hidden = hh.size // 3
        sums = np.concatenate([ih, hh[2 * hidden :]])
        sums[: 2 * hidden] += hh[: 2 * hidden]
        return sums

    def input_gates(self, d_gates: Array) -> Array:
        """Return the adjoints of the input products, in W_ih's order of rows; a view."""
        return d_gates[..., d_gates.shape[-1] // 4 :] if self.is_gru else d_gates

    def state_gates(self, d_gates: Array) -> Array:
        """Return the adjoints of the products W_hh h, in the order of `state_rows`; a view."""
        return d_gates[..., : 3 * (d_gates.shape[-1] // 4)] if self.is_gru else d_gates

    def state_rows(self, rows: Array) -> Array:
        """Bring rows of W_hh to the order in which the kernels give gate adjoints: n, r, z."""
        third = rows.shape[0] // 3
        return np.concatenate([rows[2 * third :], rows[: 2 * third]]) if self.is_gru else rows

    def torch_rows(self, rows: Array) -> Array:
        """Bring rows back from the order of `state_rows`."""
        third = rows.shape[0] // 3
        return np.concatenate([rows[third:], rows[:third]]) if self.is_gru else rows


CELLS: dict[str, Cell] = {
    "implicit": Cell(True, False, 3, 1, 5, gru_forward, gru_backward),
    "classic": Cell(True, True, 3, 1, 5, gru_forward, gru_backward),
    "lstm": Cell(False, False, 4, 2, 6, lstm_forward, lstm_backward),
}
