"""Richardson extrapolation between the two finest levels, and the errors that it estimates.

The steps of the finest level and of the next one are two solutions of one interval, whose errors
have a known ratio. Their difference gives both errors, and a weighted mean of the two has a higher
order. `docs/refinement.md` derives it.
"""

from __future__ import annotations

from dataclasses import dataclass

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.grid.timegrid import TimeGrid
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator
from pint.propagator import CoarsensSpace, HasResidual, Propagator, State, has


@dataclass(eq=False)
class RichardsonEstimate:
    """Estimate of the errors of steps from the coarse right-hand side, and their removal.

    On the way down it holds G = Phi(u_{C-1}) - Phi_c(u_{C-m}), the fine solution of an interval
    less the coarse one. With weights a + b = 1, |b G| estimates the error of the fine one, and
    a Phi + b Phi_c = u + r - b G, where r is the residual at u, has none of that order.

    Parameters
    ----------
    level, coarse : Level
        The finest level and the next one.
    order : int
        Order of the integrator.
    extrapolates : bool
        Whether the C-points shall solve u_C = a Phi + b Phi_c; errors are estimated in any case.

    Attributes
    ----------
    iteration : int
        Number of the cycle, from 0.
    b : ndarray of float64, shape (number of own coarse steps,)
        The weight b, which is negative.
    r : array, shape (number of own coarse steps, ...state_shape)
        Residual a Phi + b Phi_c - u at the own C-points, where it extrapolates.
    sizes : ndarray of float64, shape (number of own coarse steps,)
        |b G|, the error of the fine steps of each interval together.

    Raises
    ------
    ValueError
        If an interval has a single step.
    """

    level: Level
    coarse: Level
    order: int
    extrapolates: bool
    iteration: int = 0
    r: State = None

    def __post_init__(self) -> None:
        ends, slots = self.coarse.grid.fine_index, self.coarse.targets
        if (np.diff(ends) == 1).any():
            raise ValueError(
                "richardson needs at least 2 steps between the C-points of the finest level, and "
                "there is 1: use a coarsening factor of at least 2"
            )
        self.parts, self.sums = _shares(self.level.grid, ends, self.order + 1)
        own = range(*slots.indices(self.coarse.num_slots))
        begin = self.coarse.block.start + slots.start - 2
        self.b = 1 - 1 / (1 - self.sums[begin : begin + len(own)])
        self.sizes = np.zeros(len(own))

    @property
    def relaxes(self) -> bool:
        """Whether C-relaxation extrapolates: in all cycles but the first."""
        return self.extrapolates and self.iteration > 0

    def keep(self) -> None:
        """Keep the residual r, before the coarse right-hand side takes its place."""
        if self.extrapolates:
            self.r = self.coarse.g[self.coarse.targets] + 0

    def apply(self, driver: Driver) -> None:
        """Estimate errors from the coarse right-hand side G; make it a G where it extrapolates.

        Afterwards `r` has r - b G, and the level has its squared norms.
        """
        rows, level = self.coarse.targets, self.level
        change = self.coarse.g[rows]
        if not change.shape[0]:
            return
        xp = array_api_compat.array_namespace(change)
        weights = xp.asarray(self.b.reshape(-1, *[1] * (change.ndim - 1)))
        change = change * xp.astype(weights, change.dtype)
        self.sizes = np.sqrt(driver.squares(change))
        if self.extrapolates:
            self.r -= change
            self.coarse.g[rows] -= change
            if level.measured != "none":
                level.norms[level.c_rows] = driver.squares(self.r)

    def estimates(self, comm: Communicator) -> NDArray[np.float64]:
        """Return the estimated error of every step of the finest level; collective.

        The error of an interval is divided among its steps in proportion to dt^(order + 1); steps
        behind the last C-point are taken to be as good, at their length, as those before it.

        Returns
        -------
        ndarray of float64, shape (N,)
            Norm of the error that step i + 1 makes, of the states that are not extrapolated; the
            same on every rank.
        """
        per_share = comm.allgather_blocks(self.sizes) / self.sums
        which = _interval_of(self.coarse.grid.fine_index, self.parts.size)
        sizes: NDArray[np.float64] = per_share[which] * self.parts
        return sizes


def _interval_of(ends: NDArray[np.int64], num_steps: int) -> NDArray[np.int64]:
    """Return the interval of each step; those behind the last C-point count for the last one."""
    which = np.searchsorted(ends, np.arange(num_steps), side="right") - 1
    intervals: NDArray[np.int64] = np.minimum(which, ends.size - 2)
    return intervals


def _shares(
    grid: TimeGrid, ends: NDArray[np.int64], power: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (dt / DT)^power of each step, DT the length of its interval, and the intervals' sums.

    The C-points are the points `ends`.
    """
    lengths = np.diff(grid.times[ends])[_interval_of(ends, grid.num_steps)]
    parts: NDArray[np.float64] = (np.diff(grid.times) / lengths) ** power
    return parts, np.add.reduceat(parts[: ends[-1]], ends[:-1])


def check_model(propagator: Propagator) -> None:
    """Raise ValueError unless fine and coarse steps of a model may be compared."""
    name = type(propagator).__name__
    if has(propagator, CoarsensSpace):
        raise ValueError(
            f"richardson compares states of the two finest levels, and {name}'s states differ in "
            "space: leave restrict and interpolate as they are, or leave richardson out"
        )
    if has(propagator, HasResidual):
        raise ValueError(
            f"richardson needs residuals u - Phi, and {name} has a residual of its own: "
            "leave one out"
        )


def add_richardson(levels: list[Level], options: MGRITOptions) -> None:
    """Add error estimates to the finest level, if the options have the order."""
    given = options.richardson
    if given is not None and len(levels) > 1:
        level, coarse = levels[:2]
        level.richardson = RichardsonEstimate(
            level, coarse, given.integrator_order, given.extrapolate
        )
