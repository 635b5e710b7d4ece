"""Ranks that are threads of one process: for notebooks, teaching and tests, not for speed."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.parallel.communicator import Communicator, Request

T = TypeVar("T")

_CURRENT: ContextVar[ThreadCommunicator | None] = ContextVar("rank", default=None)


class DeadlockError(RuntimeError):
    """All ranks wait, and no message can come. The text says where each rank stands."""


class OtherRankError(RuntimeError):
    """Another rank has failed; its error is the cause."""


def run_on_threads(num_ranks: int, action: Callable[[Communicator], T]) -> list[T]:
    """Run a collective function on ranks that are threads of this process.

    Each rank calls ``action(comm)`` with its own communicator, which has the interface and, to the
    last bit, the results of a communicator of MPI: floating-point sums are added in the order of
    MPICH's ``Reduce``. Inside `action`, `pint.parallel.world` returns the same communicator.

    Python runs one thread at a time, so that more ranks do not make a program faster. Objects made
    outside of `action` are shared by all ranks. A model whose `step` changes nothing but its result
    may be shared; a `pint.rnn.network.Network`, a solver, or any other object that changes while it
    is used must be made inside `action`.

    Parameters
    ----------
    num_ranks : int
        Number of ranks.
    action : callable
        Gets the rank's communicator. All ranks must make the same collective calls in the same
        order, as under MPI.

    Returns
    -------
    list
        What `action` returned on each rank.

    Raises
    ------
    DeadlockError
        If all ranks wait and no message can come; raised on every rank where it waits.
    ValueError
        If `num_ranks` is less than 1.
    Exception
        The first error of a rank. The waits of all other ranks end with an error, of which it is
        the cause.

    Examples
    --------
    >>> from pint import MGRIT, MGRITOptions, TimeGrid
    >>> from pint.models.dahlquist import Dahlquist
    >>> grid, options = TimeGrid.uniform(0, 4, 64), MGRITOptions(tolerance=1e-12)
    >>> def solve(comm):
    ...     result = MGRIT(Dahlquist(), grid, options, comm).solve(1.0)
    ...     return len(result.u), result.num_iterations, f"{result.final_state():.12f}"
    >>> for own in run_on_threads(3, solve):
    ...     print(*own)
    22 8 0.020651325015
    22 8 0.020651325015
    21 8 0.020651325015
    >>> print(*solve(None))
    65 8 0.020651325015
    """
    if num_ranks < 1:
        raise ValueError(f"num_ranks must be at least 1, got {num_ranks}")
    world = _World(num_ranks)
    results: list[Any] = [None] * num_ranks

    def run_rank(rank: int) -> None:
        comm = ThreadCommunicator(world, range(num_ranks), rank)
        _CURRENT.set(comm)
        try:
            results[rank] = action(comm)
        except BaseException as error:
            world.end(rank, error)
        else:
            world.end(rank)

    threads = [
        threading.Thread(target=run_rank, args=(rank,), name=f"rank {rank}", daemon=True)
        for rank in range(num_ranks)
    ]
    world.run(threads)
    return results


def rank_of_thread() -> Communicator | None:
    """Return the communicator of the rank that this thread is, None outside `run_on_threads`."""
    return _CURRENT.get()


class _World:
    """What the ranks share: messages under way, meetings, and which rank waits for what.

    All of it belongs to the holder of the lock.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.channels: dict[tuple[Any, ...], _Channel] = {}
        self.meetings: dict[tuple[Any, ...], _Meeting] = {}
        self._threads: Sequence[threading.Thread] = ()
        self._wakeups = [threading.Condition(self.lock) for _ in range(size)]
        self._waits: list[_Wait | None] = [None] * size
        self._has_ended = [False] * size
        self._failure: BaseException | None = None
        self._failed_rank = 0

    def run(self, threads: Sequence[threading.Thread]) -> None:
        """Run the threads to their ends; raise the first error of a rank."""
        self._threads = threads
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:  # Ctrl-C ends all ranks
            with self.lock:
                self._fail(error, 0)
            raise
        if self._failure is not None:
            raise self._failure

    def end(self, rank: int, error: BaseException | None = None) -> None:
        """Note that a rank has ended, with an error or without."""
        with self.lock:
            self._has_ended[rank] = True
            if error is not None:
                self._fail(error, rank)
            self._check_deadlock()

    def notify(self, rank: int) -> None:
        """Let a rank look whether its wait is over."""
        self._wakeups[rank].notify()

    def wait(self, rank: int, wait: _Wait) -> None:
        """Return when the wait is over.

        Raises
        ------
        DeadlockError
            If all ranks wait.
        OtherRankError
            If another rank has failed.
        """
        self._waits[rank] = wait
        while not wait.is_over():
            self._check_deadlock()
            if isinstance(self._failure, DeadlockError):
                raise DeadlockError(str(self._failure))
            if self._failure is not None:
                raise OtherRankError(
                    f"rank {self._failed_rank} has failed: {self._failure!r}"
                ) from self._failure
            self._wakeups[rank].wait()
        self._waits[rank] = None

    def _fail(self, error: BaseException, rank: int) -> None:
        """Note the first error, and end all waits."""
        if self._failure is None:
            self._failure, self._failed_rank = error, rank
            for wakeup in self._wakeups:
                wakeup.notify()

    def _check_deadlock(self) -> None:
        stands = [
            ended or (wait is not None and not wait.is_over())
            for ended, wait in zip(self._has_ended, self._waits, strict=True)
        ]
        if all(stands) and not all(self._has_ended):
            frames = sys._current_frames()
            lines = [f"rank {rank} {self._stand(rank, frames)}" for rank in range(self.size)]
            text = "\n  ".join(["all ranks wait, and no message can come:", *lines])
            self._fail(DeadlockError(text), 0)

    def _stand(self, rank: int, frames: dict[int, FrameType]) -> str:
        wait = self._waits[rank]
        if wait is None or self._has_ended[rank]:
            return "has ended"
        return f"{wait.purpose()}, at {_position(frames.get(self._threads[rank].ident or 0))}"


