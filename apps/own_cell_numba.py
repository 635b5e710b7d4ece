"""The cell of own_cell_numpy with fused Numba kernels: one pass over a stack instead of ten.

python -m apps.own_cell_numba, or mpiexec -n 2 python -m apps.own_cell_numba; --help lists options.
docs/own_cell.md derives the kernels. They are in one file, because Numba's cache does not notice
edits in other files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pint import Linearization, Step
from pint.rnn.kernels import bounded_exp, kernel

from .own_cell import main_of
from .own_cell_numpy import Array, LeakyCell

Rows = NDArray[np.int64]


@njit(inline="always")
def gates(a_s: float, a_n: float, dt: float) -> tuple[float, float, float]:
    """Return s, n and q of one unit."""
    s = 1.0 / (1.0 + bounded_exp(-a_s))
    n = 2.0 / (1.0 + bounded_exp(-2.0 * a_n)) - 1.0  # tanh
    return s, n, bounded_exp(-s * dt)


@kernel
def forward(gx: Array, rows: Rows, gu: Array, u: Array, dt: Array, out: Array) -> None:
    """Set out = h' for u of shape (n, B, H), gu = U h, and gx[rows] = W x + b, (n, B, 2 H)."""
    num_points, batch, hidden = u.shape
    for i in range(num_points):
        for j in range(batch):
            # Rows of one dimension: compilers turn loops over them into vector code.
            x, g, h, new, d = gx[rows[i], j], gu[i, j], u[i, j], out[i, j], dt[i]
            for k in range(hidden):
                _, n, q = gates(x[k] + g[k], x[hidden + k] + g[hidden + k], d)
                new[k] = n + q * (h[k] - n)


@kernel
def derivative(gx: Array, rows: Rows, gu: Array, u: Array, dt: Array, c: Array, q: Array) -> None:
    """Set c, (n, B, 2 H), and q, (n, B, H): dh' = q dh + c_s da_s + c_n da_n."""
    num_points, batch, hidden = u.shape
    for i in range(num_points):
        for j in range(batch):
            x, g, h, d = gx[rows[i], j], gu[i, j], u[i, j], dt[i]
            c_s, c_n, kept = c[i, j, :hidden], c[i, j, hidden:], q[i, j]
            for k in range(hidden):
                s, n, kept[k] = gates(x[k] + g[k], x[hidden + k] + g[hidden + k], d)
                c_s[k] = (n - h[k]) * d * kept[k] * s * (1.0 - s)
                c_n[k] = (1.0 - kept[k]) * (1.0 - n * n)


@kernel
def backward(w: Array, rows: Rows, c: Array, q: Array, d_a: Array, d_h: Array) -> None:
    """Set d_a = (c_s w, c_n w) and d_h = q w, with the coefficients of the steps `rows`."""
    num_points, batch, hidden = w.shape
    for i in range(num_points):
        for j in range(batch):
            v, both, kept = w[i, j], c[rows[i], j], q[rows[i], j]
            d_both, d_kept = d_a[i, j], d_h[i, j]
            for k in range(hidden):
                d_both[k] = both[k] * v[k]
                d_both[hidden + k] = both[hidden + k] * v[k]
                d_kept[k] = kept[k] * v[k]


class FusedCell(LeakyCell):
    """The leaky cell with stored input products, whose derivative is evaluated once a solve."""

    def set_inputs(self, x: Array) -> None:
        """Bind sequences, shape (B, T, num_features), and multiply them with W, once for all."""
        super().set_inputs(x)
        self.refresh()

    def refresh(self) -> None:
        """Update the input products after a change of the parameters."""
        self.gx = self.x @ self.W.T + self.b

    def arguments(self, u: Array, step: Step) -> tuple[Array, ...]:
        """Return the arguments of both kernels, without their outputs."""
        return self.gx, self.rows(step), product(u, self.U.T), u, step.dt

    def step(self, u: Array, step: Step) -> Array:
        out = np.empty_like(u)
        forward(*self.arguments(u, step), out)
        return out

    def linearize(self, u: Array, step: Step) -> FusedLinearization:
        return FusedLinearization(self, u, step)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        return self.linearize(u, step).adjoint(w, slice(0, len(u), 1))

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        return self.linearize(u, step).gradient(w)


class FusedLinearization(Linearization):
    """The derivative of a stack of steps: coefficients, which are applied without exp or tanh."""

    def __init__(self, cell: FusedCell, u: Array, step: Step) -> None:
        super().__init__(cell, u, step)
        self.cell = cell
        self.c, self.q = np.empty((*u.shape[:2], 2 * cell.hidden)), np.empty(u.shape)
        derivative(*cell.arguments(u, step), self.c, self.q)

    def backward(self, w: Array, rows: slice) -> tuple[Array, Array]:
        """Return the adjoints of a and of the blended h for the steps `rows`."""
        d_a, d_h = np.empty((*w.shape[:2], 2 * self.cell.hidden)), np.empty(w.shape)
        backward(w, np.arange(rows.start, rows.stop, rows.step), self.c, self.q, d_a, d_h)
        return d_a, d_h

    def adjoint(self, w: Array, rows: slice) -> Array:
        d_a, d_h = self.backward(w, rows)
        d_h += product(d_a, self.cell.U)
        return d_h

    def gradient(self, w: Array) -> Array:
        d_a, _ = self.backward(w, slice(0, len(w), 1))
        return self.cell.summed(d_a, self.u, self.step)


def product(a: Array, matrix: Array) -> Array:
    """Return a @ matrix for a of shape (n, B, K), as one matrix product."""
    return (a.reshape(-1, a.shape[2]) @ matrix).reshape(*a.shape[:2], -1)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; return the exit status."""
    return main_of("own_cell_numba", FusedCell, argv)


if __name__ == "__main__":
    sys.exit(main())
