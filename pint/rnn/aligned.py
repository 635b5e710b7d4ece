"""Matrices and rooms that begin at cache lines, see `pint.aligned`."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.aligned import LINE, empty

Array = NDArray[Any]


class Factor(NamedTuple):
    """A matrix on the right of products.

    Attributes
    ----------
    rows : ndarray, shape (K, at least N)
        Its contiguous rows; the last columns need not be its own.
    width : int
        N.
    """

    rows: Array
    width: int

    @classmethod
    def of(cls, matrix: Array) -> Factor:
        """Copy a matrix, shape (K, N), so that each row begins at a cache line."""
        height, width = matrix.shape
        in_line = LINE // matrix.itemsize
        own = empty((height, -(-width // in_line) * in_line), matrix.dtype)
        own[:, :width] = matrix
        return cls(own, width)


class Rooms:
    """Memory under names that is used again: fresh memory costs as much as working on it."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array, not initialised, in the memory of that name: the last one's is gone."""
        size = prod(shape) * np.dtype(dtype).itemsize
        held = self._held.get(name)
        if held is None or held.size < size:
            held = self._held[name] = empty((size,), np.uint8)
        own: Array = held[:size].view(dtype).reshape(shape)
        return own
