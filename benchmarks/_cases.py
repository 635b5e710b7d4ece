"""The problems that the engine's benchmarks solve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dptsv

from pint import MGRIT, MGRITOptions, Propagator, Step, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem and how it is iterated."""

    name: str
    make: Callable[[str], Propagator]
    initial_value: Any
    grid: TimeGrid
    options: dict[str, Any]

    def solver(self, driver: str = "auto", comm: Any = None, **changes: Any) -> MGRIT:
        """Return a solver with a driver; "sequential" is compiled stepping on one level."""
        if driver == "sequential":
            driver, changes = "compiled", {"levels": 1, "tolerance": None}
        options = MGRITOptions(**{**self.options, "driver": driver, **changes})
        return MGRIT(self.make(driver), self.grid, options, comm)


class PlainDecay(Propagator):
    """u' = -u as a user would write it."""

    state_shape = ()
    dtype = np.dtype(np.float64)

    def step(self, u: Any, step: Step) -> Any:
        """Return u / (1 + dt)."""
        return u / (1 + step.dt)


class PlainHeat(Propagator):
    """The heat equation as a user would write it, with a solver of LAPACK."""

    dtype = np.dtype(np.float64)

    def __init__(self, num_nodes: int) -> None:
        self.state_shape = (num_nodes,)
        self.profile = np.sin(np.linspace(0.0, np.pi, num_nodes))[1:-1]

    def step(self, u: NDArray[Any], step: Step) -> NDArray[Any]:
        """Solve for the inner nodes; the ends are zero."""
        n = u.size - 2
        c = step.dt / (np.pi / (n + 1)) ** 2
        new = np.zeros_like(u)
        d = u[1:-1] + step.dt * wave(step.stop) * self.profile
        _, _, new[1:-1], _ = dptsv(np.full(n, 1 + 2 * c), np.full(n - 1, -c), d)
        return new


def wave(t: float) -> float:
    """How the source of the heat equation varies in time."""
    return math.cos(t) - math.sin(t)


def scalar(m: int, levels: int, num_steps: int = 1_000_000, **changes: Any) -> Case:
    """u' = -u, u(0) = 1, steps of 0.5, tolerance 1e-6, FCF, V-cycles."""
    return Case(
        name=f"scalar, coarsening {m}",
        make=lambda driver: PlainDecay() if driver == "loop" else Dahlquist(-1.0),
        initial_value=1.0,
        grid=TimeGrid.uniform(0.0, 0.5 * num_steps, num_steps),
        options={"levels": levels, "coarsening": m, "tolerance": 1e-6, **changes},
    )


def heat(num_nodes: int, num_steps: int = 10_000) -> Case:
    """u_t = u_xx + sin(x) (cos t - sin t) on [0, pi] x [0, 2 pi], coarsening 16, 3 levels."""
    x = np.linspace(0.0, np.pi, num_nodes)
    model = Heat(num_nodes, np.pi, profile=np.sin(x), amplitude=wave)
    cell = math.sqrt(2 * math.pi / (num_steps - 1)) * math.sqrt(math.pi / (num_nodes - 1))
    return Case(
        name=f"heat, {num_nodes} nodes",
        make=lambda driver: PlainHeat(num_nodes) if driver == "loop" else model,
        initial_value=np.sin(x),
        grid=TimeGrid.uniform(0.0, 2 * np.pi, num_steps),
        options={"levels": 3, "coarsening": 16, "min_coarse": 3, "tolerance": 1e-7 / cell},
    )


CASES: dict[str, Callable[..., Case]] = {
    "scalar_m4": partial(scalar, 4, 10),
    "scalar_m2": partial(scalar, 2, 19),
    "scalar_m16": partial(scalar, 16, 5),
    "heat129": partial(heat, 129),
    "heat1025": partial(heat, 1025),
}
"""Makers of the cases by name; all take `num_steps`."""
