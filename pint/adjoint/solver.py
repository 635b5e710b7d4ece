"""The adjoint of a solve: a time-stepping problem on the reversed grid, for the same engine.

For J(u_N) + sum_i j_i(u_i) with u_i = Phi_i(u_{i-1}), the adjoint states are

    w_N = dJ/du_N + dj_N,    w_{i-1} = (dPhi_i/du)^T w_i + dj_{i-1},

and dJ/du_0 = w_0, dJ/dtheta = sum_i (dPhi_i/dtheta)^T w_i, both derivatives taken at u_{i-1}.
`docs/adjoint.md` derives this, and what the coarse levels do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.adjoint.propagator import AdjointPropagator
from pint.arrays import in_library_of
from pint.grid.level import Level, wait
from pint.mgrit.result import Result
from pint.mgrit.solver import MGRIT
from pint.mgrit.status import Status
from pint.options import MGRITOptions, instance_of
from pint.propagator import State, Step, as_state, check_adjoint, check_diagonal
from pint.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True, eq=False)
class AdjointResult:
    """What an adjoint solve returns.

    Attributes
    ----------
    initial_gradient : ndarray, shape state_shape
        dJ/du_0, on every rank (unless `total` was False).
    parameter_gradient : ndarray, shape (num_parameters,)
        dJ/dtheta, summed over all ranks, on every rank (unless `total` was False).
    w : array, shape (number of own reversed points, ...state_shape)
        Adjoint states of this rank in reversed order: row r belongs to forward point
        ``last - r``.
    last : int
        Forward index of the first row of `w`.
    status : Status
        How the solve ended.
    detail : str
        Where a diverged solve was seen to diverge; empty otherwise.
    residuals : ndarray of float64, shape (iterations,)
        As in `Result`.
    seconds : float
        Wall time of the solve on this rank.
    """

    initial_gradient: NDArray[Any]
    parameter_gradient: NDArray[Any]
    w: State
    last: int
    status: Status
    detail: str
    residuals: NDArray[np.float64]
    seconds: float


class AdjointSolver:
    """Solves the adjoint problem of a forward solver with the same engine, ranks reversed.

    Parameters
    ----------
    forward : MGRIT
        The forward solver.
    options : MGRITOptions, optional
        Options of the adjoint solve; by default the options of the forward solver, with driver
        "auto" in place of "compiled", because the adjoint has no kernel. A Delta correction is left
        out, unless by diagonals, because the adjoint has no tangent; so are error estimates.

    Raises
    ------
    ValueError
        If the forward solver extrapolates, chooses C-points by index, or has a layout in which
        rank 0 does not own point 0.

    Examples
    --------
    >>> from pint import TimeGrid
    >>> from pint.models.dahlquist import Dahlquist
    >>> forward = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 1, 8), MGRITOptions(tolerance=1e-12))
    >>> gradient = AdjointSolver(forward).solve(forward.solve(1.0), 1.0)
    >>> bool(abs(gradient.initial_gradient - (8 / 9) ** 8) < 1e-12)  # du_N / du_0
    True
    """

    def __init__(self, forward: MGRIT, options: MGRITOptions | None = None) -> None:
        instance_of("forward", forward, MGRIT)
        check_adjoint(forward.propagator)
        if forward.options.periodic:
            raise ValueError("the adjoint needs an initial value, and a periodic problem has none")
        if forward.grid.times[-1] != forward.fine_grid.times[-1]:
            raise ValueError(
                "the adjoint needs the last point, which storage 'c_points' keeps only where the "
                "first coarsening factor divides the number of steps"
            )
        if len(forward.layout.block(0)) == 0:
            raise ValueError("the adjoint needs a layout in which rank 0 owns point 0")
        if any(level.grid.fine is not None for level in forward.hierarchy.levels):
            raise ValueError("the adjoint needs coarsening factors, not indices of C-points")
        if forward.options.richardson is not None and forward.options.richardson.extrapolate:
            raise ValueError("the adjoint is of plain steps: set extrapolate=False")
        self.forward = forward
        self.propagator = AdjointPropagator(forward.propagator, forward.grid.times)
        self.comm = forward.comm.reversed()
        if options is None:
            compiled = forward.options.driver == "compiled"
            options = replace(
                forward.options,
                driver="auto" if compiled else forward.options.driver,
                delta=forward.options.delta if forward.options.uses_diagonals else None,
                richardson=None,
                refinement=None,
            )
        if options.uses_diagonals:
            check_diagonal(forward.propagator)
        self.solver = MGRIT(
            self.propagator,
            forward.grid.reversed(),
            options,
            self.comm,
            forward.layout.reversed(),
        )
        self.solver.value_name = "terminal gradient"
        self.watch = Stopwatch()
        self._states: State | None = None  # memory that every solve uses again

    def own_steps(self) -> list[Step]:
        """Return, level by level, the stack of forward steps that this rank transposes."""
        stacks = self.solver.hierarchy.own_steps()
        return [self.propagator.forward_step(stack) for stack in stacks]

    def solve(
        self,
        result: Result,
        terminal_gradient: State,
        sources: State | None = None,
        *,
        total: bool = True,
        guess: State | None = None,
        max_iterations: int | None = None,
        out: State | None = None,
        error: Exception | None = None,
    ) -> AdjointResult:
        """Solve for the gradient of J at a forward solution; collective.

        Parameters
        ----------
        result : Result
            Solution of the forward solver.
        terminal_gradient : array_like, shape state_shape
            dJ/du_N. The value on the rank that owns the last point counts; others only need its
            shape and dtype. Adjoint states are of the library of the forward states.
        sources : array, shape (number of own reversed points, ...state_shape), optional
            dj_i/du_i at the points of this rank's `AdjointResult.w`, in its order (the entry of
            the last point is ignored); zero if left out. See `at_reversed_points`.
        total : bool, default True
            Sum the gradients over the ranks. Otherwise each rank gets the part of its own steps,
            the gradient of the initial state is zero on all ranks but the owner of point 0, the
            status belongs to this rank's adjoint states, and `result` is not checked.
        guess : array, shape (number of own reversed points, ...state_shape), optional
            Adjoint states to begin with, as `AdjointResult.w` of an earlier solve; zero if left
            out. `skip_first_down` makes no use of it.
        max_iterations : int, optional
            Used for this solve in place of the option of the same name.
        out : array, shape (number of own reversed points + 1, ...state_shape), optional
            Memory for the adjoint states, as in `MGRIT.solve`.
        error : Exception, optional
            An error of this rank, which is raised on every rank before the first cycle.

        Returns
        -------
        AdjointResult
            Gradients and adjoint states.
        """
        instance_of("result", result, Result)
        if total:
            with self.forward.comm.collective():
                self._check_result(result)
        hierarchy = self.solver.hierarchy
        with self.watch.phase("linearization"):
            states = self.at_reversed_points(result.u)
            levels = self.propagator.at_levels(hierarchy, self.solver.driver, states)
            try:
                self.propagator.linearize_at(levels)
            except Exception as caught:  # raised on every rank by the solve
                error = error or caught
        solution = self.solver.solve(
            in_library_of(states, self._at_first(terminal_gradient)),
            guess,
            sources,
            max_iterations=max_iterations,
            out=out,
            error=error,
            local_status=not total,
        )
        with self.watch.phase("gradient"):
            own = _with_ghost(solution.u, hierarchy.levels[0], self._states)
            self._states = None if own is solution.u else own
            gradient = self.propagator.gradient(own, hierarchy.levels[0])
        self.propagator.release()
        with self.watch.phase("messages"):
            initial = solution.final_state() if total else self._own_initial(solution)
            gradient = self.comm.sum(gradient) if total and gradient.size else gradient
        return AdjointResult(
            initial_gradient=initial,
            parameter_gradient=gradient,
            w=solution.u,
            last=self.forward.grid.num_steps - solution.first,
            status=solution.status,
            detail=solution.detail,
            residuals=solution.residuals,
            seconds=solution.seconds,
        )

    def _own_initial(self, solution: Result) -> NDArray[Any]:
        """Return the adjoint state at point 0 on its owner, zero elsewhere."""
        u = np.asarray(solution.u)
        owns = solution.first + u.shape[0] == solution.layout.num_points
        return u[-1].copy() if owns and u.shape[0] else np.zeros_like(u, shape=u.shape[1:])

    def _check_result(self, result: Result) -> None:
        """Raise ValueError if the result is not one of the forward solver's."""
        forward = self.forward
        same = result.times is forward.grid.times or np.array_equal(
            result.times, forward.grid.times
        )
        if not same or not np.array_equal(result.layout.bounds, forward.layout.bounds):
            raise ValueError(
                "result is not one of the forward solver: times or layout differ; after a "
                "refinement, make a solver for result.times"
            )

    def _at_first(self, terminal_gradient: State) -> State:
        """Bring dJ/du_N from the rank that owns point N to the one that starts there."""
        source = self.forward.layout.owner(self.forward.grid.num_steps)
        target = self.comm.size - 1 - self.solver.layout.owner(0)
        if source == target:
            return terminal_gradient
        return self.forward.comm.bcast(
            as_state(self.propagator, terminal_gradient, "terminal gradient"), source
        )

    def at_reversed_points(self, u: State) -> State:
        """Bring states from this rank's forward points to its reversed ones; collective.

        Parameters
        ----------
        u : array, shape (number of own points, ...)
            In the order of `Result.u`.

        Returns
        -------
        array, shape (number of own reversed points, ...)
            In the order of `AdjointResult.w`; may be a view.
        """
        finest = self.forward.hierarchy.levels[0]
        xp = array_api_compat.array_namespace(u)
        own = self.solver.hierarchy.levels[0].block
        after = _first_of_right(u, finest)
        both = u if after is None else xp.concat([u, after])
        flipped = xp.flip(both, axis=0)
        last = finest.block.start + both.shape[0] - 1
        ahead = own.start - (self.forward.grid.num_steps - last)
        return flipped[ahead : ahead + len(own)]


def _first_of_right(u: State, level: Level) -> State | None:
    """Return the state at the first point of the right neighbour; collective over neighbours."""
    xp = array_api_compat.array_namespace(u)
    after = xp.empty_like(u[:1]) if level.right is not None else None
    arriving = None if after is None else level.comm.irecv(after, level.right or 0)
    leaving = None if level.left is None else level.comm.isend(u[:1], level.left)
    wait(arriving, leaving)
    return after


def _with_ghost(u: State, level: Level, both: State | None) -> State:
    """Return the own states behind the last one of the left neighbour, in `both` if that fits.

    Without any neighbour these are the own states themselves: no step leads to the first.
    """
    if level.left is None and level.right is None:
        return u
    shape, xp = (u.shape[0] + 1, *u.shape[1:]), array_api_compat.array_namespace(u)
    if both is None or tuple(both.shape) != shape or type(both) is not type(u):
        both = xp.empty(shape, dtype=u.dtype)
    both[1:] = u
    level.u = both
    level.exchange()
    level.u = None
    return both
