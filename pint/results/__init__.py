"""One HDF5 file per run: written by :func:`write_run`, read by :func:`open_run`."""

from pint.results.reader import Run, open_run
from pint.results.record import RunRecord
from pint.results.solution import record_of, write_iteration, write_result, write_visit
from pint.results.summary import glance, summarize
from pint.results.writer import check_target, write_run, write_solution

__all__ = [
    "Run",
    "RunRecord",
    "check_target",
    "glance",
    "open_run",
    "record_of",
    "summarize",
    "write_iteration",
    "write_result",
    "write_run",
    "write_solution",
    "write_visit",
]
