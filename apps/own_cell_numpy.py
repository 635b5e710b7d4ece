"""A user's recurrent cell in NumPy, trained in parallel over time.

python -m apps.own_cell_numpy, or mpiexec -n 2 python -m apps.own_cell_numpy; --help lists options.
docs/own_cell.md explains the cell line by line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint import Propagator, Step

from .own_cell import main_of

Array = NDArray[np.float64]


class LeakyCell(Propagator):
    """A leaky tanh unit whose leak is a gate: dh/dt = s (n - h), by exponential Euler.

    With s = sigmoid(a_s) and n = tanh(a_n), where (a_s, a_n) = W x + U h + b are taken at the start
    of the step, h' = q h + (1 - q) n with q = exp(-s dt). States have shape (B, H).
    """

    batched = True  # u is a stack of n states, the fields of a step are arrays of length n
    dtype = np.dtype(np.float64)

    def __init__(self, num_features: int, hidden: int, seed: int = 0) -> None:
        self.hidden = hidden
        shapes = (2 * hidden, num_features), (2 * hidden, hidden), (2 * hidden,)
        sizes = [int(np.prod(shape)) for shape in shapes]
        bound = hidden**-0.5
        self.parameters = np.random.default_rng(seed).uniform(-bound, bound, sum(sizes))
        parts = np.split(self.parameters, np.cumsum(sizes)[:-1])  # views, not copies
        self.W, self.U, self.b = map(np.reshape, parts, shapes)
        self.x = np.zeros((0, 0, num_features))

    @property
    def state_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.x.shape[1], self.hidden)

    def set_inputs(self, x: Array) -> None:
        """Bind sequences, shape (B, T, num_features)."""
        self.x = np.ascontiguousarray(x.swapaxes(0, 1))

    def rows(self, step: Step) -> NDArray[np.int64]:
        """Return the index of each step's input: the middle of the steps that it covers."""
        rows: Any = (step.first + step.last) // 2 - 1
        return rows

    def gates(self, u: Array, step: Step) -> tuple[Array, Array, Array]:
        """Return s, n and q, each of shape (n, B, H)."""
        a = self.x[self.rows(step)] @ self.W.T + u @ self.U.T + self.b
        s = 1 / (1 + np.exp(-a[..., : self.hidden]))
        return s, np.tanh(a[..., self.hidden :]), np.exp(-s * step.dt[:, None, None])

    def step(self, u: Array, step: Step) -> Array:
        _, n, q = self.gates(u, step)
        return n + q * (u - n)

    def backward(self, w: Array, u: Array, step: Step) -> tuple[Array, Array]:
        """Return the adjoints of a, shape (n, B, 2 H), and of the blended h, shape (n, B, H)."""
        s, n, q = self.gates(u, step)
        d_s = w * (n - u) * step.dt[:, None, None] * q * s * (1 - s)
        d_n = w * (1 - q) * (1 - n * n)
        return np.concatenate([d_s, d_n], axis=-1), w * q

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        d_a, d_h = self.backward(w, u, step)
        return d_h + d_a @ self.U

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        d_a, _ = self.backward(w, u, step)
        return self.summed(d_a, u, step)

    def summed(self, d_a: Array, u: Array, step: Step) -> Array:
        """Return the gradients of W, U and b, summed over points and sequences, as one vector."""
        d_a = d_a.reshape(-1, 2 * self.hidden)
        x = self.x[self.rows(step)].reshape(len(d_a), -1)
        d_W, d_U = d_a.T @ x, d_a.T @ u.reshape(-1, self.hidden)
        return np.concatenate([d_W.ravel(), d_U.ravel(), d_a.sum(axis=0)])


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; return the exit status."""
    return main_of("own_cell_numpy", LeakyCell, argv)


if __name__ == "__main__":
    sys.exit(main())
