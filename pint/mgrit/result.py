"""Results of a solve, and arguments of its callbacks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.grid.layout import Layout
from pint.mgrit.c_points import Trajectory
from pint.mgrit.lyapunov import Lyapunov
from pint.mgrit.status import Status
from pint.options import Coarsening, MGRITOptions
from pint.parallel.comm import Communicator
from pint.propagator import Propagator, State

PHASES = (
    "start",
    "relaxation",
    "residual",
    "restriction",
    "correction",
    "coarsest level",
    "messages",
    "cycle",
    "rest",
)
"""What the time of a solve is divided into; "cycle" are short ones while a timeline records."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """What every rank did in a solve.

    Attributes
    ----------
    num_steps : ndarray of int64, shape (ranks, levels)
        Evaluations of Phi.
    seconds : dict of str to ndarray of float64, shape (ranks,)
        Seconds by phase, see `Result.phases`.
    num_bytes : ndarray of int64, shape (ranks,)
        Bytes of the arrays of all levels.
    """

    num_steps: NDArray[np.int64]
    seconds: dict[str, NDArray[np.float64]]
    num_bytes: NDArray[np.int64]


class Visit(NamedTuple):
    """Argument of the callback at the end of a visit to a level.

    Parameters
    ----------
    iteration : int
        Number of the cycle, from 0.
    level : int
        0 is the finest.
    first : int
        Index, on the level, of this rank's first point.
    times : ndarray of float64, shape (N + 1,)
        All times of the level.
    u : array, shape (number of own points, ...state_shape)
        States at this rank's points; a view, to be read only, and changed by the cycles to come.
    """

    iteration: int
    level: int
    first: int
    times: NDArray[np.float64]
    u: State


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What a solve returns.

    Attributes
    ----------
    u : array, shape (number of own points, ...state_shape)
        States at this rank's points ``first``, ``first + 1``, ...
    first : int
        Index of the first own point on the finest grid.
    times : ndarray of float64, shape (N + 1,)
        All time points.
    status : Status
        How it ended; ``status.value`` is the advice.
    detail : str
        Where a diverged solve was seen to diverge; empty otherwise.
    residuals : ndarray of float64, shape (iterations,)
        Norm of the residual in each iteration, before its correction; NaN where none was measured
        (the first cycle of `skip_first_down`, and solves by time stepping).
    num_steps : dict of int to int
        Evaluations of Phi on this rank, by level.
    coarsening : tuple
        Coarsening factor of every level but the coarsest, or the indices of its C-points.
    seconds : float
        Wall time of the solve on this rank.
    phases : dict of str to float
        Seconds of it by phase: "relaxation", "residual", "restriction", "correction", "coarsest
        level", "messages" (waiting for them), "start" (checks and arrays), "rest" (a cycle that the
        compiled driver replays is one call, and all of it is here, unless a timeline records it:
        then a short one is a "cycle", and longer ones are split into their phases).
    num_bytes : int
        Bytes of the arrays of all levels on this rank.
    compile_seconds : float
        Wall time that the solver's construction spent on compiling kernels, or on loading them;
        not part of `seconds`.
    lyapunov : Lyapunov or None
        Lyapunov vectors and exponents, with `Delta` in some directions, where a cycle used it.
    trajectory : Trajectory or None
        The states at all points on demand, with `MGRITOptions.storage` "c_points"; `u`, `first`,
        `times` and all gathered or written states are then at the C-points only.
    error_estimates : ndarray of float64, shape (N,), or None
        With `Richardson`, the norm of the error that each step makes by itself
        (without extrapolation), as the last cycle saw it; the same on every rank.
    grid_steps : ndarray of int64, shape (iterations,)
        Number of steps of the finest grid in each iteration; it grows by refinement. All other
        fields belong to the last grid, except `num_steps`, which counts all grids.
    refinement_limit : str
        What `Refinement.max_points` has prevented; empty if nothing.
    propagator : Propagator
        The model, that in the finest space after refinement in space.
    options : MGRITOptions
        The options of the solve.
    """

    u: State
    first: int
    times: NDArray[np.float64]
    status: Status
    detail: str
    residuals: NDArray[np.float64]
    num_steps: dict[int, int]
    coarsening: tuple[Coarsening, ...]
    seconds: float
    phases: dict[str, float]
    num_bytes: int
    compile_seconds: float
    lyapunov: Lyapunov | None = None
    trajectory: Trajectory | None = None
    error_estimates: NDArray[np.float64] | None = None
    grid_steps: NDArray[np.int64]
    refinement_limit: str = ""
    propagator: Propagator = field(repr=False)
    options: MGRITOptions = field(repr=False)
    layout: Layout = field(repr=False)
    comm: Communicator = field(repr=False)

    @property
    def num_iterations(self) -> int:
        """Number of cycles, the first one of `skip_first_down` included."""
        return self.residuals.size

    @property
    def convergence_factor(self) -> float:
        """Mean factor by which a cycle reduced the residual; NaN if fewer than 2 were measured.

        The geometric mean over all residuals but zeros at the end.
        """
        measured = self.residuals[~np.isnan(self.residuals)]
        measured = measured[: 1 + int(np.max(np.flatnonzero(measured), initial=0))]
        if measured.size < 2 or measured[0] == 0:
            return math.nan
        return float((measured[-1] / measured[0]) ** (1 / (measured.size - 1)))

    def profile(self) -> Profile:
        """Return what every rank counted and measured; collective."""
        levels = range(len(self.coarsening) + 1)
        steps = np.array([[self.num_steps.get(level, 0) for level in levels]])
        seconds = np.array([[self.phases.get(phase, 0.0) for phase in PHASES]])
        sizes = self.comm.allgather_blocks(np.array([self.num_bytes]))
        per_phase = self.comm.allgather_blocks(seconds)
        return Profile(
            num_steps=self.comm.allgather_blocks(steps),
            seconds={phase: per_phase[:, k].copy() for k, phase in enumerate(PHASES)},
            num_bytes=sizes,
        )

    def gather(self) -> NDArray[Any]:
        """Return the states at all points, (N + 1, ...state_shape), on every rank; collective.

        New array; it holds the whole solution, so mind the memory.
        """
        return self.comm.allgather_blocks(np.ascontiguousarray(self.u))

    def final_state(self) -> NDArray[Any]:
        """Return the state at the last point, shape state_shape, on every rank; collective."""
        if self.trajectory is not None:
            return self.trajectory.state(self.trajectory.times.size - 1)
        last = self.layout.owner(self.layout.num_points - 1)
        own = self.comm.rank == last
        state = np.asarray(self.u[-1, ...]).copy() if own else np.empty(*_shape_and_dtype(self.u))
        return self.comm.bcast(state, last)


def _shape_and_dtype(u: State) -> tuple[tuple[int, ...], Any]:
    return tuple(u.shape[1:]), np.asarray(u[:0]).dtype
