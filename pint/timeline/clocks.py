"""Measure the offset between the clocks of the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pint.parallel.comm import Communicator


def clock_offset(
    comm: Communicator, clock: Callable[[], float] = time.perf_counter, rounds: int = 20
) -> tuple[float, float]:
    """Return the offset of this rank's clock from rank 0's, and a bound of its error; collective.

    Each rank in turn requests the time of rank 0. The answer is sent between request and arrival,
    so that half of the round trip bounds the error. The shortest round counts.

    Parameters
    ----------
    comm : Communicator
        The ranks.
    clock : callable
        Returns seconds.
    rounds : int, default 20
        Number of requests of each rank.

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
