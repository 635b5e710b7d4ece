"""The heat equation in one dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pint.options import at_least, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]


class Heat(Propagator):
    """u_t = kappa u_xx + p(x) a(t) on [0, length], by central differences and backward Euler.

    States hold all nodes, both ends included, where values are given. A step solves

        -c x_{i-1} + (1 + 2 c) x_i - c x_{i+1} = u_i + dt p_i a(t + dt),    c = kappa dt / dx^2,

    for the inner nodes, by elimination from both ends to the middle: twice as fast as from one
    end, because neither half waits for the other. The parameter is kappa.

    Parameters
    ----------
    num_nodes : int
        Number of nodes, at least 3.
    length : float, default 1.0
        Length of the interval.
    diffusivity : float, default 1.0
        kappa, length squared per unit of time.
    ends : tuple of float, default (0.0, 0.0)
        Values at both ends.
    profile : array_like of float64, shape (num_nodes,), optional
        How the source varies in space, p at the nodes; none if left out.
    amplitude : callable, optional
        How it varies in time: a function of one number, of what Numba compiles.

    Raises
    ------
    ValueError
        If a value is out of its range, or of `profile` and `amplitude` one is missing.

    References
    ----------
    Babuška, "Numerical stability in problems of linear algebra", SIAM J. Numer. Anal. 9 (1972),
    53-77, for elimination from both ends.

    Examples
    --------
    >>> from pint import Step
    >>> heat = Heat(5, length=4.0)
    >>> heat.step(np.array([[0.0, 0.0, 8.0, 0.0, 0.0]]), Step(0, np.zeros(1), np.ones(1), 1, 1))
    array([[0.        , 1.14285714, 3.42857143, 1.14285714, 0.        ]])
    """

    dtype = np.dtype(np.float64)
    batched = True

    def __init__(
        self,
        num_nodes: int,
        length: float = 1.0,
        diffusivity: float = 1.0,
        ends: tuple[float, float] = (0.0, 0.0),
        profile: ArrayLike | None = None,
        amplitude: Callable[[float], float] | None = None,
    ) -> None:
        at_least("num_nodes", num_nodes, 3)
        positive("length", length)
        positive("diffusivity", diffusivity)
        if (profile is None) != (amplitude is None):
            raise ValueError("a source needs both a profile and an amplitude, got one of them")
        self.profile = np.zeros(num_nodes) if profile is None else np.array(profile, dtype=float)
        if self.profile.shape != (num_nodes,):
            raise ValueError(f"profile has shape {self.profile.shape}, expected ({num_nodes},)")
        self.state_shape = (num_nodes,)
        self.length = float(length)
        self.ends = (float(ends[0]), float(ends[1]))
        self.amplitude = amplitude
        self.parameters: Array = np.array([diffusivity], dtype=np.float64)

    @property
    def nodes(self) -> Array:
        """Places of the nodes, shape (num_nodes,); new."""
        return np.linspace(0.0, self.length, self.state_shape[0])

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models.kernels import heat

        return heat(self.amplitude)

    def kernel_params(self) -> Any:
        """Return what the kernel takes, with a scratch array of its own."""
        scratch = np.zeros(self.state_shape)
        return self.length, float(self.parameters[0]), *self.ends, self.profile, scratch

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_nodes); new."""
        out = np.empty(u.shape)
        self.step_into(u, step, None, out)
        return out

    def step_into(self, u: Array, step: Step, g: Array | None, out: Array) -> None:
        """Set out = Phi(u) + g for a stack of steps."""
        self._solve(self._with_source(u, step), self._scale(step), self.ends, out)
        if g is not None:
            out += g

    def _with_source(self, u: Array, step: Step) -> Array:
        """Return the right-hand side at the inner nodes."""
        if self.amplitude is None:
            return u[:, 1:-1]
        strength = np.array([self.amplitude(t) for t in np.atleast_1d(step.stop).tolist()])
        inner: Array = u[:, 1:-1] + (step.dt * strength)[:, None] * self.profile[1:-1]
        return inner

    def _scale(self, step: Step) -> Array:
        """Return 1 / c of each step."""
        dx = self.length / (self.state_shape[0] - 1)
        scale: Array = dx * dx / (self.parameters[0] * step.dt)
        return np.atleast_1d(scale)

    def _solve(self, d: Array, scale: Array, ends: tuple[float, float], out: Array) -> None:
        """Solve for a stack of right-hand sides, all at once, node after node."""
        half, last = d.shape[1] // 2, out.shape[1] - 1
        # Row i - 1 holds node i and its mirror image; a row is contiguous, for speed.
        pairs = np.empty((half, 2, d.shape[0]))
        pairs[:, 0] = d[:, :half].T
        pairs[:, 1] = d[:, ::-1][:, :half].T
        pairs *= scale
        x = np.empty((2, d.shape[0]))
        x[0], x[1] = ends
        b, e = 2 + scale, np.zeros(d.shape[0])
        factors = np.empty((half, d.shape[0]))
        for row, factor in zip(pairs, factors, strict=True):
            np.divide(1, b - e, out=factor)
            row += x
            row *= factor
            x, e = row, factor
        unknown = half  # pairs that are still to be found
        if last % 2 == 0:
            middle = (x[0] + (d[:, half] * scale + x[1])) / (b - 2 * e)
            out[:, half + 1] = middle
            x = np.stack([middle, middle])
        elif half > 0:
            x[...] = (x + e * x[::-1]) / (1 - e * e)
            unknown -= 1
        change = np.empty_like(x)
        for row, factor in zip(pairs[:unknown][::-1], factors[:unknown][::-1], strict=True):
            row += np.multiply(factor, x, out=change)
            x = row
        out[:, 1 : half + 1] = pairs[:, 0].T
        out[:, last - half : last] = pairs[::-1, 1].T
        out[:, 0], out[:, last] = ends

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new.

        The end values of `u` have no influence; between the inner nodes the step is symmetric.
        """
        out = np.empty(w.shape)
        self._solve(w[:, 1:-1], self._scale(step), (0.0, 0.0), out)
        return out

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return the sum of <(dPhi/du)^T w, dt D x>, D the second difference of x = Phi(u)."""
        x = self.step(u, step)
        bend = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
        slope = self.adjoint_step(w, u, step)[:, 1:-1] * bend
        return np.array([np.sum(slope.sum(axis=1) / self._scale(step)) / self.parameters[0]])
