"""Says that kernels are being compiled, which the first run on a machine does without a word."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from numba.core import event

from pint.parallel.comm import Communicator


class _Announcer(event.Listener):
    """Prints one line when the first function begins to be compiled; not for those on the disk."""

    def __init__(self, program: str) -> None:
        self.program, self.is_silent = program, True

    def on_start(self, event: Any) -> None:
        if self.is_silent:
            self.is_silent = False
            text = "compiling kernels; they are kept for the next time (it can take a minute)"
            print(f"{self.program}: {text}", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


@contextlib.contextmanager
def announced(program: str, comm: Communicator) -> Iterator[None]:
    """While entered, rank 0 says once on stderr that it compiles, if it does."""
    if comm.rank > 0:
        yield
        return
    with event.install_listener("numba:compile", _Announcer(program)):
        yield
