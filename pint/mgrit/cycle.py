"""The multigrid cycles."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from pint.mgrit.coarsest import solve_coarsest
from pint.mgrit.fas import copy, correct, residual, restrict_residual, restrict_state
from pint.mgrit.hierarchy import Hierarchy
from pint.mgrit.relaxation import f_relax, relax
from pint.propagator import State

Observe = Callable[[State], None]


def v_cycle(hierarchy: Hierarchy, observe: Observe, index: int = 0) -> None:
    """Improve level `index` by one V-cycle.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels.
    observe : callable
        Gets the finest level's residual at the own C-points, before the correction.
    index : int, default 0
        Level at which to begin.
    """
    if index == len(hierarchy.levels) - 1:
        solve_coarsest(hierarchy)
        return
    level, coarse = hierarchy.levels[index : index + 2]
    driver = hierarchy.driver
    relax(level, driver)
    r = residual(level, driver)
    if index == 0:
        observe(r)
    restrict_state(level, coarse, driver)
    restrict_residual(coarse, r, level, driver)
    v = copy(coarse.u)
    v_cycle(hierarchy, observe, index + 1)
    correct(level, coarse, v, driver)
    f_relax(level, driver)


def upward_cycle(hierarchy: Hierarchy) -> None:
    """Inject the finest states to all levels, solve the coarsest with g = 0, and come up."""
    driver, levels = hierarchy.driver, hierarchy.levels
    starts: list[State] = []
    for level, coarse in pairwise(levels):
        restrict_state(level, coarse, driver)
        starts.append(copy(coarse.u))
    solve_coarsest(hierarchy)
    for level, coarse in reversed(list(pairwise(levels))):
        correct(level, coarse, starts.pop(), driver)
        f_relax(level, driver)
