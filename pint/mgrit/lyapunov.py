"""Lyapunov vectors and exponents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.propagator import State


@dataclass(frozen=True, kw_only=True, eq=False)
class Lyapunov:
    """Lyapunov vectors along a trajectory, and their growth.

    The solve computes them on the finest level with corrected steps. The vectors at a point are the
    vectors of the left neighbour, propagated by all fine steps in between and orthonormalised. Far
    from the start they are the backward Lyapunov vectors, whatever the initial vectors.

    Attributes
    ----------
    vectors : array, shape (number of own points of that level, k, ...state_shape)
        Orthonormal vectors, the fastest growing first.
    first : int
        Index of the first own point on that level.
    growth : ndarray of float64, shape (number of intervals, k)
        Logarithm of the growth of each vector over each interval of the level, on every rank.
    times : ndarray of float64, shape (number of intervals + 1,)
        Time points of the level.
    """

    vectors: State
    first: int
    growth: NDArray[np.float64]
    times: NDArray[np.float64]

    def exponents(self, start: float = -np.inf) -> NDArray[np.float64]:
        """Return the mean growth rates of the intervals that begin at `start` or later.

        Parameters
        ----------
        start : float, optional
            Time at which the vectors have converged; by default all intervals count.

        Returns
        -------
        ndarray of float64, shape (k,)
            Per unit of time.

        Raises
        ------
        ValueError
            If no interval begins at `start` or later.
        """
        late = self.times[:-1] >= start
        if not late.any():
            raise ValueError(f"start must be before the last interval, got {start}")
        rates: NDArray[np.float64] = self.growth[late].sum(axis=0)
        rates /= np.diff(self.times)[late].sum()
        return rates


def orthonormal(vectors: State) -> tuple[State, list[float]]:
    """Return an orthonormal basis of some vectors, and the logarithms of R's diagonal.

    By Gram and Schmidt, each vector twice against all previous ones, with sums in a fixed order.
    A vector that depends on the previous ones is replaced by a unit vector far from them.

    Parameters
    ----------
    vectors : array, shape (k, ...state_shape)
        k is at most the number of entries of a state.

    Returns
    -------
    array of the same shape
        New.
    list of float
        Logarithm of the growth of each vector, -inf where it was replaced.

    References
    ----------
    Benettin, Galgani, Giorgilli, Strelcyn, "Lyapunov characteristic exponents for smooth dynamical
    systems", Meccanica 15 (1980), 9-30.
    """
    xp = array_api_compat.array_namespace(vectors)
    flat = xp.reshape(vectors, (vectors.shape[0], -1)) + 0
    least = 10 * float(xp.finfo(flat.dtype).eps)
    growth: list[float] = []
    for k, row in enumerate(flat):
        before = flat[:k, :]
        size = _norm(row, xp)
        left = _project_out(before, row, xp)
        growth.append(math.log(left) if left > least * size else -math.inf)
        if left <= least * size:
            near = xp.sum(before**2, axis=0)
            row[...] = 0
            row[int(xp.argmin(near))] = 1
            left = _project_out(before, row, xp)
        row /= left
    return xp.reshape(flat, vectors.shape), growth


def _project_out(before: State, row: State, xp: Any) -> float:
    """Subtract the projections of a row on orthonormal rows, in place; return its norm."""
    for _ in range(2):
        for other in before:
            row -= xp.sum(other * row) * other
    return _norm(row, xp)


def _norm(row: State, xp: Any) -> float:
    return math.sqrt(float(xp.sum(row * row)))


def unit_vectors(like: State, k: int) -> State:
    """Return the first k unit vectors of the space of states, shape (k, ...)."""
    xp, size = array_api_compat.array_namespace(like), math.prod(like.shape)
    vectors = xp.zeros((k, size), dtype=like.dtype)
    for j in range(k):
        vectors[j, j] = 1
    return xp.reshape(vectors, (k, *like.shape))
