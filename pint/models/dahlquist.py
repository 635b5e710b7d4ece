"""The scalar test equation."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pint.models.problem import Problem
from pint.options import one_of
from pint.propagator import Propagator, Step

Method = Literal["backward_euler", "forward_euler", "trapezoidal", "sdirk2", "rk4"]

_G = 1 - math.sqrt(0.5)
STABILITY: dict[str, tuple[int, tuple[float, ...], tuple[float, ...]]] = {
    "backward_euler": (1, (1.0,), (1.0, -1.0)),
    "forward_euler": (1, (1.0, 1.0), (1.0,)),
    "trapezoidal": (2, (1.0, 0.5), (1.0, -0.5)),
    "sdirk2": (2, (1.0, 1 - 2 * _G), (1.0, -2 * _G, _G * _G)),
    "rk4": (4, (1.0, 1.0, 1 / 2, 1 / 6, 1 / 24), (1.0,)),
}
"""Order, and coefficients of numerator and denominator of R, lowest first, of each method."""


class Dahlquist(Propagator):
    """u' = lambda u by a one-step method, Phi(u) = R(lambda dt) u.

    R is the method's stability function, a quotient of two polynomials P and Q; for backward Euler
    it is 1 / (1 - z). The discrete solution is u_i = u_0 prod_j R(lambda dt_j). The parameter
    is lambda.

    Parameters
    ----------
    rate : float, default -1.0
        lambda, per unit of time.
    method : {"backward_euler", "forward_euler", "trapezoidal", "sdirk2", "rk4"}
        The integrator; of order 1, 1, 2, 2 and 4.

    Raises
    ------
    ValueError
        If there is no such method.

    References
    ----------
    Dahlquist, "A special stability problem for linear multistep methods", BIT 3 (1963), 27-43.
    Hairer, Wanner, "Solving Ordinary Differential Equations II", Springer 1996, IV.3, for R.
    """

    state_shape = ()
    dtype = np.dtype(np.float64)
    batched = True

    def __init__(self, rate: float = -1.0, method: Method = "backward_euler") -> None:
        one_of("method", method, tuple(STABILITY))
        self.parameters: NDArray[np.float64] = np.array([rate])
        self.method = method
        self.backward_euler = method == "backward_euler"
        self.order, self.numerator, self.denominator = STABILITY[method]

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models import compiled_steps as kernels

        return kernels.dahlquist if self.method == "backward_euler" else kernels.rational

    def kernel_params(self) -> Any:
        """Return lambda, and the two polynomials if the kernel needs them."""
        rate = float(self.parameters[0])
        if self.method == "backward_euler":
            return rate
        return rate, np.array(self.numerator), np.array(self.denominator)

    def step(self, u: Any, step: Step) -> Any:
        """Return u P(lambda dt) / Q(lambda dt)."""
        z = self.parameters[0] * step.dt
        return u * _horner(self.numerator, z) / _horner(self.denominator, z)

    def adjoint_step(self, w: Any, u: Any, step: Step) -> Any:
        """Return R(lambda dt) w: a number is its own transpose."""
        return self.step(w, step)

    def adjoint_gradient(self, w: Any, u: Any, step: Step) -> NDArray[np.float64]:
        """Return the sum of w u dt R'(lambda dt), shape (1,)."""
        z = self.parameters[0] * step.dt
        P, Q = _horner(self.numerator, z), _horner(self.denominator, z)
        slope = _horner(_derivative(self.numerator), z) * Q
        slope -= P * _horner(_derivative(self.denominator), z)
        return np.array([np.sum(w * u * step.dt * slope / Q**2)])


def problem(rate: float = -1.0, method: Method = "backward_euler") -> Problem:
    """Return u' = lambda u, u(0) = 1 on [0, 5], whose solution is exp(lambda t)."""
    model = Dahlquist(rate, method)
    return Problem(
        name=f"Dahlquist's equation, {method}",
        propagator=model,
        initial_value=np.array(1.0),
        span=(0.0, 5.0),
        num_steps=100,
        exact=lambda t: np.array(math.exp(rate * t)),
        order=model.order,
        source="exp(lambda t)",
    )


def _horner(coefficients: tuple[float, ...], z: Any) -> Any:
    """Return the polynomial at z, of the shape of z."""
    total = coefficients[-1] + 0 * z
    for c in coefficients[-2::-1]:
        total = c + total * z
    return total


def _derivative(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(k * c for k, c in enumerate(coefficients) if k) or (0.0,)
