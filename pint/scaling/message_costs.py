"""What messages take between the ranks of a communicator."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys

import numpy as np

from pint.options import at_least
from pint.parallel.comm import Communicator, world
from pint.scaling.machine import Machine
from pint.scaling.samples import median_seconds

SMALL, LARGE = 64, 1 << 20
"""Bytes of the messages that are timed."""


def measure_network(comm: Communicator, repeats: int = 200) -> Machine:
    """Return what messages take between the first two ranks, and collective calls of all.

    Collective; the same on every rank. Message passing within one machine is what it is: on a
    cluster put the ranks on two nodes, and write both into the file of a machine.

    Parameters
    ----------
    comm : Communicator
        At least 2 ranks.
    repeats : int, default 200
        Messages of each size; large ones a tenth of it.

    Raises
    ------
    ValueError
        If there is one rank only.
    """
    at_least("ranks for measuring messages", comm.size, 2)
    few = max(repeats // 10, 5)
    small, large = _round_trip(comm, SMALL, repeats) / 2, _round_trip(comm, LARGE, few) / 2
    rounds = math.ceil(math.log2(comm.size))
    calls = {
        size: _collective(comm, size, repeats if size == SMALL else few) for size in (SMALL, LARGE)
    }
    bandwidth = (LARGE - SMALL) / max(large - small, 1e-9)
    collective_bandwidth = rounds * (LARGE - SMALL) / max(calls[LARGE] - calls[SMALL], 1e-9)
    measured = np.array([small, bandwidth, calls[SMALL] / rounds, collective_bandwidth])
    latency, bandwidth, call, call_bandwidth = comm.bcast(measured, 0).tolist()
    return Machine(
        name=platform.node() or "this machine",
        latency=latency,
        bandwidth=bandwidth,
        collective_latency=call,
        collective_bandwidth=call_bandwidth,
        ranks_per_node=os.cpu_count() or 1,
    )


def _round_trip(comm: Communicator, size: int, repeats: int) -> float:
    """Return the median seconds of a message to the other rank and back; 0.0 on other ranks."""
    if comm.rank > 1:
        return 0.0
    there, back = np.zeros(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)

    def there_and_back() -> None:
        if comm.rank == 0:
            comm.isend(there, 1).wait()
            comm.irecv(back, 1).wait()
        else:
            comm.irecv(back, 0).wait()
            comm.isend(there, 0).wait()

    return median_seconds(there_and_back, repeats)


def _collective(comm: Communicator, size: int, repeats: int) -> float:
    """Return the median seconds of a sum over all ranks."""
    array = np.zeros(size // 8)
    return median_seconds(lambda: comm.sum(array), repeats, comm.barrier)


def measured_apart(mpiexec: str, ranks: int = 2) -> Machine | None:
    """Return what messages take between new processes, or None if they cannot be started.

    For a program that is one process itself.
    """
    command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "pint.scaling.message_costs"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return Machine(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


if __name__ == "__main__":
    machine = measure_network(world())
    if world().rank == 0:
        print(json.dumps(vars(machine)))
