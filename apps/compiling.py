"""Print the announcement that kernels are compiled as a line of the program."""

from __future__ import annotations

import logging
import sys

from pint.parallel.comm import Communicator


class _Printer(logging.Handler):
    """Print to the stderr of the moment, which tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def announce(program: str, comm: Communicator) -> None:
    """Print what pint logs on stderr, after the program's name; on rank 0."""
    handler = _Printer() if comm.rank == 0 else logging.NullHandler()
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    logging.getLogger("pint").handlers[:] = [handler]
