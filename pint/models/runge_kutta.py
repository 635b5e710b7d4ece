"""Explicit Runge-Kutta methods for systems of few equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pint.options import one_of
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]
Method = Literal["rk4", "dormand_prince"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tableau:
    """Coefficients of an explicit method: A strictly lower triangular, weights b, times c."""

    order: int
    A: Array
    b: Array
    c: Array


def _tableau(order: int, rows: list[list[float]], b: list[float]) -> Tableau:
    A = np.zeros((len(b), len(b)))
    for i, row in enumerate(rows, start=1):
        A[i, : len(row)] = row
    return Tableau(order=order, A=A, b=np.array(b), c=A.sum(axis=1))


TABLEAUS = {
    "rk4": _tableau(4, [[1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    "dormand_prince": _tableau(
        5,
        [
            [1 / 5],
            [3 / 40, 9 / 40],
            [44 / 45, -56 / 15, 32 / 9],
            [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
            [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
        ],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ),
}


class RungeKutta(Propagator):
    """u' = f(t, u; theta) by an explicit method of fixed steps.

    f and its derivatives are functions that set their last argument. They only index components
    and do arithmetic, so that one function works for single states, for stacks (component first)
    and in Numba.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, u, theta, out)`` sets out = f(t, u); compiled by Numba.
    rhs_adjoint : callable
        ``rhs_adjoint(t, u, theta, w, out, d_theta)`` sets out = (df/du)^T w and
        d_theta = (df/dtheta)^T w.
    num_components : int
        Length of a state.
    parameters : sequence of float
        theta.
    method : {"rk4", "dormand_prince"}
        The classical method of order 4, or Dormand and Prince's method of order 5.

    Raises
    ------
    ValueError
        If the method is unknown.

    References
    ----------
    Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", Springer 1993, tables
    II.1.2 and II.5.2, for the coefficients.
    """

    dtype = np.dtype(np.float64)
    batched = True

    def __init__(
        self,
        rhs: Callable[..., None],
        rhs_adjoint: Callable[..., None],
        num_components: int,
        parameters: tuple[float, ...],
        method: Method = "rk4",
    ) -> None:
        one_of("method", method, tuple(TABLEAUS))
        self.rhs = rhs
        self.rhs_adjoint = rhs_adjoint
        self.state_shape = (num_components,)
        self.parameters: Array = np.array(parameters, dtype=np.float64)
        self.tableau = TABLEAUS[method]

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models.compiled_steps import runge_kutta

        return runge_kutta(self.rhs)

    def kernel_params(self) -> Any:
        """Return the parameters of the kernel, with its own scratch arrays."""
        method = self.tableau
        k = np.empty((method.b.size + 1, *self.state_shape))
        return self.parameters, method.A, method.b, method.c, k

    def _stages(self, u: Array, step: Step) -> tuple[Array, Array]:
        """Return each stage's state and derivative, both (num_stages, num_components, n)."""
        method = self.tableau
        v = np.empty((method.b.size, *u.shape))
        k = np.zeros_like(v)
        for s, (row, c) in enumerate(zip(method.A, method.c, strict=True)):
            v[s] = u + step.dt * _combined(row[:s], k)
            self.rhs(step.start + c * step.dt, v[s], self.parameters, k[s])
        return v, k

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_components); new."""
        _, k = self._stages(u.T, step)
        return np.ascontiguousarray((u.T + step.dt * _combined(self.tableau.b, k)).T)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self._backward(w, u, step)[0]

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return (dPhi/dtheta)^T w, summed over the stack, shape (num_parameters,)."""
        return self._backward(w, u, step)[1]

    def _backward(self, w: Array, u: Array, step: Step) -> tuple[Array, Array]:
        """Go through the stages from the last to the first (Hager, 2000).

        With d_v and d_k the derivatives of <w, Phi> with respect to a stage's state and derivative,
        d_k_s = dt (b_s w + sum_r a_rs d_v_r) and d_v_s = (df/du)^T d_k_s.
        """
        method, dt = self.tableau, step.dt
        v, _ = self._stages(u.T, step)
        d_v, d_u = np.zeros_like(v), w.T.copy()
        d_theta = np.zeros((self.parameters.size, u.shape[0]))
        part = np.zeros_like(d_theta)
        for s in reversed(range(method.b.size)):
            d_k = dt * (method.b[s] * w.T + _combined(method.A[:, s], d_v))
            t = step.start + method.c[s] * dt
            self.rhs_adjoint(t, v[s], self.parameters, d_k, d_v[s], part)
            d_u += d_v[s]
            d_theta += part
        return np.ascontiguousarray(d_u.T), d_theta.sum(axis=1)


def _combined(weights: Array, k: Array) -> Array:
    """Return the weighted sum of stages, in one order for stacks of all heights."""
    total = np.zeros(k.shape[1:])
    for weight, stage in zip(weights, k, strict=False):
        if weight:
            total += weight * stage
    return total
