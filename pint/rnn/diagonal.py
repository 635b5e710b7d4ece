"""Diagonals of the derivatives of recurrent steps, from the coefficients that steps note.

In the letters of `docs/gru.md`, the derivative of a finest step of a gated recurrent unit is

    diag(q) + diag(c_e) W_hn + diag(c_r) W_hr + diag(c_z) W_hz,

and that of the long short-term memory has

    diag(k) (diag(c_i) W_hi + diag(c_f) W_hf + diag(c_g) W_hg) + diag(c_o) W_ho

for the new h by the old one, diag(q) for the new c by the old one. Their diagonals take no product
of matrices. What runs through other units, layers, or from h to c is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.rnn.cells import Cell
from pint.rnn.kernels import LSTM
from pint.simd.vectors import kernel

Array = NDArray[Any]
Indices = NDArray[np.int64]


def own_weights(cell: Cell, weight_hh: Array) -> Array:
    """Return how each unit's gates see its own h, (G, H), in the order of the gate adjoints."""
    rows = cell.state_rows(weight_hh)
    return np.stack([np.diagonal(block) for block in np.split(rows, cell.num_gates)])


@kernel
def step_diagonals(
    cell: int, coefficients: Array, slots: Indices, own: Array, num_steps: Indices, out: Array
) -> None:
    """Set `out` to the diagonals of the derivatives of finest steps of one layer.

    Parameters
    ----------
    cell : int
        IMPLICIT, CLASSIC or LSTM.
    coefficients : ndarray, shape (number of slots, B, C)
        See `gates_linearize`.
    slots : ndarray of int64, shape (n,)
        Where they are for each step.
    own : ndarray, shape (G, H)
        See `own_weights`.
    num_steps : ndarray of int64, shape (n, B)
        0 keeps the state: the diagonal is one.
    out : ndarray, shape (n, B, W)
        Overwritten.
    """
    H = own.shape[1]
    for i in range(slots.size):
        for b in range(out.shape[1]):
            c, row = coefficients[slots[i], b], out[i, b]
            if num_steps[i, b] == 0:
                row[:] = 1
                continue
            for j in range(H):
                gates = c[j] * own[0, j] + c[H + j] * own[1, j] + c[2 * H + j] * own[2, j]
                if cell == LSTM:
                    row[j] = c[4 * H + j] * gates + c[3 * H + j] * own[3, j]
                    row[H + j] = c[5 * H + j]
                else:
                    row[j] = c[4 * H + j] + gates
