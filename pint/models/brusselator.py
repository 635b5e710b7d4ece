"""The Brusselator, an oscillating chemical reaction."""

from __future__ import annotations

from typing import Any

import numpy as np

from pint.models.problem import Problem, reference
from pint.models.runge_kutta import Method, RungeKutta


def rhs(t: Any, u: Any, theta: Any, out: Any) -> None:
    """Set out = (A + x^2 y - (B + 1) x, B x - x^2 y), theta = (A, B)."""
    out[0] = theta[0] + u[0] * u[0] * u[1] - (theta[1] + 1) * u[0]
    out[1] = theta[1] * u[0] - u[0] * u[0] * u[1]


def rhs_adjoint(t: Any, u: Any, theta: Any, w: Any, out: Any, d_theta: Any) -> None:
    """Set out and d_theta to the transposed derivatives of `rhs` times w."""
    difference = w[0] - w[1]
    out[0] = 2 * u[0] * u[1] * difference - theta[1] * difference - w[0]
    out[1] = u[0] * u[0] * difference
    d_theta[0] = w[0]
    d_theta[1] = -u[0] * difference


class Brusselator(RungeKutta):
    """x' = A + x^2 y - (B + 1) x, y' = B x - x^2 y; the parameters are A and B.

    Parameters
    ----------
    A, B : float, default 1.0 and 3.0
        Concentrations of the fed reactants.
    method : {"rk4", "dormand_prince"}
        The integrator, see `RungeKutta`.

    References
    ----------
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, I.16.
    """

    def __init__(self, A: float = 1.0, B: float = 3.0, method: Method = "rk4") -> None:
        super().__init__(rhs, rhs_adjoint, 2, (A, B), method)


def problem(method: Method = "rk4") -> Problem:
    """Return the Brusselator with A = 1, B = 3 from (0, 1), t in [0, 12]: about two periods."""
    model, start, span = Brusselator(method=method), np.array([0.0, 1.0]), (0.0, 12.0)

    def derivative(t: float, u: Any) -> list[Any]:
        x, y = u
        return [1 + x**2 * y - 4 * x, 3 * x - x**2 * y]

    return Problem(
        name="Brusselator",
        propagator=model,
        initial_value=start,
        span=span,
        num_steps=640,
        exact=reference(derivative, start, span),
        order=model.tableau.order,
        source="scipy's DOP853, relative tolerance 1e-13",
    )
