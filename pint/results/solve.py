"""The run file of a solve."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from pint.results.record import OptionValue, RunRecord
from pint.results.writer import write_solution

if TYPE_CHECKING:
    from pint.mgrit.solver import Result
    from pint.options import MGRITOptions


def write_result(
    path: str | os.PathLike[str], result: Result, options: MGRITOptions | None = None
) -> None:
    """Write the result of a solve to a run file. Collective.

    The file holds the states, all times, the residuals, and the seconds of every rank by phase.

    Parameters
    ----------
    path : path-like
        The run file, the same on every rank; replaced if it exists.
    result : Result
        The result, on every rank its own.
    options : MGRITOptions, optional
        Options of the solve, to be kept with it.

    Raises
    ------
    OSError
        If the file cannot be written; on every rank.

    Examples
    --------
    >>> import tempfile
    >>> from pint import MGRIT, open_run
    >>> from pint.models.dahlquist import Dahlquist
    >>> from pint.results import write_result
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = f"{folder}/run.h5"
    ...     end = lambda result: write_result(file, result)
    ...     result = MGRIT(Dahlquist(), [0.0, 1.0, 2.0, 3.0, 4.0]).solve(1.0, on_end=end)
    ...     float(open_run(file).solution[2])
    0.25
    """
    record = RunRecord(
        command=shlex.join(sys.argv) or "python",
        ranks=result.comm.size,
        hosts=result.comm.num_hosts(),
        options={} if options is None else {"solver": as_mapping(options)},
        times=result.times,
        coarsening=tuple(m if isinstance(m, int) else 0 for m in result.coarsening),
        history={"residual": result.residuals},
        timings=result.profile().seconds,
        finished=True,
    )
    write_solution(path, record, np.asarray(result.u), result.first, result.comm)


def as_mapping(options: MGRITOptions) -> dict[str, OptionValue]:
    """Return options as a run file holds them; chosen C-points in words, as they may be many."""
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    if isinstance(options.coarsening, tuple) and not all(
        isinstance(entry, int) for entry in options.coarsening
    ):
        entries = (m if isinstance(m, int) else f"{len(m)} points" for m in options.coarsening)
        given["coarsening"] = ", ".join(map(str, entries))
    return given
