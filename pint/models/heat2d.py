"""The heat equation in two dimensions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]

NUM_FACTORISATIONS = 32
"""Number of step lengths with stored factorisations."""


class Heat2D(Propagator):
    """u_t = kappa (u_xx + u_yy) on a square with zero boundary, by the 5-point formula.

    Each step of backward Euler solves (I - dt kappa L) x = u for the inner nodes with a sparse LU
    factorisation, which is stored for each step length. Lengths are rounded to 12 digits, so that
    rounding errors of the times do not cost a factorisation for every step. The parameter is kappa.

    Parameters
    ----------
    num_nodes : int
        Nodes of each side, including both ends; at least 3. States have shape
        (num_nodes, num_nodes).
    length : float, default 1.0
        Length of a side.
    diffusivity : float, default 1.0
        kappa, length squared per unit of time.

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    LeVeque, "Finite Difference Methods for Ordinary and Partial Differential Equations", SIAM
    2007, sections 3.2 and 9.7.
    """

    dtype = np.dtype(np.float64)
    batched = True
    backward_euler = True

    def __init__(self, num_nodes: int, length: float = 1.0, diffusivity: float = 1.0) -> None:
        at_least("num_nodes", num_nodes, 3)
        positive("length", length)
        positive("diffusivity", diffusivity)
        self.state_shape = (num_nodes, num_nodes)
        self.length = float(length)
        self.parameters: Array = np.array([diffusivity], dtype=np.float64)
        self._factorised = lru_cache(NUM_FACTORISATIONS)(_factorise)

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_nodes, num_nodes)."""
        scaled = float(self.parameters[0]) * np.array([float(f"{dt:.12g}") for dt in step.dt])
        scaled /= (self.length / (u.shape[1] - 1)) ** 2
        out = np.zeros(u.shape)
        inner, solved = u[:, 1:-1, 1:-1], out[:, 1:-1, 1:-1]
        for c in np.unique(scaled):
            rows = np.flatnonzero(scaled == c)
            d = np.ascontiguousarray(inner[rows].reshape(rows.size, -1).T)
            x = self._factorised(inner.shape[1], float(c)).solve(d)
            solved[rows] = x.T.reshape(rows.size, *inner.shape[1:])
        return out

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new.

        Boundary values of `u` have no influence; between the inner nodes the step is symmetric.
        """
        return self.step(w, step)

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return <(I - dt kappa L)^-1 w, dt L x> with x = Phi(u), shape (1,)."""
        x = self.step(u, step)
        bend = np.diff(x, 2, axis=1)[:, :, 1:-1] + np.diff(x, 2, axis=2)[:, 1:-1]
        slopes = np.sum(self.step(w, step)[:, 1:-1, 1:-1] * bend, axis=(1, 2))
        return np.array([slopes @ step.dt / (self.length / (u.shape[1] - 1)) ** 2])


def _factorise(n: int, c: float) -> Any:
    """Factorise I - c times the 5-point matrix of n x n inner nodes."""
    second = scipy.sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = scipy.sparse.eye_array(n)
    laplacian = scipy.sparse.kron(second, eye) + scipy.sparse.kron(eye, second)
    return splu(scipy.sparse.csc_array(scipy.sparse.eye_array(n * n) - c * laplacian))


def problem(num_nodes: int = 33) -> Problem:
    """Return u_t = u_xx + u_yy on [0, pi]^2 from sin(x) sin(y), t in [0, 1].

    Its solution is sin(x) sin(y) exp(-2 t).
    """
    x = np.linspace(0.0, np.pi, num_nodes)
    mode = np.outer(np.sin(x), np.sin(x))
    return Problem(
        name="heat equation in 2D",
        propagator=Heat2D(num_nodes, np.pi),
        initial_value=mode,
        span=(0.0, 1.0),
        num_steps=128,
        exact=lambda t: mode * math.exp(-2 * t),
        order=1,
        source="eigenmode: sin(x) sin(y) exp(-2 t)",
    )
