"""Output of the apps from one rank only."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from pint.parallel.comm import Communicator


@contextlib.contextmanager
def quiet_unless(speaks: bool) -> Iterator[None]:
    """Let only one rank print usage errors and help."""
    if speaks:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def refuse(program: str, error: Exception, comm: Communicator) -> int:
    """Print an error that all ranks have, once; return the exit status."""
    if comm.rank == 0:
        print(f"{program}: {error}", file=sys.stderr)
    return 2
