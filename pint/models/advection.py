"""Linear advection with periodic ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]


class Advection(Propagator):
    """u_t + a u_x = 0, a > 0, periodic on [0, length), by upwind differences.

    Backward Euler: each step solves (1 + c) x_i - c x_{i-1} = u_i, c = a dt / dx, by Fourier
    transforms, which diagonalise every periodic difference formula. The parameter is a.

    Parameters
    ----------
    num_nodes : int
        Nodes of one period, at least 2.
    length : float, default 1.0
        Length of the period.
    speed : float, default 1.0
        a, length per unit of time.

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    LeVeque, "Finite Difference Methods for Ordinary and Partial Differential Equations", SIAM
    2007, section 10.4.
    """

    dtype = np.dtype(np.float64)
    batched = True
    backward_euler = True

    def __init__(self, num_nodes: int, length: float = 1.0, speed: float = 1.0) -> None:
        at_least("num_nodes", num_nodes, 2)
        positive("length", length)
        positive("speed", speed)
        self.state_shape = (num_nodes,)
        self.length = float(length)
        self.parameters: Array = np.array([speed], dtype=np.float64)

    @property
    def nodes(self) -> Array:
        """Positions of the nodes, shape (num_nodes,); new."""
        return np.linspace(0.0, self.length, self.state_shape[0], endpoint=False)

    def _symbols(self, step: Step, n: int) -> tuple[NDArray[np.complex128], Array]:
        """Return the symbol of the backward difference, and dt / dx of each step as a column."""
        difference = 1 - np.exp(-2j * np.pi * np.arange(n // 2 + 1) / n)
        return difference, np.asarray(step.dt * n / self.length)[:, None]

    def _filtered(self, u: Array, symbol: NDArray[np.complex128]) -> Array:
        return np.fft.irfft(np.fft.rfft(u, axis=1) / symbol, u.shape[1], axis=1)

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_nodes); new."""
        difference, ratio = self._symbols(step, u.shape[1])
        return self._filtered(u, 1 + self.parameters[0] * ratio * difference)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new.

        The transpose of a periodic formula has the conjugate symbol.
        """
        difference, ratio = self._symbols(step, u.shape[1])
        return self._filtered(w, 1 + self.parameters[0] * ratio * difference.conj())

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return -<(dPhi/du)^T w, (dt / dx) (x_i - x_{i-1})> with x = Phi(u), shape (1,)."""
        x = self.step(u, step)
        slopes = np.sum(self.adjoint_step(w, u, step) * (x - np.roll(x, 1, axis=1)), axis=1)
        return np.array([-slopes @ step.dt * u.shape[1] / self.length])


def problem(num_nodes: int = 512) -> Problem:
    """Return u_t + u_x = 0 on [0, 1) from sin(2 pi x), t in [0, 1/2].

    Its solution is sin(2 pi (x - t)).
    """
    model = Advection(num_nodes)
    x = model.nodes
    return Problem(
        name="advection",
        propagator=model,
        initial_value=np.sin(2 * np.pi * x),
        span=(0.0, 0.5),
        num_steps=1024,
        exact=lambda t: np.sin(2 * np.pi * (x - t)),
        order=1,
        source="the initial value, shifted: sin(2 pi (x - t))",
    )
