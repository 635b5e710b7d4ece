"""The ranks of this program, and how a program runs on them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from pint.parallel.communicator import Communicator, Request, SerialCommunicator
from pint.parallel.mpi import MPICommunicator
from pint.parallel.thread_ranks import rank_of_thread

__all__ = [
    "Communicator",
    "MPICommunicator",
    "Request",
    "SerialCommunicator",
    "as_communicator",
    "run",
    "time_by_space",
    "world",
]


def world() -> Communicator:
    """Return the ranks that mpiexec or `run_on_threads` started; without them, one rank.

    Raises
    ------
    RuntimeError
        If mpiexec started several processes but mpi4py is not installed.
    """
    if (comm := rank_of_thread()) is not None:
        return comm
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # not installed, or without an MPI library
        if _launched_size() > 1:
            raise RuntimeError(
                f"mpiexec started {_launched_size()} processes, but mpi4py cannot be imported "
                f'({error}): pip install "pint-mgrit[mpi]"'
            ) from error
        return SerialCommunicator()
    if MPI.COMM_WORLD.Get_size() == 1:
        return SerialCommunicator()
    return MPICommunicator(MPI.COMM_WORLD)


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
    step together, and exchange nodes by the second communicator, which belongs to a propagator
    that is parallel in space. The ranks of one part of space share time: the first
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


def run(main: Callable[[], int | None], comm: Communicator) -> int | None:
    """Run `main`; an exception on one rank ends all ranks, so that none waits for ever.

    Parameters
    ----------
    main : callable
        Returns an exit status, None for success; SystemExit passes through.
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
