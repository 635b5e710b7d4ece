"""Local coarse grids in place of the coarsest level: AT-MGRIT.

The value of point p of the coarsest level is the end of a local solve on the k points p-k+1, ...,
p. Its local start is the present state at the first of these points, or point 0 near the beginning.
A rank needs the states and right-hand sides of the k-1 points before its block. All ranks exchange
them together: no message depends on another one.

Hahne, Southworth, Friedhoff, "Asynchronous truncated multigrid-reduction-in-time", SIAM J. Sci.
Comput. 45 (2023), S281-S306.
"""

from __future__ import annotations

import numpy as np

from pint.drivers.driver import Driver
from pint.grid.hierarchy import truncated
from pint.grid.layout import Layout
from pint.grid.level import Level
from pint.parallel.comm import Request
from pint.propagator import State


def solve_truncated(level: Level, local: Level, length: int, driver: Driver) -> None:
    """Set the states at this rank's points; `local` has the points of all its local grids.

    The grids are solved from the last to the first, in one array: each overwrites only states
    behind the local starts of earlier grids. Grids that begin at point 0 are merged.
    """
    requests = [
        request
        for here, to in ((level.u, local.u), (level.g, local.g))
        for request in bring(level, length, here[level.owned], to[local.owned])
    ]
    level.wait(*requests)
    end = level.block.stop - 1
    while level.block and end >= level.block.start:
        begin = max(end - length + 1, 0)
        driver.chain(local, begin - local.block.start + 1, end - begin)
        first = end if begin > 0 else level.block.start
        for point in range(first, end + 1):
            new = local.u[point - local.block.start + 1, ...]
            level.u[point - level.block.start + 1, ...] = new
        end = first - 1


def bring(level: Level, length: int, here: State, to: State) -> list[Request]:
    """Get states at the points of the local grids from their owners.

    Parameters
    ----------
    level : Level
        The level; this rank receives from ranks to the left, and sends to ranks to the right.
    length : int
        Number of points of a local grid.
    here : array, shape (number of own points, ...)
        States at the own points.
    to : array, shape (number of points of all own local grids, ...)
        Target: own states are set at once, the others when the messages have arrived.

    Returns
    -------
    list of Request
        The pending messages.
    """
    own, layout = level.block, level.layout
    local = truncated(own, length)
    to[len(local) - len(own) :] = here
    requests = []
    for rank in _owners(layout, range(local.start, own.start)):
        arriving = _common(layout.block(rank), local)
        requests.append(level.comm.irecv(to[_rows(arriving, local)], rank))
    behind = range(own.stop, min(own.stop + length - 1, layout.num_points)) if own else own
    for rank in _owners(layout, behind):
        leaving = _common(own, truncated(layout.block(rank), length))
        requests.append(level.comm.isend(to[_rows(leaving, local)], rank))
    return requests


def _owners(layout: Layout, points: range) -> list[int]:
    """Return the ranks that own some of these points."""
    places = np.arange(points.start, points.stop)
    ranks: list[int] = np.unique(np.searchsorted(layout.bounds, places, "right") - 1).tolist()
    return ranks


def _common(block: range, other: range) -> range:
    return range(max(block.start, other.start), min(block.stop, other.stop))


def _rows(points: range, block: range) -> slice:
    return slice(points.start - block.start, points.stop - block.start)
