"""Messages between ranks: the interface, and its implementation on one rank."""

from __future__ import annotations

import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

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
    """Whether an error ended an `exchange`: messages may be under way without a receiver."""

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
                "taken for messages of another: let errors end all ranks (pint.run does), or, "
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

        With the numbers of rows of all ranks, `rows`, it is one message, else two.
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
        """Overwrite `array` with the array of rank `root`, and return it."""

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
        """Return whether `flag` is true on any rank."""
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
        raise RuntimeError("one process has no other rank to send to")

    def irecv(self, array: Any, source: int) -> Request:  # noqa: D102
        raise RuntimeError("one process has no other rank to receive from")

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
