"""Burgers' equation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]

MAX_NEWTON = 50
"""Number of Newton steps after which a time step gives up and returns NaN."""
ENOUGH = 1e-9
"""Relative change at which Newton's method stops: the next change is its square, below rounding."""


class Burgers(Propagator):
    """u_t + (u^2 / 2)_x = nu u_xx on an interval, by central differences and backward Euler.

    States hold all nodes, including both ends, where values are prescribed. Each step solves its
    nonlinear system by Newton's method, with tridiagonal elimination, to rounding. The parameter
    is nu.

    Parameters
    ----------
    num_nodes : int
        Number of nodes, at least 3.
    interval : tuple of float, default (0.0, 1.0)
        Left and right end.
    viscosity : float, default 0.05
        nu, length squared per unit of time.
    ends : tuple of float, default (0.0, 0.0)
        Values at both ends.

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    Burgers, "A mathematical model illustrating the theory of turbulence", Adv. Appl. Mech. 1
    (1948), 171-199.
    """

    dtype = np.dtype(np.float64)
    batched = True
    backward_euler = True

    def __init__(
        self,
        num_nodes: int,
        interval: tuple[float, float] = (0.0, 1.0),
        viscosity: float = 0.05,
        ends: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        at_least("num_nodes", num_nodes, 3)
        positive("length of the interval", interval[1] - interval[0])
        positive("viscosity", viscosity)
        self.state_shape = (num_nodes,)
        self.interval = (float(interval[0]), float(interval[1]))
        self.ends = (float(ends[0]), float(ends[1]))
        self.parameters: Array = np.array([viscosity], dtype=np.float64)

    @property
    def nodes(self) -> Array:
        """Positions of the nodes, shape (num_nodes,); new."""
        return np.linspace(*self.interval, self.state_shape[0])

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models.compiled_steps import burgers

        return burgers

    def kernel_params(self) -> Any:
        """Return the parameters of the kernel, with its own scratch arrays."""
        width, limits = self.interval[1] - self.interval[0], (MAX_NEWTON, ENOUGH)
        scratch = np.empty((2, self.state_shape[0]))
        return width, float(self.parameters[0]), *self.ends, *limits, scratch

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_nodes); new.

        Each state has its own number of Newton steps, so that a stack equals single steps.
        """
        x, active = u.copy(), np.arange(u.shape[0])
        x[:, 0], x[:, -1] = self.ends
        c, d = self._ratios(step, u)
        for _ in range(MAX_NEWTON):
            v = x[active]
            matrix = _jacobian(v, c[active], d[active])
            change = _eliminate(*matrix, _defect(v, u[active], c[active], d[active]))
            x[active, 1:-1] -= change
            converged = np.abs(change).max(axis=1) <= ENOUGH * (1 + np.abs(v).max(axis=1))
            active = active[~converged]
            if active.size == 0:
                return x
        x[active] = np.nan
        return x

    def _ratios(self, step: Step, u: Array) -> tuple[Array, Array]:
        """Return dt / (4 dx) and nu dt / dx^2 of each step, as columns."""
        dx = (self.interval[1] - self.interval[0]) / (u.shape[1] - 1)
        dt = np.atleast_1d(step.dt)[:, None]
        return dt / (4 * dx), self.parameters[0] * dt / dx**2

    def _transposed_solve(self, w: Array, x: Array, step: Step) -> Array:
        """Solve with the transposed Jacobian at x for the inner nodes."""
        lower, diagonal, upper = _jacobian(x, *self._ratios(step, x))
        return _eliminate(_shifted(upper, 1), diagonal, _shifted(lower, -1), w[:, 1:-1])

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new.

        With F(x, u) = 0 the step's system, dPhi/du is the inverse of dF/dx at x = Phi(u).
        """
        out = np.zeros(w.shape)
        out[:, 1:-1] = self._transposed_solve(w, self.step(u, step), step)
        return out

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return <(dPhi/du)^T w, dt x_xx> with x = Phi(u), shape (1,)."""
        x = self.step(u, step)
        _, d = self._ratios(step, u)
        v = self._transposed_solve(w, x, step)
        return np.array([np.sum(v * d * np.diff(x, 2, axis=1)) / self.parameters[0]])


def _defect(x: Array, u: Array, c: Array, d: Array) -> Array:
    """Return F(x, u) at the inner nodes."""
    flux = c * (x[:, 2:] ** 2 - x[:, :-2] ** 2)
    defect: Array = x[:, 1:-1] - u[:, 1:-1] + flux - d * np.diff(x, 2, axis=1)
    return defect


def _jacobian(x: Array, c: Array, d: Array) -> tuple[Array, Array, Array]:
    """Return the sub-diagonal, diagonal and super-diagonal of dF/dx, row by row."""
    diagonal = np.broadcast_to(1 + 2 * d, x[:, 1:-1].shape)
    return -2 * c * x[:, :-2] - d, diagonal, 2 * c * x[:, 2:] - d


def _shifted(a: Array, by: int) -> Array:
    """Return the sub-diagonal and super-diagonal of the transpose, row by row."""
    return np.roll(a, by, axis=1)


def _eliminate(lower: Array, diagonal: Array, upper: Array, rhs: Array) -> Array:
    """Solve a stack of tridiagonal systems; the first `lower` and last `upper` are not read."""
    n = rhs.shape[1]
    lower, diagonal, upper, rhs = (np.ascontiguousarray(a.T) for a in (lower, diagonal, upper, rhs))
    x, factors = np.empty_like(rhs), np.empty_like(rhs)
    pivot = diagonal[0]
    x[0] = rhs[0] / pivot
    for i in range(1, n):
        factors[i] = upper[i - 1] / pivot
        pivot = diagonal[i] - lower[i] * factors[i]
        x[i] = (rhs[i] - lower[i] * x[i - 1]) / pivot
    for i in range(n - 2, -1, -1):
        x[i] -= factors[i + 1] * x[i + 1]
    return x.T


def problem(num_nodes: int = 257, viscosity: float = 0.05) -> Problem:
    """Return the front 1 / (1 + exp((x - t / 2) / (2 nu))) on [-2, 3], t in [0, 2].

    It solves the equation on the whole line, from 1 to 0. The interval is so long that its ends
    have no influence for the default viscosity.
    """
    model = Burgers(num_nodes, (-2.0, 3.0), viscosity, (1.0, 0.0))
    x = model.nodes

    def front(t: float) -> Array:
        wave: Array = (1 - np.tanh((x - t / 2) / (4 * viscosity))) / 2
        return wave

    return Problem(
        name="Burgers' equation",
        propagator=model,
        initial_value=front(0.0),
        span=(0.0, 2.0),
        num_steps=128,
        exact=front,
        order=1,
        source="travelling wave: Whitham, Linear and Nonlinear Waves, Wiley 1974, section 4.3",
    )
