"""Memory that begins at cache lines: vectors that lie in two of them take twice as long to load."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LINE = 64
"""Bytes of a cache line."""


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array, not initialised, that begins at a cache line."""
    dtype = np.dtype(dtype)
    memory = np.empty(prod(shape) * dtype.itemsize + LINE, dtype=np.uint8)
    begin = -memory.__array_interface__["data"][0] % LINE
    own: Array = memory[begin : begin + memory.size - LINE].view(dtype).reshape(shape)
    return own
