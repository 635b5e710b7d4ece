"""The multigrid cycles."""

from __future__ import annotations

from itertools import pairwise

from pint.mgrit.coarsest import solve_coarsest
from pint.mgrit.fas import correct, residual, restrict, restrict_state
from pint.mgrit.hierarchy import Hierarchy
from pint.mgrit.relaxation import f_relax, relax


def v_cycle(hierarchy: Hierarchy, index: int = 0) -> None:
    """Improve level `index` by one V-cycle.

    The squared norms of the finest level's residual, before the correction, are left in
    ``hierarchy.levels[0].norms``.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels.
    index : int, default 0
        Level at which to begin.
    """
    if index == len(hierarchy.levels) - 1:
        solve_coarsest(hierarchy)
        return
    level, coarse = hierarchy.levels[index : index + 2]
    driver = hierarchy.driver
    relax(level, driver)
    residual(level, coarse, driver)
    if index == 0:
        driver.measure(level, coarse)
    restrict(level, coarse, driver)
    v_cycle(hierarchy, index + 1)
    correct(level, coarse, driver)
    f_relax(level, driver)


def upward_cycle(hierarchy: Hierarchy) -> None:
    """Inject the finest states to all levels, solve the coarsest with g = 0, and come up."""
    driver, levels = hierarchy.driver, hierarchy.levels
    for level, coarse in pairwise(levels):
        restrict_state(level, coarse, driver)
    solve_coarsest(hierarchy)
    for level, coarse in reversed(list(pairwise(levels))):
        correct(level, coarse, driver)
        f_relax(level, driver)
