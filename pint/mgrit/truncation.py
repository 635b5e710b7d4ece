"""Local coarse grids in place of the coarsest level: AT-MGRIT.

The value of point p of the coarsest level is the end of a solve on the k points p-k+1, ..., p,
which begins with the state that the first of them has; near the begin, at point 0. A rank needs
the states and right-hand sides of the k-1 points before its block, and ranks exchange them all at
once: none waits for a message that depends on another one.

Hahne, Southworth, Friedhoff, "Asynchronous truncated multigrid-reduction-in-time", SIAM J. Sci.
Comput. 45 (2023), S281-S306.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pint.comm import Request
from pint.mgrit.hierarchy import Level, truncated

if TYPE_CHECKING:
    from pint.mgrit.hierarchy import Hierarchy


def solve_truncated(level: Level, local: Level, hierarchy: Hierarchy) -> None:
    """Set the states at this rank's points; `local` has the points of all its local grids.

    The grids are solved from the last one to the first, in one array: each overwrites only states
    behind the begins of those before it. Those that begin at point 0 are one.
    """
    length = hierarchy.options.truncation or 0
    _fill(level, local, length)
    end = level.block.stop - 1
    while level.block and end >= level.block.start:
        begin = max(end - length + 1, 0)
        hierarchy.driver.chain(local, begin - local.block.start + 1, end - begin)
        first = end if begin > 0 else level.block.start
        for point in range(first, end + 1):
            new = local.u[point - local.block.start + 1, ...]
            level.u[point - level.block.start + 1, ...] = new
        end = first - 1


def _fill(level: Level, local: Level, length: int) -> None:
    """Copy states and right-hand side of the own points, and those of the ranks to the left."""
    own = slice(local.num_slots - len(level.block), local.num_slots)
    requests: list[Request] = []
    for to, here in ((local.u, level.u), (local.g, level.g)):
        to[own] = here[level.owned]
        for rank in range(level.layout.size):
            arriving = _common(level.layout.block(rank), local.block)
            if rank < level.comm.rank and arriving:
                requests.append(level.comm.irecv(to[_slots(arriving, local)], rank))
            needed = truncated(level.layout.block(rank), length)
            leaving = _common(level.block, needed)
            if rank > level.comm.rank and leaving:
                requests.append(level.comm.isend(here[_slots(leaving, level)], rank))
    level.wait(*requests)


def _common(block: range, other: range) -> range:
    return range(max(block.start, other.start), min(block.stop, other.stop))


def _slots(points: range, level: Level) -> slice:
    return slice(points.start - level.block.start + 1, points.stop - level.block.start + 1)
