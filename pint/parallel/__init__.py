"""Ranks and threads: messages, agreement on errors, exact sums."""

from pint.parallel.comm import (
    Communicator,
    MPICommunicator,
    SerialCommunicator,
    as_communicator,
    run,
    time_by_space,
    world,
)
from pint.parallel.thread_ranks import DeadlockError, run_on_threads

__all__ = [
    "Communicator",
    "DeadlockError",
    "MPICommunicator",
    "SerialCommunicator",
    "as_communicator",
    "run",
    "run_on_threads",
    "time_by_space",
    "world",
]
