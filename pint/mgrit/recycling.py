"""Arrays of results in memory that earlier results have left."""

from __future__ import annotations

from math import prod
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.arrays import empty
from pint.propagator import State


class Recycler:
    """Makes arrays, in the memory of the last one that nobody holds any more where that fits.

    Fresh memory comes page by page when it is first written to, which takes longer than writing.
    What is kept between solves, as long as their solver, is the memory of one array; at most half
    of it is wasted.
    """

    def __init__(self) -> None:
        self.free: NDArray[np.uint8] | None = None

    def empty(self, shape: tuple[int, ...], like: State) -> State:
        """Return an array, not initialised, of the library, dtype and device of `like`."""
        if type(like) is not np.ndarray:
            xp = array_api_compat.array_namespace(like)
            return xp.empty(shape, dtype=like.dtype, device=array_api_compat.device(like))
        size = prod(shape) * like.itemsize
        memory, self.free = self.free, None
        if memory is not None and not size <= memory.size <= 2 * size:
            memory = None  # before other memory is asked for
        if memory is None:
            memory = empty((size,), np.uint8)
        own: Any = np.asarray(_Loan(memory, self))[:size]
        return own.view(like.dtype).reshape(shape)


class _Loan:
    """What arrays in lent memory keep alive; the memory goes back when the last of them is gone."""

    def __init__(self, memory: NDArray[np.uint8], owner: Recycler) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._owner = memory, owner

    def __del__(self) -> None:
        self._owner.free = self._memory
