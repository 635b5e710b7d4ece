"""Ctrl-C between batches, on all ranks at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from pint.parallel.comm import Communicator


class Interrupt:
    """While entered, the first Ctrl-C is a request that `requested` tells; a second one raises.

    A KeyboardInterrupt in the middle of a batch would leave the other ranks waiting for messages.

    Parameters
    ----------
    comm : Communicator
        The ranks; a request on any of them is one for all.
    """

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self.pending = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        try:
            self._previous = signal.signal(signal.SIGINT, self._hear)
        except ValueError:  # not the main thread: whoever owns it handles Ctrl-C
            self._previous = None
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def requested(self) -> bool:
        """Tell whether Ctrl-C was pressed on any rank; collective."""
        return self.comm.any(self.pending)
