"""Solving the coarsest level."""

from __future__ import annotations

import numpy as np

from pint.arrays import in_library_of
from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level
from pint.mgrit.at_mgrit import solve_truncated
from pint.mgrit.relaxation import relax, step_in_turn
from pint.propagator import State


def solve_coarsest(hierarchy: Hierarchy, driver: Driver) -> None:
    """Solve the coarsest level as `MGRITOptions.coarsest` says."""
    level = hierarchy.levels[-1]
    with hierarchy.watch.phase("coarsest level", level.index):
        if hierarchy.gathered is not None and hierarchy.options.local_points is not None:
            solve_truncated(level, hierarchy.gathered, hierarchy.options.local_points, driver)
        elif hierarchy.gathered is not None:
            _gather_and_step(level, hierarchy.gathered, hierarchy, driver)
        elif hierarchy.relaxes_coarsest:
            relax(level, driver)
        else:
            step_in_turn(level, driver)


def _gather_and_step(level: Level, everything: Level, hierarchy: Hierarchy, driver: Driver) -> None:
    """Every rank gathers the right-hand side, with g_0 = u_0, and steps through all points.

    Or, in a periodic problem, relaxes all of them from the state at the last point.
    """
    if 0 in level.block:
        level.g[1, ...] = level.u[1, ...]
    own = np.ascontiguousarray(level.g[level.owned])
    with hierarchy.watch.phase("messages", level.index):
        gathered = hierarchy.comm.allgather_blocks(own, np.diff(level.layout.bounds))
    everything.g[1:] = in_library_of(level.u, gathered)
    if hierarchy.options.periodic:
        everything.u[-1, ...] = _last_state(level)
        everything.relaxed = False
        relax(everything, driver)
    else:
        everything.u[1, ...] = everything.g[1, ...]
        step_in_turn(everything, driver)
    first = level.block.start - everything.block.start + 1
    level.u[level.owned] = everything.u[first : first + len(level.block)]


def _last_state(level: Level) -> State:
    """Return the state at the last point, on every rank; collective."""
    last = level.layout.owner(level.layout.num_points - 1)
    own = level.comm.rank == last
    state = np.array(level.u[-1, ...] if own else level.u[0, ...])
    return in_library_of(level.u, level.comm.bcast(state, last))
