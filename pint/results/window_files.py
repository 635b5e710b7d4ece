"""Write a run file window by window."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from numpy.typing import NDArray

from pint.results.record import RunRecord
from pint.results.solution import as_mapping
from pint.results.writer import check_target, write_file

if TYPE_CHECKING:
    from pint.mgrit.result import Result
    from pint.options import MGRITOptions


def write_window(
    path: str | os.PathLike[str],
    result: Result,
    options: MGRITOptions,
    times: NDArray[np.float64],
    begin: int,
    window: tuple[int, int],
) -> None:
    """Write the states of a window to the run file of all windows. Collective.

    Rank 0 gathers one window and writes it; the first window creates the file.

    Parameters
    ----------
    path : path-like
        The run file.
    result : Result
        Result of the window.
    options : MGRITOptions
        Options of the window.
    times : ndarray of float64, shape (N + 1,)
        Times of all windows.
    begin : int
        Index of the window's first point.
    window : tuple of int
        Number of the window, from 0, and number of windows.

    Raises
    ------
    OSError
        If the file cannot be written; on every rank.
    """
    own, comm, target = np.asarray(result.u), result.comm, Path(path).resolve()
    if result.trajectory is not None:
        own = np.concatenate([own[:0], *(np.asarray(u) for _, u in result.trajectory.blocks())])
    states, hosts = comm.gather_blocks(np.ascontiguousarray(own)), comm.num_hosts()

    with comm.collective():
        if states is None:
            return
        if window[0] == 0:
            check_target(target)
            _make(target, states, options, times, window[1], (comm.size, hosts))
        with h5py.File(target, "r+") as file:
            file["solution/u"][begin : begin + len(states)] = states
            residuals = result.residuals[-options.max_iterations :]
            file["history/residual"][window[0], : residuals.size] = residuals
            file.attrs["finished"] = window[0] == window[1] - 1


def _make(
    target: Path,
    states: NDArray[np.generic],
    options: MGRITOptions,
    times: NDArray[np.float64],
    num_windows: int,
    machine: tuple[int, int],
) -> None:
    """Write the run file with NaN where windows are missing."""
    ranks, hosts = machine
    record = RunRecord(
        command=shlex.join(sys.argv) or "python",
        ranks=ranks,
        hosts=hosts,
        options={"solver": as_mapping(options)},
        times=times,
        history={"residual": np.full((num_windows, options.max_iterations), np.nan)},
        finished=False,
    )
    shape = (times.size, *states.shape[1:])
    missing = np.nan if states.dtype.kind in "fc" else None
    chunks = (min(len(states), times.size), *states.shape[1:])
    write_file(
        target,
        record,
        lambda group: group.create_dataset(
            "u", shape, states.dtype, chunks=chunks, fillvalue=missing
        ),
    )
