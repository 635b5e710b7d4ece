"""The Allen-Cahn equation in two dimensions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from pint.models.problem import Problem
from pint.options import at_least, positive
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]


class AllenCahn(Propagator):
    """u_t = eps^2 (u_xx + u_yy) + u (1 - u) (u - a) on a square without flux through its sides.

    Cells of equal size, 5-point formula; diffusion by backward Euler, solved by cosine transforms,
    which diagonalise it, and the reaction by forward Euler. The parameters are eps and a: with
    a = 1/2 fronts between the states 0 and 1 stand still.

    Parameters
    ----------
    num_cells : int
        Cells of each side, at least 2. States have shape (num_cells, num_cells).
    length : float, default 1.0
        Length of a side.
    width : float, default 0.05
        eps, the width of fronts.
    threshold : float, default 0.25
        a, the unstable state between 0 and 1.

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    Allen, Cahn, "A microscopic theory for antiphase boundary motion", Acta Metall. 27 (1979),
    1085-1095.
    Strang, "The discrete cosine transform", SIAM Rev. 41 (1999), 135-147, for the eigenvectors.
    """

    dtype = np.dtype(np.float64)
    batched = True

    def __init__(
        self, num_cells: int, length: float = 1.0, width: float = 0.05, threshold: float = 0.25
    ) -> None:
        at_least("num_cells", num_cells, 2)
        positive("length", length)
        positive("width", width)
        self.state_shape = (num_cells, num_cells)
        self.length = float(length)
        self.parameters: Array = np.array([width, threshold], dtype=np.float64)

    @property
    def centers(self) -> Array:
        """Positions of the centers of cells along a side, shape (num_cells,); new."""
        n = self.state_shape[0]
        return (np.arange(n) + 0.5) * self.length / n

    def _eigenvalues(self, n: int) -> Array:
        """Return the eigenvalues of -(u_xx + u_yy), shape (n, n)."""
        one = (2 * n / self.length * np.sin(np.pi * np.arange(n) / (2 * n))) ** 2
        return one[:, None] + one

    def _diffused(self, u: Array, step: Step, power: int = 1) -> Array:
        """Apply (I - dt eps^2 L)^-1 `power` times; new."""
        dt = np.asarray(step.dt)[:, None, None]
        filters = 1 + dt * self.parameters[0] ** 2 * self._eigenvalues(u.shape[1])
        x: Array = idctn(dctn(u, axes=(1, 2)) / filters**power, axes=(1, 2))
        return x

    def _reacted(self, u: Array, step: Step) -> Array:
        dt, a = np.asarray(step.dt)[:, None, None], self.parameters[1]
        reacted: Array = u + dt * (u * (1 - u) * (u - a))
        return reacted

    def step(self, u: Array, step: Step) -> Array:
        """Return the states at the end of a stack of steps, shape (n, num_cells, num_cells)."""
        return self._diffused(self._reacted(u, step), step)

    def adjoint_step(self, w: Array, u: Array, step: Step) -> Array:
        """Return the transposed derivative times a stack of adjoint states; new."""
        dt, a = np.asarray(step.dt)[:, None, None], self.parameters[1]
        slope: Array = 1 + dt * (u * (2 * (1 + a) - 3 * u) - a)
        return slope * self._diffused(w, step)

    def adjoint_gradient(self, w: Array, u: Array, step: Step) -> Array:
        """Return the derivatives with respect to eps and a, summed over the stack, shape (2,)."""
        dt, v = np.asarray(step.dt)[:, None, None], self._reacted(u, step)
        bend = dctn(self._diffused(v, step, power=2), axes=(1, 2)) * self._eigenvalues(u.shape[1])
        d_width = -2 * self.parameters[0] * np.sum(dt * w * idctn(bend, axes=(1, 2)))
        d_threshold = -np.sum(self._diffused(w, step) * dt * u * (1 - u))
        return np.array([d_width, d_threshold])


def problem(num_cells: int = 64, threshold: float = 0.25) -> Problem:
    """Return the front 1 / (1 + exp((x - c t) / (sqrt(2) eps))), c = sqrt(2) eps (1/2 - a).

    It solves the equation on the whole plane; the square is so large that its sides have no
    influence. The state 1, on the left, advances.
    """
    model = AllenCahn(num_cells, threshold=threshold)
    width, x = float(model.parameters[0]), model.centers - 0.4
    speed = math.sqrt(2) * width * (0.5 - threshold)

    def front(t: float) -> Array:
        profile = (1 - np.tanh((x - speed * t) / (2 * math.sqrt(2) * width))) / 2
        return np.repeat(profile[None], num_cells, axis=0)

    return Problem(
        name="Allen-Cahn equation",
        propagator=model,
        initial_value=front(0.0),
        span=(0.0, 8.0),
        num_steps=128,
        exact=front,
        order=1,
        source="travelling front: Murray, Mathematical Biology I, Springer 2002, section 13.3",
    )
