"""Solve windows of time one after another, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pint.grid.timegrid import TimeGrid, as_grid
from pint.mgrit.result import Result
from pint.mgrit.solver import MGRIT
from pint.mgrit.status import Status
from pint.options import MGRITOptions, at_least, one_of
from pint.parallel.comm import as_communicator
from pint.propagator import Propagator, State, as_state


def solve_in_windows(
    propagator: Propagator,
    grid: TimeGrid | ArrayLike,
    initial_value: State,
    num_steps: int,
    options: MGRITOptions | None = None,
    comm: Any = None,
    *,
    guess: Literal["hold", "shift"] = "hold",
    path: str | os.PathLike[str] | None = None,
) -> Iterator[Result]:
    """Solve window after window, each from the last state of the previous window.

    All ranks work on one window at a time. Steps have their indices on the whole grid. The memory
    holds one window, all times, and the results that the caller keeps.

    Parameters
    ----------
    propagator : Propagator
        The model.
    grid : TimeGrid or array_like of float64, shape (N + 1,)
        All time points.
    initial_value : array_like, shape state_shape
        u_0, as in `MGRIT.solve`.
    num_steps : int
        Number of steps of a window; the last window may have fewer.
    options : MGRITOptions, optional
        Options of the solver in each window.
    comm : mpi4py communicator or Communicator, optional
        The ranks.
    guess : {"hold", "shift"}, default "hold"
        Guess of a window: its first state at all points, or the states of the previous window,
        point by point (if the numbers of points agree). With `skip_first_down` no cycle uses a
        guess, and "shift" is refused.
    path : path-like, optional
        Run file, with one name on every rank, to which each window is written after its solve. It
        is replaced. While windows are missing it is marked as not finished, with NaN in them.

    Yields
    ------
    Result
        Result of each window, with the times of its points; its first point is the last point of
        the previous window. No convergence is a status; a window that diverged is the last one.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, on every rank, before the first window.
    OSError
        If the file cannot be written; on every rank.

    Examples
    --------
    >>> from pint.models.dahlquist import Dahlquist
    >>> results = solve_in_windows(Dahlquist(), range(101), 1.0, 10, MGRITOptions(tolerance=1e-9))
    >>> sum(len(result.u) - 1 for result in results)
    100
    """
    times, options = as_grid(grid).times, MGRITOptions() if options is None else options
    communicator = as_communicator(comm)
    at_least("num_steps", num_steps, 1)
    _check(options, guess)
    begins = range(0, times.size - 1, num_steps)
    before: Result | None = None
    for window, begin in enumerate(begins):
        end = min(begin + num_steps, times.size - 1)
        part = TimeGrid(times[begin : end + 1], fine=np.arange(begin, end + 1))
        short = end - begin < num_steps and not options.factors(end - begin)
        here = replace(options, storage="all") if short else options  # one level has no C-points
        solver = MGRIT(propagator, part, here, communicator)
        state = initial_value if before is None else before.final_state()
        result = solver.solve(state, _guess(solver, state, before, guess))
        if path is not None:
            from pint.results.window_files import write_window

            write_window(path, result, options, times, begin, (window, len(begins)))
        yield result
        if result.status is Status.DIVERGED:
            return
        before = result


def _check(options: MGRITOptions, guess: str) -> None:
    one_of("guess", guess, ("hold", "shift"))
    if guess == "shift" and options.skip_first_down:
        raise ValueError("guess 'shift' needs skip_first_down=False: no cycle would look at it")
    if options.periodic:
        raise ValueError("a periodic problem is one window: call solve")


def _guess(solver: MGRIT, state: State, before: Result | None, guess: str) -> Any:
    """Return the guess of a window; None where no cycle uses it."""
    if solver.options.skip_first_down:
        return None
    if guess == "shift" and before is not None and before.times.size == solver.grid.times.size:
        return before.u
    return as_state(solver.propagator, state, "initial value")
