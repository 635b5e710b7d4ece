"""The chaotic Lorenz system."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pint.models.problem import Problem, reference
from pint.options import one_of, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]
Stages = tuple[list[Array], list[Array]]
Method = Literal["euler", "rk4"]

# Strictly lower triangle of Butcher's tables: rows of A, then b.
EULER: Any = ([()], (1.0,))
RK4: Any = ([(), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)], (1 / 6, 1 / 3, 1 / 3, 1 / 6))


class Lorenz(Propagator):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z, by an explicit method.

    A state is (x, y, z); the parameters are sigma, rho and beta, in this order.

    Parameters
    ----------
    sigma, rho, beta : float, default 10, 28, 8/3
        Parameters; with the classical values trajectories are chaotic.
    method : {"euler", "rk4"}, default "rk4"
        Forward Euler, or the classical Runge-Kutta method of order 4.

    Raises
    ------
    ValueError
        If a parameter is not finite, or the method is unknown.

    References
    ----------
    Lorenz, "Deterministic nonperiodic flow", J. Atmos. Sci. 20 (1963), 130-141, eq. (25)-(27).

    Examples
    --------
    >>> from pint import Step
    >>> lorenz = Lorenz(method="euler")
    >>> lorenz.step(np.array([[1.0, 2.0, 3.0]]), Step(0, np.zeros(1), np.array([0.5]), 1, 1))
    array([[ 6. , 13.5,  0. ]])
    """

    state_shape = (3,)
    dtype = np.dtype(np.float64)
    batched = True

    def __init__(
        self,
        sigma: float = 10.0,
        rho: float = 28.0,
        beta: float = 8 / 3,
        method: Method = "rk4",
    ) -> None:
        for name, value in (("sigma", sigma), ("rho", rho), ("beta", beta)):
            if not np.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}")
        one_of("method", method, ("euler", "rk4"))
        self.parameters: Array = np.array([sigma, rho, beta], dtype=np.float64)
        self.method = method
        self.table = EULER if method == "euler" else RK4

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models import compiled_steps as kernels

        return kernels.lorenz_euler if self.method == "euler" else kernels.lorenz_rk4

    def kernel_params(self) -> tuple[float, float, float]:
        """Return sigma, rho and beta."""
        sigma, rho, beta = self.parameters.tolist()
        return sigma, rho, beta

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, 3); new."""
        dt = _column(step)
        _, rates = self._stages(u, dt)
        return u + dt * _weighted(self.table[1], rates)

    def tangent_step(self, v: Array, u: Array, step: Step) -> Array:
        """Return the derivative of the step at a stack of states times directions `v`; new."""
        dt = _column(step)
        states, _ = self._stages(u, dt)
        slopes: list[Array] = []
        for state, row in zip(states, self.table[0], strict=True):
            inner = v + dt * _weighted(row, slopes) if slopes else v
            slopes.append(self._tangent_rate(inner, state))
        return v + dt * _weighted(self.table[1], slopes)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        states, d_rates = self._backward(w, u, step)
        total = w.copy()
        for state, d_rate in zip(states, d_rates, strict=True):
            total += self._adjoint_rate(d_rate, state)
        return total

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return the sum of (dPhi/d(sigma, rho, beta))^T w over the stack, shape (3,)."""
        total = np.zeros(3)
        for state, d_rate in zip(*self._backward(w, u, step), strict=True):
            (x, y, z), (d_x, d_y, d_z) = state.T, d_rate.T
            total += [np.sum(d_x * (y - x)), np.sum(d_y * x), -np.sum(d_z * z)]
        return total

    def _stages(self, u: Array, dt: Array) -> Stages:
        """Return the states at which the method evaluates the right-hand side, and its values."""
        states: list[Array] = []
        rates: list[Array] = []
        for row in self.table[0]:
            states.append(u + dt * _weighted(row, rates) if rates else u)
            rates.append(self._rate(states[-1]))
        return states, rates

    def _backward(self, w: Array, u: Array, step: Step) -> Stages:
        """Return the stages' states, and the derivatives of <w, Phi(u)> by their rates."""
        dt, (rows, b) = _column(step), self.table
        states, _ = self._stages(u, dt)
        d_rates = [dt * weight * w for weight in b]
        for j in reversed(range(len(b))):
            d_state = self._adjoint_rate(d_rates[j], states[j])
            for i, weight in enumerate(rows[j]):
                d_rates[i] += dt * weight * d_state
        return states, d_rates

    def _rate(self, u: Array) -> Array:
        (sigma, rho, beta), (x, y, z) = self.parameters.tolist(), u.T
        return np.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], axis=1)

    def _tangent_rate(self, v: Array, u: Array) -> Array:
        (sigma, rho, beta), (x, y, z), (a, b, c) = self.parameters.tolist(), u.T, v.T
        return np.stack(
            [sigma * (b - a), a * (rho - z) - x * c - b, a * y + x * b - beta * c], axis=1
        )

    def _adjoint_rate(self, w: Array, u: Array) -> Array:
        (sigma, rho, beta), (x, y, z), (a, b, c) = self.parameters.tolist(), u.T, w.T
        return np.stack(
            [b * (rho - z) - sigma * a + y * c, sigma * a - b + x * c, -x * b - beta * c], axis=1
        )


def _column(step: Step) -> Array:
    """Return the lengths of a stack of steps, shape (n, 1)."""
    return np.atleast_1d(step.dt)[:, None]


def _weighted(weights: tuple[float, ...], rates: list[Array]) -> Array:
    """Return the weighted sum, added in order, without terms of weight zero."""
    terms = [weight * rate for weight, rate in zip(weights, rates, strict=True) if weight]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def problem(
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    method: Method = "rk4",
    stop: float = 8.0,
) -> Problem:
    """Return the system from a point on its attractor, t in [0, stop].

    Errors grow about e-fold in each unit of time, also in the reference.
    """
    positive("stop", stop)
    start = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])
    span = (0.0, float(stop))

    def derivative(t: float, u: Any) -> list[Any]:
        x, y, z = u
        return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]

    return Problem(
        name="Lorenz's equations",
        propagator=Lorenz(sigma, rho, beta, method),
        initial_value=start,
        span=span,
        num_steps=800,
        exact=reference(derivative, start, span),
        order=1 if method == "euler" else 4,
        source="scipy's DOP853, relative tolerance 1e-13",
    )
