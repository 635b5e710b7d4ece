"""An optimal-control problem with a known optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.objective import Objective
from pint.grid.timegrid import TimeGrid
from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]


class Controlled(Propagator):
    """u' = a u + c(t) by backward Euler, with one number c_i for each step of the finest grid.

    A coarse step takes the mean of the numbers of its finest steps. The parameters are
    c_1..c_N; every rank holds all of them.

    Parameters
    ----------
    num_steps : int
        Number N of finest steps.
    rate : float, default 1.0
        a, per unit of time; coarse steps must be shorter than 1 / a.

    Raises
    ------
    ValueError
        If `num_steps` is below 1.
    """

    state_shape = ()
    dtype = np.dtype(np.float64)
    batched = True

    def __init__(self, num_steps: int, rate: float = 1.0) -> None:
        at_least("num_steps", num_steps, 1)
        self.rate = float(rate)
        self.parameters: Array = np.zeros(num_steps)

    def step(self, u: Any, step: Step) -> Any:
        """Return (u + dt c) / (1 - a dt)."""
        c = np.array([self.parameters[covered].mean() for covered in _covered(step)])
        return (u + step.dt * c) / (1 - self.rate * step.dt)

    def adjoint_step(self, w: Any, u: Any, step: Step) -> Any:
        """Return w / (1 - a dt): a number is its own transpose."""
        return w / (1 - self.rate * step.dt)

    def adjoint_gradient(self, w: Any, u: Any, step: Step) -> Array:
        """Return dt w / (1 - a dt), spread evenly over the covered steps; shape (N,)."""
        gradient = np.zeros_like(self.parameters)
        share = step.dt * self.adjoint_step(w, u, step) / step.num_fine
        for covered, part in zip(_covered(step), share, strict=True):
            gradient[covered] += part
        return gradient


def _covered(step: Step) -> list[slice]:
    """Return which numbers belong to each step of a stack."""
    first, last = np.atleast_1d(step.first).tolist(), np.atleast_1d(step.last).tolist()
    return [slice(i - 1, j) for i, j in zip(first, last, strict=True)]


def objective(grid: TimeGrid, price: float = 0.1) -> Objective:
    """Return J = 1/2 sum_i dt_i (u_i^2 + gamma c_i^2), i = 1..N; gamma is the price of control.

    Raises
    ------
    ValueError
        If the price is not positive.
    """
    positive("price", price)
    dt = np.concatenate([[0.0], np.diff(grid.times)])

    def running(u: Array, index: NDArray[np.int64], times: Array) -> tuple[Array, Array]:
        return dt[index] * u**2 / 2, dt[index] * u

    def of_parameters(c: Array) -> tuple[float, Array]:
        return price * math.fsum(dt[1:] * c**2) / 2, price * dt[1:] * c

    return Objective(running=running, of_parameters=of_parameters)


def optimum(
    rate: float = 1.0, price: float = 0.1, stop: float = 1.0
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], float]:
    """Return state, control and value at the optimum of 1/2 int (u^2 + gamma c^2) from u(0) = 1.

    Both are functions of time. Pontryagin's conditions c = -p / gamma, p' = -a p - u, p(T) = 0
    give u'' = mu^2 u with mu^2 = a^2 + 1 / gamma.
    """
    mu = math.sqrt(rate**2 + 1 / price)
    scale = mu * math.cosh(mu * stop) - rate * math.sinh(mu * stop)

    def state(t: Any) -> Any:
        return (mu * np.cosh(mu * (stop - t)) - rate * np.sinh(mu * (stop - t))) / scale

    def control(t: Any) -> Any:
        return -np.sinh(mu * (stop - t)) / (price * scale)

    return state, control, math.sinh(mu * stop) / scale / 2


def problem(num_steps: int = 128, rate: float = 1.0, price: float = 0.1) -> Problem:
    """Return u' = u + c, u(0) = 1 on [0, 1] with c at its optimum, see `optimum`."""
    state, control, _ = optimum(rate, price)
    model = Controlled(num_steps, rate)
    model.parameters[:] = control(np.arange(1, num_steps + 1) / num_steps)
    return Problem(
        name="optimal control",
        propagator=model,
        initial_value=np.array(1.0),
        span=(0.0, 1.0),
        num_steps=num_steps,
        exact=lambda t: np.asarray(state(t)),
        order=1,
        source="Pontryagin's conditions in closed form",
    )
