"""Initial-value problems of the models, with their solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.grid.timegrid import TimeGrid
from pint.mgrit.result import Result
from pint.options import at_least
from pint.parallel.comm import as_communicator
from pint.propagator import Propagator, State, declared


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """An initial-value problem: a model, its initial value, and its solution.

    The function `problem` of each model's module makes one, so that apps, tests and tables have one
    interface to all models.

    Parameters
    ----------
    name : str
        Name in tables and figures.
    propagator : Propagator
        The model.
    initial_value : array, shape state_shape
        u at the first time of `span`.
    span : tuple of float
        First and last time.
    num_steps : int
        Number of steps that resolve the solution.
    exact : callable
        Solution of the differential equation: a function of time that returns a state.
    order : int
        Order of the integrator in time.
    source : str
        Source of the solution.

    Raises
    ------
    ValueError
        If `num_steps` is below 1, or the initial value has not the shape of a state.
    """

    name: str
    propagator: Propagator = field(repr=False)
    initial_value: State
    span: tuple[float, float]
    num_steps: int
    exact: Callable[[float], State]
    order: int
    source: str

    def __post_init__(self) -> None:
        at_least("num_steps", self.num_steps, 1)
        shape = declared(self.propagator)[0]
        if shape not in (None, np.shape(self.initial_value)):
            raise ValueError(
                f"initial_value has shape {np.shape(self.initial_value)}, expected {shape}"
            )

    def grid(self, num_steps: int | None = None) -> TimeGrid:
        """Return the uniform grid of the span, by default with the problem's `num_steps`."""
        return TimeGrid.uniform(*self.span, self.num_steps if num_steps is None else num_steps)

    def error(self, result: Result) -> float:
        """Return the maximum error over all entries and states, on every rank; collective."""
        comm = as_communicator(result.comm)
        times = result.times[result.first :].tolist()
        pairs = zip(result.u, times, strict=False)
        own = [np.abs(np.asarray(u) - self.exact(t)).max() for u, t in pairs]
        every: NDArray[Any] = comm.allgather_blocks(np.array([np.max(own, initial=0.0)]))
        return float(every.max())


def reference(
    rhs: Callable[[float, NDArray[np.float64]], Any],
    initial_value: NDArray[np.float64],
    span: tuple[float, float],
) -> Callable[[float], NDArray[np.float64]]:
    """Return the solution of u' = rhs(t, u) by scipy's method of order 8.

    It is computed at the first call, with relative tolerance 1e-13, and interpolated.

    Parameters
    ----------
    rhs : callable
        Right-hand side, a function of time and state.
    initial_value : ndarray of float64, shape (n,)
        State at the first time of `span`.
    span : tuple of float
        First and last time.

    References
    ----------
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, II.5, for
    the method (DOP853).
    """
    solutions: list[Any] = []

    def solution(t: float) -> NDArray[np.float64]:
        if not solutions:
            from scipy.integrate import solve_ivp

            solved = solve_ivp(
                rhs, span, initial_value, "DOP853", rtol=1e-13, atol=1e-14, dense_output=True
            )
            solutions.append(solved.sol)
        return np.asarray(solutions[0](t))

    return solution
