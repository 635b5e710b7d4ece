"""Messages between ranks: MPI, and a serial twin for one process. The only import of mpi4py."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pint.parallel.agreement import describe_error, encode_text, revive_error
from pint.stopwatch import Stopwatch


class Request(Protocol):
    """A message under way."""

    def wait(self) -> Any:
        """Return when the message's buffer may be read (receive) or changed (send)."""


class Communicator(ABC):
    """What the solver asks of a group of processes; every array is C-contiguous.

    All methods but `isend` and `irecv` are collective.

    Attributes
    ----------
    rank, size : int
        Number of this process, 0..size-1, and of processes.
    """

    rank: int
    size: int
    was_interrupted = False
    """Whether an error ended an `exchange`: messages may be under way that nobody waits for."""

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Note where an error ends an exchange of messages, for `check_usable`."""
        try:
            yield
        except BaseException:
            self.was_interrupted = self.size > 1
            raise

    def check_usable(self) -> None:
        """Raise RuntimeError where an error has ended an exchange of messages."""
        if self.was_interrupted:
            raise RuntimeError(
                "an error has ended an earlier solve on these ranks, and its messages would be "
                "taken for those of another: let errors end all ranks (pint.parallel.comm.run does), or, "
                "where every rank has caught it, go on with a new communicator, "
                "MPI.COMM_WORLD.Dup(); a step that fails may also return NaN, which ends a solve "
                "as DIVERGED on every rank"
            )

    @abstractmethod
    def isend(self, array: Any, dest: int) -> Request:
        """Send `array` to rank `dest`."""

    @abstractmethod
    def irecv(self, array: Any, source: int) -> Request:
        """Receive into `array` from rank `source`."""

    @abstractmethod
    def allgather_blocks(
        self, array: NDArray[Any], rows: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        """Return the ranks' arrays joined along axis 0 in rank order, on every rank; new.

        Where every rank knows the number of rows of all, `rows`, it is one message, else two.
        """

    @abstractmethod
    def gather_blocks(self, array: NDArray[Any], root: int = 0) -> NDArray[Any] | None:
        """Return the ranks' arrays joined along axis 0 in rank order on `root`, None elsewhere."""

    @abstractmethod
    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of the ranks' arrays, with the same bits on every rank; new.

        Integers are summed exactly, in one message.
        """

    @abstractmethod
    def bcast(self, array: NDArray[Any], root: int) -> NDArray[Any]:
        """Overwrite `array` with that of rank `root`, and return it."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait for all ranks."""

    @abstractmethod
    def duplicate(self) -> Communicator:
        """Return the same ranks with messages apart from this one's; each call, the same one."""

    @abstractmethod
    def reversed(self) -> Communicator:
        """Return the same ranks in reversed order."""

    @abstractmethod
    def split(self, size: int) -> Communicator:
        """Return this rank's group of `size` consecutive ranks; the last one may be smaller."""

    @abstractmethod
    def across(self, size: int) -> Communicator:
        """Return the ranks that have this one's place in their groups of `size`, see `split`."""

    @abstractmethod
    def abort(self) -> None:
        """End all processes with exit status 1."""

    def any(self, flag: bool) -> bool:
        """Tell whether `flag` is true on any rank."""
        return bool(self.sum(np.array([flag], dtype=np.int64))[0])

    def num_hosts(self) -> int:
        """Return the number of machines that the ranks run on."""
        name = np.zeros((1, 64), dtype=np.uint8)
        encoded = socket.gethostname().encode()[:64]
        name[0, : len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
        return len({row.tobytes() for row in self.allgather_blocks(name)})

    def allgather_text(self, text: str) -> list[str]:
        """Return the texts of all ranks, in rank order, on every rank."""
        letters = encode_text(text)
        lengths = self.allgather_blocks(np.array([letters.size], dtype=np.int64))
        parts = np.split(self.allgather_blocks(letters), np.cumsum(lengths)[:-1])
        return [part.tobytes().decode() for part in parts]

    @contextmanager
    def collective(self, watch: Stopwatch | None = None) -> Iterator[None]:
        """Raise on every rank if the body of the ``with`` block fails on any rank.

        The body is this rank's work; it must not communicate on this communicator. The exit costs
        one small message if no rank failed, and none on one rank.

        Parameters
        ----------
        watch : Stopwatch, optional
            Counts the time of the message as phase "messages".

        Raises
        ------
        Exception
            On a rank that failed, its own error. On other ranks, the error of the first rank that
            failed, with " (on rank N)" behind its message: of the same type if that is ValueError,
            TypeError, FloatingPointError, NotImplementedError, ImportError or an OSError of the
            file system, else RuntimeError.

        Examples
        --------
        >>> comm = SerialCommunicator()
        >>> with comm.collective():
        ...     number = int("3")
        """
        try:
            yield
        except Exception as error:
            if self.size > 1:
                self.any(True)
                self.allgather_text(describe_error(error))
            raise
        if self.size == 1:
            return
        with nullcontext() if watch is None else watch.phase("messages"):
            failed = self.any(False)
        if failed:
            texts = self.allgather_text("")
            first = next(rank for rank, text in enumerate(texts) if text)
            raise revive_error(texts[first], first)


class SerialCommunicator(Communicator):
    """One process: nothing to send, nothing to wait for."""

    rank = 0
    size = 1

    def isend(self, array: Any, dest: int) -> Request:  # noqa: D102
        raise RuntimeError("one process has nobody to send to")

    def irecv(self, array: Any, source: int) -> Request:  # noqa: D102
        raise RuntimeError("one process has nobody to receive from")

    def allgather_blocks(  # noqa: D102
        self, array: NDArray[Any], rows: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        return array.copy()

    def gather_blocks(self, array: NDArray[Any], root: int = 0) -> NDArray[Any] | None:  # noqa: D102
        return array.copy()

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:  # noqa: D102
        return array.copy()

    def bcast(self, array: NDArray[Any], root: int) -> NDArray[Any]:  # noqa: D102
        return array

    def barrier(self) -> None:  # noqa: D102
        return

    def duplicate(self) -> Communicator:  # noqa: D102
        return self

    def reversed(self) -> Communicator:  # noqa: D102
        return self

    def split(self, size: int) -> Communicator:  # noqa: D102
        return self

    def across(self, size: int) -> Communicator:  # noqa: D102
        return self

    def abort(self) -> None:  # noqa: D102
        sys.exit(1)


class MPICommunicator(Communicator):
    """An MPI communicator; upper-case calls on buffers only.

    Sums of floating-point numbers are reduced and then broadcast: MPI does not promise that
    Allreduce rounds alike on all ranks, and replicas of parameters must not drift apart.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        The ranks. Duplicate it (`duplicate`) to keep messages apart from those of other code.
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


def world() -> Communicator:
    """Return the ranks that `mpiexec` started; one process without mpiexec or mpi4py.

    Raises
    ------
    RuntimeError
        If mpiexec started several processes but mpi4py is not installed.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # not installed, or without an MPI library
        if _launched_size() > 1:
            raise RuntimeError(
                f"mpiexec started {_launched_size()} processes, but mpi4py cannot be imported "
                f'({error}): pip install "pint-mgrit[mpi]"'
            ) from error
        return SerialCommunicator()
    comm = MPI.COMM_WORLD
    return MPICommunicator(comm) if comm.Get_size() > 1 else SerialCommunicator()


def as_communicator(comm: Any) -> Communicator:
    """Return `comm` as a `Communicator`: None is one process, an mpi4py communicator is wrapped.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if comm is None:
        return SerialCommunicator()
    if isinstance(comm, Communicator):
        return comm
    if all(hasattr(comm, name) for name in ("Get_rank", "Allreduce", "Dup")):
        return MPICommunicator(comm)
    raise TypeError(f"comm must be a Communicator or an mpi4py communicator, got {type(comm)}")


def time_by_space(comm: Any, space_ranks: int) -> tuple[Communicator, Communicator]:
    """Return this rank's communicators in time and in space; collective.

    Groups of `space_ranks` consecutive ranks share the space of the same block of time points: they
    step together, and hear of each other's nodes by the second communicator, which a propagator
    that is parallel in space keeps. The ranks of one part of space share time: the first
    communicator is for `MGRIT`. States are a rank's part in space, and `Propagator.norm` must give
    the same number on all ranks in space, a norm over all of it, because all of them must stop
    together.

    Parameters
    ----------
    comm : mpi4py communicator or Communicator
        All ranks.
    space_ranks : int
        Ranks in space; it divides the number of ranks.

    Raises
    ------
    ValueError
        If it does not, on every rank.

    Examples
    --------
    >>> time, space = time_by_space(None, 1)
    >>> time.size, space.size
    (1, 1)
    """
    both = as_communicator(comm)
    if space_ranks < 1 or both.size % space_ranks:
        raise ValueError(f"space_ranks must divide {both.size} ranks, got {space_ranks}")
    return both.across(space_ranks), both.split(space_ranks)


def run(main: Callable[[], int], comm: Communicator) -> int:
    """Run `main`; an exception on one rank ends all ranks, so that none waits for ever.

    Parameters
    ----------
    main : callable
        Returns an exit status; SystemExit passes through.
    comm : Communicator
        The ranks that run it.
    """
    try:
        return main()
    except (Exception, KeyboardInterrupt):
        if comm.size == 1:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        comm.abort()
        raise


def _launched_size() -> int:
    names = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")
    return max((int(os.environ[name]) for name in names if name in os.environ), default=1)
