"""Threads of one process that share the sequences of a batch, or the rows of a product."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from pint.options import at_least


class ThreadTeam:
    """A number of threads; kernels let go of Python's lock, so that they work side by side.

    Every number is computed by one thread, in the order in which a single one would: results are
    the same for any size.

    Parameters
    ----------
    size : int, default 1
        Number of threads.

    Raises
    ------
    ValueError
        If it is less than one.
    """

    def __init__(self, size: int = 1) -> None:
        at_least("threads", size, 1)
        self.size = size
        self._others = ThreadPoolExecutor(size - 1) if size > 1 else None

    def split(self, count: int, work: Callable[[slice], None], least: int = 1) -> None:
        """Call `work` with slices that make up ``range(count)``, side by side; wait for all.

        Parameters
        ----------
        count : int
            Number of items.
        work : callable
            Gets a slice of items.
        least : int, default 1
            Number of items for which a thread is worth its while.
        """
        pieces = min(self.size, max(count // least, 1))
        if self._others is None or pieces == 1:
            work(slice(0, count))
            return
        bounds = [count * i // pieces for i in range(pieces + 1)]
        slices = [slice(*pair) for pair in pairwise(bounds)]
        others = [self._others.submit(work, own) for own in slices[1:]]
        work(slices[0])
        for other in others:
            other.result()

    def split_batch(self, batch: int, kernel: Callable[..., None], *arguments: Any) -> None:
        """Call a kernel that takes, last, the first and the last of the sequences to work on."""
        self.split(batch, lambda own: kernel(*arguments, own.start, own.stop), least=8)


SERIAL = ThreadTeam()
"""The calling thread alone."""
