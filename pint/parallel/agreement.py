"""How ranks agree: what one of them knows, or where one of them fails, all of them learn."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pint.stopwatch import Stopwatch

__all__ = ["Communicator", "agree", "agreed", "share", "together"]

T = TypeVar("T")


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
    letters = np.frombuffer(text.encode(errors="backslashreplace"), dtype=np.uint8)
    lengths = comm.allgather_blocks(np.array([letters.size], dtype=np.int64))
    everything = comm.allgather_blocks(letters)
    parts = np.split(everything, np.cumsum(lengths)[:-1])
    return [part.tobytes().decode() for part in parts]


def agree(error: Exception | None, comm: Communicator) -> None:
    """Raise if any rank has an error: its own where it has one, else that of the first rank.

    Collective, and one small message where nobody has one.

    Parameters
    ----------
    error : Exception or None
        What went wrong on this rank.
    comm : Communicator
        The ranks that take part.

    Raises
    ------
    Exception
        `error` itself; on other ranks one of the same type with the rank's number behind the text,
        where that is a common one, else RuntimeError.
    """
    failed = comm.allgather_blocks(np.array([error is not None], dtype=np.uint8))
    if not failed.any():
        return
    texts = share(_described(error), comm)
    if error is not None:
        raise error
    first = int(np.flatnonzero(failed)[0])
    raise _revived(texts[first], suffix=f" (on rank {first})")


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
            raise _revived(text, prefix=f"rank {rank}: ") from failure


_SHARED: tuple[type[Exception], ...] = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    OSError,
    ImportError,
    NotImplementedError,
    FloatingPointError,
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


def _revived(text: str, prefix: str = "", suffix: str = "") -> Exception:
    """Return the exception that `_described` put into words."""
    kind, _, message = text.partition(" ")
    shared = _SHARED[int(kind)]
    return (RuntimeError if shared is Exception else shared)(f"{prefix}{message}{suffix}")


def agreed(comm: Communicator, action: Callable[[], T]) -> T:
    """Return what `action` does; if it fails on any rank, raise on all of them; collective."""
    try:
        done = action()
    except Exception as error:  # every rank must hear of it
        agree(error, comm)
        raise
    with Stopwatch().phase("messages"):
        agree(None, comm)
    return done
