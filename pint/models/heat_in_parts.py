"""The heat equation on ranks that share space: an example of a model that is parallel in space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import at_least, positive
from pint.parallel.comm import Communicator
from pint.parallel.exact_sum import exact_sum, integer_digits
from pint.propagator import Propagator, Step

Array = NDArray[np.float64]


class HeatInParts(Propagator):
    """u_t = kappa u_xx on [0, length] with zero ends, by central differences and forward Euler.

    Each rank of `space` owns a part of the inner nodes, and a state is its part. A step exchanges
    one node with either neighbour. The norm is an exact sum over all parts, so that neither
    states nor residuals depend on the number of ranks in space. Steps on the coarsest level must be
    stable: kappa dt / dx^2 is at most 1/2.

    Parameters
    ----------
    num_nodes : int
        Number of inner nodes, at least one for each rank.
    space : Communicator
        The ranks that share space, see `pint.parallel.comm.time_by_space`. They call every method
        together.
    length : float, default 1.0
        Length of the interval.
    diffusivity : float, default 1.0
        kappa, length squared per unit of time.

    Attributes
    ----------
    part : slice
        This rank's nodes, of 0..num_nodes-1.

    Raises
    ------
    ValueError
        If a value is out of its range, or, in a step, if that is not stable; on every rank.
    """

    dtype = np.dtype(np.float64)

    def __init__(
        self, num_nodes: int, space: Communicator, length: float = 1.0, diffusivity: float = 1.0
    ) -> None:
        at_least("num_nodes", num_nodes, space.size)
        positive("length", length)
        positive("diffusivity", diffusivity)
        self.space = space
        self.dx = length / (num_nodes + 1)
        self.nodes = np.arange(1, num_nodes + 1) * self.dx
        self.diffusivity = diffusivity
        bounds = [rank * num_nodes // space.size for rank in (space.rank, space.rank + 1)]
        self.part = slice(*bounds)
        self.state_shape = (bounds[1] - bounds[0],)

    def step(self, u: Array, step: Step) -> Array:
        """Return this rank's part of the state after the step; collective over space."""
        ratio = self.diffusivity * step.dt / self.dx**2
        if ratio > 0.5:
            raise ValueError(f"kappa dt / dx^2 must be at most 1/2, got {ratio:.3g}: coarsen less")
        around = self._with_neighbours(u)
        new: Array = u + ratio * ((around[:-2] + around[2:]) - 2 * u)
        return new

    def norm(self, u: Array) -> float:
        """Return the 2-norm over all of space; collective over space."""
        return float(np.sqrt(exact_sum(integer_digits(u * u), self.space)))

    def _with_neighbours(self, u: Array) -> Array:
        """Return the part with one more node at either end, zero beyond the ends of space."""
        around, space = np.zeros(u.size + 2), self.space
        around[1:-1] = u
        requests: list[Any] = []
        for exists, rank, ghost, own in (
            (space.rank > 0, space.rank - 1, around[:1], around[1:2]),
            (space.rank < space.size - 1, space.rank + 1, around[-1:], around[-2:-1]),
        ):
            if exists:
                requests += [space.irecv(ghost, rank), space.isend(own, rank)]
        for request in requests:
            request.wait()
        return around
