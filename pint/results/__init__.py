"""One HDF5 file per run: written by :func:`write_run`, read by :func:`open_run`."""

from pint.results.inspect import summarize
from pint.results.reader import Run, open_run
from pint.results.record import RunRecord
from pint.results.solve import write_result
from pint.results.writer import check_target, write_run, write_solution

__all__ = [
    "Run",
    "RunRecord",
    "check_target",
    "open_run",
    "summarize",
    "write_result",
    "write_run",
    "write_solution",
]
