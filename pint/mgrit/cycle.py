"""The multigrid cycles."""

from __future__ import annotations

from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy
from pint.mgrit.coarsest import solve_coarsest
from pint.mgrit.fas import correct, residual, restrict, restrict_state
from pint.mgrit.relaxation import f_relax, relax


def cycle(hierarchy: Hierarchy, driver: Driver, shape: str, index: int = 0) -> None:
    """Improve level `index` by one cycle.

    The squared norms of the finest level's residual, before the correction, are left in
    ``hierarchy.levels[0].norms``.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels.
    driver : Driver
        Takes the steps.
    shape : {"V", "F", "W"}
        How often the cycle visits the coarser levels, see `visits`.
    index : int, default 0
        Level at which to begin.
    """
    if index == len(hierarchy.levels) - 1:
        solve_coarsest(hierarchy, driver)
        hierarchy.visited(index)
        return
    level, coarse = hierarchy.levels[index : index + 2]
    relax(level, driver)
    residual(level, driver)
    restrict(level, coarse, driver)
    for below in visits(hierarchy, shape, index + 1):
        cycle(hierarchy, driver, below, index + 1)
    correct(level, coarse, driver)
    f_relax(level, driver)
    hierarchy.visited(index)


def upward_cycle(hierarchy: Hierarchy, driver: Driver, shape: str, index: int = 0) -> None:
    """Do as `cycle`, but inject the states on the first way down, and solve with g = 0."""
    if index == len(hierarchy.levels) - 1:
        solve_coarsest(hierarchy, driver)
        hierarchy.visited(index)
        return
    level, coarse = hierarchy.levels[index : index + 2]
    restrict_state(level, coarse, driver)
    for visit, below in enumerate(visits(hierarchy, shape, index + 1)):
        (upward_cycle if visit == 0 else cycle)(hierarchy, driver, below, index + 1)
    correct(level, coarse, driver)
    f_relax(level, driver)
    hierarchy.visited(index)


def visits(hierarchy: Hierarchy, shape: str, index: int) -> str:
    """Return the cycles on level `index` that a cycle of the next finer level consists of.

    That is one V-cycle in a V-cycle, two W-cycles in a W-cycle, and an F-cycle with V-cycles after
    it in an F-cycle. The coarsest level is solved once.
    """
    if index == len(hierarchy.levels) - 1:
        return "V"
    return {"V": "V", "W": "WW", "F": "F" + "V" * hierarchy.options.v_cycles_per_level}[shape]
