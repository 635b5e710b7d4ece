"""Ranks that are MPI processes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pint.parallel.communicator import Communicator, Request


class MPICommunicator(Communicator):
    """An MPI communicator; upper-case calls on buffers only.

    Sums of floating-point numbers are reduced and then broadcast: MPI does not promise that
    Allreduce rounds alike on all ranks, and replicas of parameters must not drift apart.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The ranks. Duplicate it (`duplicate`) to separate messages from other code's messages.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()

    def isend(self, array: Any, dest: int) -> Request:  # noqa: D102
        return _Pending(self.comm.Isend(array, dest))

    def irecv(self, array: Any, source: int) -> Request:  # noqa: D102
        return _Pending(self.comm.Irecv(array, source))

    def allgather_blocks(  # noqa: D102
        self, array: NDArray[Any], rows: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        if rows is not None:
            counts = rows * int(np.prod(array.shape[1:]))
        else:
            counts = np.empty(self.size, dtype=np.int64)
            self.comm.Allgather(np.array([array.size], dtype=np.int64), counts)
        joined = np.empty((_num_rows(counts, array), *array.shape[1:]), dtype=array.dtype)
        self.comm.Allgatherv(np.ascontiguousarray(array), (joined, counts))
        return joined

    def gather_blocks(self, array: NDArray[Any], root: int = 0) -> NDArray[Any] | None:  # noqa: D102
        counts = np.empty(self.size, dtype=np.int64)
        self.comm.Allgather(np.array([array.size], dtype=np.int64), counts)
        if self.rank != root:
            self.comm.Gatherv(np.ascontiguousarray(array), None, root)
            return None
        joined = np.empty((_num_rows(counts, array), *array.shape[1:]), dtype=array.dtype)
        self.comm.Gatherv(np.ascontiguousarray(array), (joined, counts), root)
        return joined

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:  # noqa: D102
        total = np.empty_like(array, order="C")
        if array.dtype.kind in "iu":
            self.comm.Allreduce(np.ascontiguousarray(array), total)
            return total
        self.comm.Reduce(np.ascontiguousarray(array), total, root=0)
        self.comm.Bcast(total, root=0)
        return total

    def bcast(self, array: NDArray[Any], root: int) -> NDArray[Any]:  # noqa: D102
        self.comm.Bcast(array, root)
        return array

    def barrier(self) -> None:  # noqa: D102
        self.comm.Barrier()

    def duplicate(self) -> Communicator:  # noqa: D102
        return self._derived("duplicate", lambda: self.comm.Dup())

    def reversed(self) -> Communicator:  # noqa: D102
        return self._derived("reversed", lambda: self.comm.Split(0, self.size - 1 - self.rank))

    def split(self, size: int) -> Communicator:  # noqa: D102
        return self._derived(f"split {size}", lambda: self.comm.Split(self.rank // size, self.rank))

    def across(self, size: int) -> Communicator:  # noqa: D102
        return self._derived(f"across {size}", lambda: self.comm.Split(self.rank % size, self.rank))

    def _derived(self, name: str, make: Callable[[], Any]) -> MPICommunicator:
        """Return a communicator made from this one; made once and kept with it.

        MPI has only some thousand communicators, and freeing one is collective, so that a garbage
        collector must not do it: solvers on the same ranks share theirs, one solve at a time.
        """
        kept = self.comm.Get_attr(_derived_key())
        if kept is None:
            kept = {}
            self.comm.Set_attr(_derived_key(), kept)
        if name not in kept:
            kept[name] = MPICommunicator(make())
        return cast(MPICommunicator, kept[name])

    def abort(self) -> None:  # noqa: D102
        self.comm.Abort(1)


@cache
def _derived_key() -> int:
    from mpi4py import MPI

    def free(comm: Any, key: int, derived: dict[str, MPICommunicator]) -> None:
        for kept in derived.values():
            kept.comm.Free()

    return MPI.Comm.Create_keyval(delete_fn=free)


class _Pending:
    """An mpi4py request behind the `Request` interface."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def wait(self) -> None:
        self.request.Wait()


def _num_rows(counts: NDArray[np.int64], array: NDArray[Any]) -> int:
    per_row = int(np.prod(array.shape[1:]))
    return int(counts.sum()) // per_row if per_row else 0
