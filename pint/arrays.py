"""Memory that begins at cache lines: vectors that lie in two of them take twice as long to load."""

from __future__ import annotations

from math import prod
from typing import Any

import array_api_compat
import array_api_compat.numpy
import numpy as np
from numpy.typing import NDArray

from pint.propagator import State

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


def in_library_of(state: State, array: Any) -> State:
    """Return a NumPy array as one of the library of `state`."""
    return array_api_compat.array_namespace(state).asarray(array)


def zeros(kept: State, num: int, like: State) -> State:
    """Return `num` states like `like`, all zero; in the array `kept` if that fits."""
    shape, device = (num, *like.shape), array_api_compat.device(like)
    if (
        kept is not None
        and type(kept) is type(like)
        and (tuple(kept.shape), kept.dtype, array_api_compat.device(kept))
        == (tuple(shape), like.dtype, device)
    ):
        kept[...] = 0
        return kept
    xp = array_api_compat.array_namespace(like)
    return xp.zeros(shape, dtype=like.dtype, device=device)


class Workspace:
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
