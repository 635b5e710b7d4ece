"""Solving the coarsest level."""

from __future__ import annotations

import dataclasses
from typing import Any

import array_api_compat
import numpy as np

from pint.comm import SerialCommunicator
from pint.layout import Layout
from pint.mgrit.hierarchy import Hierarchy, Level
from pint.mgrit.relaxation import relax, step_in_turn
from pint.propagator import State


def solve_coarsest(hierarchy: Hierarchy) -> None:
    """Solve the coarsest level as `MGRITOptions.coarsest` says."""
    level, driver = hierarchy.levels[-1], hierarchy.driver
    if hierarchy.options.coarsest == "relaxation" and len(hierarchy.levels) > 1:
        relax(level, driver)
    elif hierarchy.gathers_coarsest:
        _gather_and_step(level, hierarchy)
    else:
        step_in_turn(level, driver)


def whole(level: Level) -> Level:
    """Return the level as if one rank owned all of it; without arrays."""
    layout = Layout(np.array([0, level.layout.num_points]))
    return dataclasses.replace(level, layout=layout, comm=SerialCommunicator(), u=None, g=None)


def _gather_and_step(level: Level, hierarchy: Hierarchy) -> None:
    """Every rank gathers the right-hand side, with g_0 = u_0, and steps through all points."""
    known = level.u if level.g is None else level.g
    if 0 in level.block:
        known[1, ...] = level.u[1, ...]
    own = level.owned if level.g is not None else slice(1, 2 if 0 in level.block else 1)
    gathered = hierarchy.comm.allgather_blocks(np.ascontiguousarray(known[own]))
    everything = whole(level)
    everything.allocate(level.u[0, ...], zero_g=level.g is None)
    everything.u[1, ...] = in_library_of(level.u, gathered[0])
    if level.g is not None:
        everything.g[1:] = in_library_of(level.u, gathered)
    step_in_turn(everything, hierarchy.driver)
    start, stop = level.block.start + 1, level.block.stop + 1
    level.u[level.owned] = everything.u[start:stop]


def in_library_of(state: State, array: Any) -> State:
    """Return a NumPy array as one of the library of `state`."""
    return array_api_compat.array_namespace(state).asarray(array)
