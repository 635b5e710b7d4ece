"""Arenstorf's orbits: a satellite around earth and moon."""

from __future__ import annotations

from typing import Any

import numpy as np

from pint.models.problem import Problem, reference
from pint.models.runge_kutta import Method, RungeKutta

MOON = 0.012277471
"""Mass of the moon; earth and moon together have mass 1."""
SPEED = -2.00158510637908252240537862224
"""Initial y' of the orbit of four loops from (0.994, 0)."""
PERIOD = 17.0652165601579625588917206249
"""Period of the orbit of four loops."""


def rhs(t: Any, u: Any, theta: Any, out: Any) -> None:
    """Set out to the derivative of (x, y, x', y') in the frame that turns with the moon."""
    x, y, moon = u[0], u[1], theta[0]
    earth = 1 - moon
    a = earth / ((x + moon) ** 2 + y * y) ** 1.5
    b = moon / ((x - earth) ** 2 + y * y) ** 1.5
    out[0] = u[2]
    out[1] = u[3]
    out[2] = x + 2 * u[3] - a * (x + moon) - b * (x - earth)
    out[3] = y - 2 * u[2] - (a + b) * y


def rhs_adjoint(t: Any, u: Any, theta: Any, w: Any, out: Any, d_theta: Any) -> None:
    """Set out and d_theta to the transposed derivatives of `rhs` times w."""
    x, y, moon = u[0], u[1], theta[0]
    p, q = x + moon, x - 1 + moon
    P, Q = p * p + y * y, q * q + y * y
    a, b = (1 - moon) / P**1.5, moon / Q**1.5
    # The gradients of both attractions are symmetric matrices.
    xx = 3 * a * p * p / P + 3 * b * q * q / Q - (a + b)
    xy = (3 * a * p / P + 3 * b * q / Q) * y
    yy = (3 * a / P + 3 * b / Q) * y * y - (a + b)
    out[0] = w[2] * (1 + xx) + w[3] * xy
    out[1] = w[2] * xy + w[3] * (1 + yy)
    out[2] = w[0] - 2 * w[3]
    out[3] = w[1] + 2 * w[2]
    # The masses change by -1 and 1, and both bodies move to the left.
    pull_x, pull_y = p / P**1.5 - q / Q**1.5, y / P**1.5 - y / Q**1.5
    d_theta[0] = w[2] * (pull_x + xx) + w[3] * (pull_y + xy)


class Arenstorf(RungeKutta):
    """The restricted three-body problem in the plane: earth, moon and a satellite without mass.

    States are (x, y, x', y') in the frame that turns with the moon, in units of the distance
    between earth and moon; earth is at -mu, the moon at 1 - mu. The parameter is mu, the mass
    of the moon.

    Parameters
    ----------
    moon : float, default 0.012277471
        mu.
    method : {"rk4", "dormand_prince"}
        The integrator, see `RungeKutta`.

    References
    ----------
    Arenstorf, "Periodic solutions of the restricted three body problem representing analytic
    continuations of Keplerian elliptic motions", Amer. J. Math. 85 (1963), 27-35.
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, (II.0.1)
    and (II.0.2), for equations, initial values and period.
    """

    def __init__(self, moon: float = MOON, method: Method = "dormand_prince") -> None:
        super().__init__(rhs, rhs_adjoint, 4, (moon,), method)


def problem(method: Method = "dormand_prince") -> Problem:
    """Return the orbit of four loops over one period, which closes it."""
    model = Arenstorf(method=method)
    start, span = np.array([0.994, 0.0, 0.0, SPEED]), (0.0, PERIOD)

    def derivative(t: float, u: Any) -> list[Any]:
        x, y, vx, vy = u
        to_earth = np.hypot(x + MOON, y) ** 3 / (1 - MOON)
        to_moon = np.hypot(x - (1 - MOON), y) ** 3 / MOON
        ax = x + 2 * vy - (x + MOON) / to_earth - (x - (1 - MOON)) / to_moon
        return [vx, vy, ax, y - 2 * vx - y / to_earth - y / to_moon]

    return Problem(
        name="Arenstorf orbit",
        propagator=model,
        initial_value=start,
        span=span,
        num_steps=20_000 if method == "dormand_prince" else 80_000,
        exact=reference(derivative, start, span),
        order=model.tableau.order,
        source="scipy's DOP853, relative tolerance 1e-13; published period",
    )
