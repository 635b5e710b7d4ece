"""The full approximation scheme between two levels: residual, restriction, correction."""

from __future__ import annotations

from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.stopwatch import timed


@timed("residual")
def residual(level: Level, driver: Driver) -> None:
    """Set ``level.r`` to g + Phi(u_{i-1}) - u at the own C-points but point 0, and measure it.

    After F-relaxation, so that the ghost is up to date.
    """
    if level.measured == "all_points":
        driver.measure_f_points(level)
    driver.residual(level, level.c_steps, level.c_rows.start)
    if level.measured != "none":
        driver.measure(level)


@timed("restriction")
def restrict(level: Level, coarse: Level, driver: Driver) -> None:
    """Set the coarse states to v = R u, the coarse right-hand side to R r + v_c - Phi(v_{c-1}).

    Here r is the residual in ``level.r``, which may be overwritten. Richardson extrapolation
    multiplies the right-hand side by its weight a, and measures its own residual.
    """
    restrict_state(level, coarse, driver)
    driver.restrict_residual(level, coarse)
    coarse.exchange()
    driver.linearize(level, coarse)
    if level.richardson is not None:
        level.richardson.keep()
    driver.coarse_rhs(coarse)
    if level.richardson is not None:
        level.richardson.apply(driver)


@timed("restriction")
def restrict_state(level: Level, coarse: Level, driver: Driver) -> None:
    """Set the coarse states to the restricted C-points."""
    coarse.relaxed = False
    if coarse.block:
        driver.restrict_state(level, coarse)


@timed("correction")
def correct(level: Level, coarse: Level, driver: Driver) -> None:
    """Add the interpolated change of the coarse states to the C-points they came from."""
    level.relaxed = False
    if coarse.block:
        driver.correct(level, coarse)
