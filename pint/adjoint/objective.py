"""Objectives of a solve: a sum over time points and a terminal term, with their gradient.

J = sum_i j_i(u_i) + k(u_N) + p(theta)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointResult, AdjointSolver
from pint.mgrit.result import Result
from pint.parallel.exact_sum import exact_sum, integer_digits
from pint.propagator import State

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """An objective: terms of the states, of the last state, and of the parameters.

    Each function returns a value and its derivative; those that are left out are zero.

    Parameters
    ----------
    running : callable, optional
        ``running(u, index, times)`` returns j_i(u_i), shape (n,), and its derivatives,
        shape (n, ...state_shape), for a stack of states at the points `index` at `times`, both of
        shape (n,). n may be zero.
    terminal : callable, optional
        ``terminal(u)`` returns k(u), a number, and its derivative, shape state_shape, for the last
        state.
    of_parameters : callable, optional
        ``of_parameters(theta)`` returns p(theta), a number, and its derivative, of the shape of
        the propagator's `parameters`.

    Raises
    ------
    ValueError
        If none is given.

    Examples
    --------
    >>> import numpy as np
    >>> half_square = Objective(terminal=lambda u: (u @ u / 2, u))
    """

    running: Callable[[Array, NDArray[np.int64], NDArray[np.float64]], tuple[Any, Any]] | None = (
        None
    )
    terminal: Callable[[Array], tuple[Any, Any]] | None = None
    of_parameters: Callable[[Array], tuple[Any, Any]] | None = None

    def __post_init__(self) -> None:
        if self.running is None and self.terminal is None and self.of_parameters is None:
            raise ValueError("an objective needs at least one of its terms")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """An objective and its gradient, alike on every rank, with the solves they are from.

    Attributes
    ----------
    value : float
        J, with the same bits on any number of ranks if the states have them.
    parameter_gradient : ndarray, shape (num_parameters,)
        dJ/dtheta.
    initial_gradient : ndarray, shape state_shape
        dJ/du_0.
    forward : Result
        The forward solve.
    backward : AdjointResult
        The adjoint solve.
    """

    value: float
    parameter_gradient: Array
    initial_gradient: Array
    forward: Result
    backward: AdjointResult


def value_and_gradient(
    objective: Objective,
    solver: AdjointSolver,
    initial_value: State,
    previous: Evaluation | None = None,
) -> Evaluation:
    """Return J and its gradient with respect to the parameters and the initial value; collective.

    The parameters belong to the solver's propagator: set them in place, call its `refresh`, then
    evaluate. States are NumPy arrays.

    Parameters
    ----------
    objective : Objective
        J.
    solver : AdjointSolver
        Solver of the adjoint problem, and with it the forward one.
    initial_value : array_like, shape state_shape
        u_0.
    previous : Evaluation, optional
        An earlier one by the same solver, whose states and adjoint states both solves start from.

    Returns
    -------
    Evaluation
        Value, gradient and both solves.

    Raises
    ------
    ValueError
        If there is a previous evaluation but a solver would not look at it, or a term of the
        objective returns arrays of the wrong shape; on every rank.
    """
    forward = solver.forward
    if not forward.keeps_all:
        raise ValueError("an objective needs all points: leave storage 'c_points' out")
    if previous is not None:
        _check_warm(solver)
    result = forward.solve(initial_value, None if previous is None else previous.forward.u)
    value, sources, terminal_gradient = _state_terms(objective, result)
    extra, direct = _parameter_term(objective, forward.propagator.parameters)
    adjoint = solver.solve(
        result,
        terminal_gradient,
        solver.at_reversed_points(sources),
        guess=None if previous is None else previous.backward.w,
    )
    return Evaluation(
        value=value + extra,
        parameter_gradient=adjoint.parameter_gradient + direct,
        initial_gradient=adjoint.initial_gradient,
        forward=result,
        backward=adjoint,
    )


def _check_warm(solver: AdjointSolver) -> None:
    for name, options in (
        ("forward", solver.forward.options),
        ("adjoint", solver.solver.options),
    ):
        if options.skip_first_down and options.levels > 1:
            raise ValueError(
                f"the {name} solver starts without a guess, so that it would not look at a "
                "previous evaluation: set skip_first_down=False"
            )


def _state_terms(objective: Objective, result: Result) -> tuple[float, Array, Array]:
    """Return the terms of the states, their derivatives at own points, and that at the last."""
    u = np.asarray(result.u)
    values, slopes, last = np.zeros(len(u) + 1), np.zeros_like(u), np.zeros(u.shape[1:], u.dtype)
    with result.comm.collective():
        if objective.running is not None:
            index = np.arange(result.first, result.first + len(u))
            found, slopes = objective.running(u, index, result.times[index])
            slopes = _shaped("running's derivatives", slopes, u.shape).astype(u.dtype)
            values[:-1] = _shaped("running's values", found, (len(u),))
        if len(u) and result.first + len(u) == result.times.size:
            last += slopes[-1]
            if objective.terminal is not None:
                values[-1], slope = objective.terminal(u[-1])
                last += _shaped("terminal's derivative", slope, u.shape[1:])
    return _sum(values, result), slopes, last


def _parameter_term(objective: Objective, parameters: Array | None) -> tuple[float, Array]:
    theta = np.zeros(0) if parameters is None else parameters
    if objective.of_parameters is None:
        return 0.0, np.zeros_like(theta)
    value, slope = objective.of_parameters(theta)
    return float(value), _shaped("of_parameters' derivative", slope, theta.shape)


def _sum(values: NDArray[np.float64], result: Result) -> float:
    """Return the sum over all ranks, rounded alike on any number of them; collective."""
    gains, losses = np.maximum(values, 0), np.maximum(-values, 0)
    plus, minus = (exact_sum(integer_digits(part), result.comm) for part in (gains, losses))
    return plus - minus


def _shaped(what: str, array: Any, shape: tuple[int, ...]) -> Array:
    found: Array = np.asarray(array)
    if found.shape != shape:
        raise ValueError(f"the objective's {what} have shape {found.shape}, expected {shape}")
    return found