class _Wait:
    """What a rank waits for."""

    def __init__(self, is_over: Callable[[], bool], purpose: Callable[[], str]) -> None:
        self.is_over, self.purpose = is_over, purpose


class _Channel:
    """Messages from one rank to another, on one communicator."""

    def __init__(self) -> None:
        self.num_sent = 0
        self.num_expected = 0
        self.arrived: dict[int, Any] = {}


class _Meeting:
    """One collective operation."""

    def __init__(self, size: int) -> None:
        self.arrays: list[Any] = [None] * size
        self.operations: list[str | None] = [None] * size
        self.num_done = 0

    def is_complete(self) -> bool:
        return None not in self.operations


class ThreadCommunicator(Communicator):
    """A communicator between threads, made by `run_on_threads`.

    A wait for a message that was sent ends when the other rank expects it, as MPI allows: programs
    that rely on buffers of MPI end with a `DeadlockError` here.
    """

    def __init__(
        self, world: _World, members: Sequence[int], rank: int, name: tuple[Any, ...] = ()
    ) -> None:
        self.rank, self.size = rank, len(members)
        self._world, self._members, self._name = world, members, name
        self._meetings = count()
        self._derived: dict[str, ThreadCommunicator] = {}

    def isend(self, array: Any, dest: int) -> Request:  # noqa: D102
        message = _copied(array)
        with self._world.lock:
            channel = self._channel(self.rank, dest)
            number, channel.num_sent = channel.num_sent, channel.num_sent + 1
            channel.arrived[number] = message
            self._world.notify(self._members[dest])
        return _Sent(self, channel, number, dest)

    def irecv(self, array: Any, source: int) -> Request:  # noqa: D102
        with self._world.lock:
            channel = self._channel(source, self.rank)
            number, channel.num_expected = channel.num_expected, channel.num_expected + 1
            self._world.notify(self._members[source])
        return _Expected(self, channel, number, source, array)

    def allgather_blocks(  # noqa: D102
        self, array: NDArray[Any], rows: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        blocks = self._meet(f"allgather_blocks of {_kind_of_rows(array)}", array)
        lengths = [len(block) for block in blocks]
        if rows is not None and lengths != rows.tolist():
            raise ValueError(f"the ranks have {lengths} rows, expected {rows.tolist()}")
        return np.concatenate(blocks)

    def gather_blocks(self, array: NDArray[Any], root: int = 0) -> NDArray[Any] | None:  # noqa: D102
        blocks = self._meet(f"gather_blocks of {_kind_of_rows(array)} to rank {root}", array)
        return np.concatenate(blocks) if self.rank == root else None

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:  # noqa: D102
        terms = [*self._meet(f"sum of {array.dtype} {array.shape}", array)]
        distance = 1
        while distance < self.size:  # the binomial tree of MPICH's Reduce
            for rank in range(0, self.size - distance, 2 * distance):
                terms[rank] = np.asarray(terms[rank] + terms[rank + distance], array.dtype)
            distance *= 2
        return terms[0].copy(order="C")

    def bcast(self, array: NDArray[Any], root: int) -> NDArray[Any]:  # noqa: D102
        kind = f"bcast of {array.dtype} {array.shape} from rank {root}"
        sent = self._meet(kind, array if self.rank == root else np.zeros(0))[root]
        if self.rank != root:
            np.asarray(array)[...] = sent  # a view, also of a torch tensor
        return array

    def barrier(self) -> None:  # noqa: D102
        self._meet("barrier", np.zeros(0))

    def duplicate(self) -> Communicator:  # noqa: D102
        return self._derive("duplicate", range(self.size))

    def reversed(self) -> Communicator:  # noqa: D102
        return self._derive("reversed", range(self.size)[::-1])

    def split(self, size: int) -> Communicator:  # noqa: D102
        first = self.rank // size * size
        group = range(self.size)[first : first + size]
        return self._derive(f"split {size}, group {self.rank // size}", group)

    def across(self, size: int) -> Communicator:  # noqa: D102
        place = self.rank % size
        return self._derive(f"across {size}, place {place}", range(self.size)[place::size])

    def abort(self) -> None:
        """Raise the error that is being handled, or SystemExit: it ends the waits of all ranks."""
        raise sys.exception() or SystemExit(1)

    def _derive(self, name: str, group: Sequence[int]) -> ThreadCommunicator:
        if name not in self._derived:
            members = [self._members[rank] for rank in group]
            self._derived[name] = ThreadCommunicator(
                self._world, members, group.index(self.rank), (*self._name, name)
            )
        return self._derived[name]

    def _channel(self, source: int, dest: int) -> _Channel:
        for rank in (source, dest):
            if not 0 <= rank < self.size:
                raise ValueError(f"there is no rank {rank} among {self.size}")
        return self._world.channels.setdefault((self._name, source, dest), _Channel())

    def _meet(self, operation: str, array: NDArray[Any]) -> list[NDArray[Any]]:
        """Return copies of the arrays of all ranks, which must not be changed."""
        world, key = self._world, (self._name, next(self._meetings))
        copy = np.asarray(array).copy(order="C")
        with world.lock:
            meeting = world.meetings.setdefault(key, _Meeting(self.size))
            meeting.arrays[self.rank], meeting.operations[self.rank] = copy, operation
            self._check_same(meeting.operations)
            for member in self._members:
                world.notify(member)
            self._wait(meeting.is_complete, f"waits in {operation}")
            meeting.num_done += 1
            if meeting.num_done == self.size:
                del world.meetings[key]
        return meeting.arrays

    def _check_same(self, operations: list[str | None]) -> None:
        own = operations[self.rank]
        for rank, other in enumerate(operations):
            if other not in (None, own):
                raise RuntimeError(
                    "collective operations differ: "
                    f"{own!r} on rank {self.rank}, {other!r} on rank {rank}{self._place()}"
                )

    def _wait(self, is_over: Callable[[], bool], purpose: str) -> None:
        wait = _Wait(is_over, lambda: purpose + self._place())
        self._world.wait(self._members[self.rank], wait)

    def _place(self) -> str:
        """Return the name of the communicator, "" for the one of all ranks."""
        return f" (communicator: {' > '.join(self._name)})" if self._name else ""


class _Sent:
    """A message that was sent."""

    def __init__(self, comm: ThreadCommunicator, channel: _Channel, number: int, dest: int) -> None:
        self.comm, self.channel, self.number, self.dest = comm, channel, number, dest

    def wait(self) -> None:
        purpose = f"waits until rank {self.dest} receives its message {self.number}"
        with self.comm._world.lock:
            self.comm._wait(lambda: self.channel.num_expected > self.number, purpose)


class _Expected:
    """A message that is to be received."""

    def __init__(
        self, comm: ThreadCommunicator, channel: _Channel, number: int, source: int, array: Any
    ) -> None:
        self.comm, self.channel, self.number, self.source = comm, channel, number, source
        self.array = array

    def wait(self) -> None:
        if self.array is None:
            return
        arrived, purpose = (
            self.channel.arrived,
            f"waits for message {self.number} of rank {self.source}",
        )
        with self.comm._world.lock:
            self.comm._wait(lambda: self.number in arrived, purpose)
            message = arrived.pop(self.number)
        shape = tuple(self.array.shape)
        if math.prod(message.shape) != math.prod(shape) or message.dtype != self.array.dtype:
            raise ValueError(
                f"rank {self.source} sent {message.dtype} {tuple(message.shape)}, rank "
                f"{self.comm.rank} expected {self.array.dtype} {shape}"
            )
        self.array[...] = message.reshape(shape)
        self.array = None


def _copied(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array_api_compat.array_namespace(array).asarray(array, copy=True)
    if not array.flags.c_contiguous:
        raise ValueError("the array of a message must be C-contiguous")
    return array.copy()


def _kind_of_rows(array: NDArray[Any]) -> str:
    return f"{array.dtype} rows {array.shape[1:]}"


_HERE = str(Path(__file__).parent)
_PINT = str(Path(__file__).parents[1])
_LIBRARY = str(Path(threading.__file__).parent)


def _position(frame: FrameType | None) -> str:
    """Return file and line of the innermost call that is not pint's, else not this package's."""
    calls = []
    while frame is not None:
        calls.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    for inside in ((_PINT, _LIBRARY), (_HERE, _LIBRARY)):
        for file, line in calls:
            if not file.startswith(inside):
                return f"{file}:{line}"
    return "an unknown line"
