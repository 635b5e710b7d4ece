"""How ranks agree: what one of them knows, or where one of them fails, all of them learn."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Communicator", "share", "together"]


class Communicator(Protocol):
    """What collective writing needs of a communicator."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def gather_blocks(self, array: NDArray[Any], root: int = 0) -> NDArray[Any] | None:
        """Return the blocks of all ranks along axis 0 on `root`, None elsewhere. Collective."""

    def allgather_blocks(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the blocks of all ranks along axis 0, in rank order. Collective."""


def share(text: str, comm: Communicator) -> list[str]:
    """Return the text of every rank, in rank order. Collective.

    Parameters
    ----------
    text : str
        What this rank has to say.
    comm : Communicator
        The ranks that take part.

    Returns
    -------
    list of str
        The same list on every rank, of length ``comm.size``.
    """
    letters = np.array(list(text.encode()), dtype=np.uint8)
    lengths = comm.allgather_blocks(np.array([letters.size], dtype=np.int64))
    everything = comm.allgather_blocks(letters)
    parts = np.split(everything, np.cumsum(lengths)[:-1])
    return [part.tobytes().decode() for part in parts]


def together(action: Callable[[], object], comm: Communicator) -> None:
    """Do `action` on every rank; if it fails on any, raise on all of them. Collective.

    Parameters
    ----------
    action : callable
        Work of this rank. It must not itself be collective.
    comm : Communicator
        The ranks that take part.

    Raises
    ------
    Exception
        The failure of the lowest rank that failed, with that rank's number in front: of its
        own type where that is ValueError, TypeError or an OSError of the file system, else
        RuntimeError.
    """
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    for rank, text in enumerate(share(_described(failure), comm)):
        if text:
            raise _revived(rank, text) from failure


_SHARED: tuple[type[Exception], ...] = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    OSError,
    TypeError,
    ValueError,
    Exception,
)


def _described(failure: Exception | None) -> str:
    """Return the number of the failure's type and its text, "" for none."""
    if failure is None:
        return ""
    kind = next(kind for kind, shared in enumerate(_SHARED) if isinstance(failure, shared))
    return f"{kind} {str(failure) or type(failure).__name__}"


def _revived(rank: int, text: str) -> Exception:
    """Return the exception that `_described` put into words."""
    kind, _, message = text.partition(" ")
    shared = _SHARED[int(kind)]
    return (RuntimeError if shared is Exception else shared)(f"rank {rank}: {message}")
