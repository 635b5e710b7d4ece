"""The scalar test equation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.propagator import Propagator, Step


class Dahlquist(Propagator):
    """u' = lambda u by backward Euler, Phi(u) = u / (1 - lambda dt).

    Its exact discrete solution is u_i = u_0 prod_j 1 / (1 - lambda dt_j). The parameter is lambda.

    Parameters
    ----------
    rate : float, default -1.0
        lambda, per unit of time.

    References
    ----------
    Dahlquist, "A special stability problem for linear multistep methods", BIT 3 (1963), 27-43.
    """

    state_shape = ()
    dtype = np.dtype(np.float64)
    batched = True

    def __init__(self, rate: float = -1.0) -> None:
        self.parameters: NDArray[np.float64] = np.array([rate])

    @property
    def kernel(self) -> Any:
        """The step, compiled."""
        from pint.models.kernels import dahlquist

        return dahlquist

    def kernel_params(self) -> float:
        """Return lambda."""
        return float(self.parameters[0])

    def step(self, u: Any, step: Step) -> Any:
        """Return u / (1 - lambda dt)."""
        return u / (1 - self.parameters[0] * step.dt)

    def adjoint_step(self, w: Any, u: Any, step: Step) -> Any:
        """Return w / (1 - lambda dt): a number is its own transpose."""
        return self.step(w, step)

    def adjoint_gradient(self, w: Any, u: Any, step: Step) -> NDArray[np.float64]:
        """Return the sum of w u dt / (1 - lambda dt)^2, shape (1,)."""
        amplification = 1 / (1 - self.parameters[0] * step.dt)
        return np.array([np.sum(w * u * step.dt * amplification**2)])
