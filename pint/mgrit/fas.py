"""The full approximation scheme between two levels: residual, restriction, correction."""

from __future__ import annotations

import array_api_compat

from pint.mgrit.hierarchy import Level
from pint.propagator import State
from pint.stepping import Driver


def residual(level: Level, driver: Driver) -> State:
    """Return r = g + Phi(u_{i-1}) - u at the own C-points but point 0; after F-relaxation.

    Returns
    -------
    array, shape (number of those C-points, ...state_shape)
        New.
    """
    slots = level.c_steps
    r = driver.evaluate(level, slots) - level.u[slots]
    return r if level.g is None else r + level.g[slots]


def restrict_state(level: Level, coarse: Level, driver: Driver) -> None:
    """Set the coarse states to the restricted C-points."""
    if coarse.block:
        coarse.u[coarse.owned] = driver.restrict(level.u[level.c_points], level.index)


def restrict_residual(coarse: Level, r: State, level: Level, driver: Driver) -> None:
    """Set the coarse right-hand side g_c = R r + v_c - Phi(v_{c-1}), where v is the coarse start.

    Parameters
    ----------
    coarse, level : Level
        The coarse level, with ``coarse.u`` = v, and the one above it.
    r : array, shape (n, ...state_shape)
        Residual of `level` at its C-points but point 0.
    driver : Driver
        Evaluates Phi.
    """
    coarse.exchange()
    slots = slice(coarse.num_slots - r.shape[0], coarse.num_slots, 1)
    if r.shape[0]:
        r = driver.restrict(r, level.index)
        coarse.g[slots] = r + coarse.u[slots] - driver.evaluate(coarse, slots)


def copy(u: State) -> State:
    """Return a copy of an array of any library."""
    return array_api_compat.array_namespace(u).asarray(u, copy=True)


def correct(level: Level, coarse: Level, v: State, driver: Driver) -> None:
    """Add the interpolated change of the coarse states since `v` to the C-points."""
    if coarse.block:
        change = coarse.u[coarse.owned] - v[coarse.owned]
        level.u[level.c_points] += driver.interpolate(change, level.index)
