"""Write run files of a solve: its result, and its state in callbacks."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pint.results.record import Options, OptionValue, RunRecord
from pint.results.writer import write_solution

if TYPE_CHECKING:
    from pint.mgrit.result import Result, Visit
    from pint.mgrit.solver import MGRIT
    from pint.options import MGRITOptions


def write_result(
    path: str | os.PathLike[str], result: Result, options: MGRITOptions | None = None
) -> None:
    """Write the result of a solve to a run file. Collective.

    The file holds the states, all times, the residuals and the levels. For every rank it has steps
    by level, seconds by phase and memory.

    Parameters
    ----------
    path : path-like
        The run file, with one name on every rank; replaced if it exists.
    result : Result
        The result of this rank.
    options : MGRITOptions, optional
        Options to write; the options of the solve by default.

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
    given = {"solver": as_mapping(result.options if options is None else options)}
    record = replace(record_of(result), options=given)
    write_solution(path, record, np.asarray(result.u), result.first, result.comm)


def record_of(result: Result) -> RunRecord:
    """Return the record of a solve without its options and states. Collective."""
    profile = result.profile()
    compiling = result.comm.allgather_blocks(np.array([result.compile_seconds]))
    return RunRecord(
        command=_command(),
        ranks=result.comm.size,
        hosts=result.comm.num_hosts(),
        times=result.times,
        coarsening=result.coarsening,
        history={"residual": result.residuals},
        timings={**profile.seconds, "compile": compiling},
        work={"steps": profile.num_steps, "bytes": profile.num_bytes},
        finished=True,
        status=_status(result),
    )


def _status(result: Result) -> str:
    """Return how a solve ended, and the place of a divergence."""
    status = f"{result.status.name.lower()}, {result.status.value}"
    return f"{status} ({result.detail})" if result.detail else status


def write_iteration(
    path: str | os.PathLike[str], solver: MGRIT, iteration: int, residual: float
) -> None:
    """Write the states after a cycle to a run file, from `on_iteration`. Collective.

    Parameters
    ----------
    path : path-like
        The run file, with one name on every rank; replaced if it exists.
    solver : MGRIT
        The solver, during a solve.
    iteration : int
        Number of the cycle, written as an option.
    residual : float
        Its residual, the only one of the history.

    Raises
    ------
    OSError
        If the file cannot be written; on every rank.
    """
    _write_level(path, solver, solver.finest, {"iteration": iteration}, residual)


def write_visit(path: str | os.PathLike[str], solver: MGRIT, visit: Visit) -> None:
    """Write the states of a level to a run file, from `on_visit`. Collective.

    Parameters
    ----------
    path : path-like
        The run file, with one name on every rank; replaced if it exists.
    solver : MGRIT
        The solver, during a solve.
    visit : Visit
        The argument of `on_visit`. Iteration and level become options; times and states are on
        this level.

    Raises
    ------
    OSError
        If the file cannot be written; on every rank.
    """
    _write_level(path, solver, visit, {"iteration": visit.iteration, "level": visit.level})


def _write_level(
    path: str | os.PathLike[str],
    solver: MGRIT,
    visit: Visit,
    options: Options,
    *residuals: float,
) -> None:
    num_steps = solver.finest.times.size - 1
    record = RunRecord(
        command=_command(),
        ranks=solver.comm.size,
        hosts=solver.comm.num_hosts(),
        options=options,
        times=visit.times,
        coarsening=solver.options.factors(num_steps)[visit.level :],
        history={"residual": np.array(residuals)} if residuals else {},
        finished=False,
    )
    write_solution(path, record, np.asarray(visit.u), visit.first, solver.comm)


def _command() -> str:
    return shlex.join(sys.argv) or "python"


def as_mapping(options: MGRITOptions) -> dict[str, OptionValue]:
    """Return options for a run file, with names such as "delta.level" for fields of groups.

    Long lists of C-points are described in words.
    """
    given: dict[str, OptionValue] = {}
    for field in fields(options):
        value = getattr(options, field.name)
        parts = vars(value) if is_dataclass(value) else None
        given |= (
            {f"{field.name}.{k}": v for k, v in parts.items()} if parts else {field.name: value}
        )
    if isinstance(options.coarsening, tuple) and not all(
        isinstance(entry, int) for entry in options.coarsening
    ):
        entries = (m if isinstance(m, int) else f"{len(m)} points" for m in options.coarsening)
        given["coarsening"] = ", ".join(map(str, entries))
    return given
