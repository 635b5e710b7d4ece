"""How far the clocks of the ranks are apart."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pint.parallel.comm import Communicator


def clock_offset(
    comm: Communicator, clock: Callable[[], float] = time.perf_counter, rounds: int = 20
) -> tuple[float, float]:
    """Return how far this rank's clock is ahead of rank 0's, and how wrong that may be; collective.

    Each rank in turn asks rank 0 for the time. Its answer was given between question and arrival,
    so that half their distance bounds the error; the shortest of all rounds counts.

    Parameters
    ----------
    comm : Communicator
        The ranks.
    clock : callable
        Returns seconds.
    rounds : int, default 20
        Questions of each rank.

    Returns
    -------
    offset, error : float
        Seconds.

    References
    ----------
    Cristian, "Probabilistic clock synchronization", Distributed Computing 3 (1989), 146-158.
    """
    answer, best = np.zeros(1), (0.0, 0.0)
    if comm.rank == 0:
        for rank in range(1, comm.size):
            for _ in range(rounds):
                comm.irecv(answer, rank).wait()
                comm.isend(np.array([clock()]), rank).wait()
        return best
    best = (0.0, np.inf)
    for _ in range(rounds):
        asked = clock()
        comm.isend(np.zeros(1), 0).wait()
        comm.irecv(answer, 0).wait()
        arrived = clock()
        error = (arrived - asked) / 2
        if error < best[1]:
            best = (asked + error - float(answer[0]), error)
    return best
