"""The levels of a solve: their grids, the blocks of this rank, and its arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import array_api_compat
import array_api_compat.numpy  # now, so that the first solve need not wait for it
import numpy as np

from pint.arrays import empty, zeros
from pint.grid.layout import Layout
from pint.grid.level import Level, _after, alone, whole
from pint.grid.timegrid import TimeGrid
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator
from pint.propagator import State, Step
from pint.stopwatch import Stopwatch

Restrict = Callable[[State, int], State]
"""Restriction in space of a stack of states; the second argument is the level of the states."""


@dataclass(eq=False)
class Hierarchy:
    """All levels, finest first.

    Attributes
    ----------
    levels : list of Level
        The levels that cycles work on.
    options : MGRITOptions
        How the levels are coarsened and solved.
    comm : Communicator
        The ranks.
    gathered : Level or None
        Points of the coarsest level that this rank steps to although others own them.
    watch : Stopwatch
        Seconds by phase; one for all levels.
    on_visit : callable or None
        Called at the end of every visit to a level.
    parent : Hierarchy or None
        The levels with all points, where these begin at a later point.
    recorded : dict
        Cycles that a driver has recorded on these levels, by name.
    """

    levels: list[Level]
    options: MGRITOptions
    comm: Communicator
    gathered: Level | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    on_visit: Callable[[Level], None] | None = None
    parent: Hierarchy | None = None
    recorded: dict[Any, Any] = field(default_factory=dict, init=False)

    @classmethod
    def build(
        cls,
        grid: TimeGrid,
        layout: Layout,
        options: MGRITOptions,
        comm: Any,
        watch: Stopwatch | None = None,
    ) -> Hierarchy:
        """Coarsen `grid` as the options say; no arrays yet."""
        levels: list[Level] = []
        factors = options.factors(grid.num_steps)
        layout = layout.ring() if options.periodic else layout
        for index in range(len(factors) + 1):
            given = factors[index] if index < len(factors) else options.coarsening_of(index)
            relax, weight = options.relax_of(index), options.relax_weight_of(index)
            if options.periodic and index == len(factors):
                given, relax = (0, grid.num_steps), max(relax, 1)
            m = np.array(given) if isinstance(given, tuple) else given
            measured = options.residual_points if index == 0 else "none"
            levels.append(Level(index, grid, layout, comm, m, relax, weight, measured))
            if index < len(factors):
                grid, layout = grid.coarsen(m), layout.coarsen(m)
        watch = Stopwatch() if watch is None else watch
        for level in levels:
            level.watch = watch
        gathered = gathered_level(levels, options) if len(levels) > 1 else None
        return cls(levels, options, comm, gathered, watch)

    @property
    def whole(self) -> Hierarchy:
        """The levels with all points of this rank."""
        return self if self.parent is None else self.parent

    def visited(self, index: int) -> None:
        """Call `on_visit`, if given, at the end of a visit to a level."""
        if self.on_visit is not None:
            self.on_visit(self.levels[index])

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays of all levels on this rank."""
        levels = [*self.levels, *([] if self.gathered is None else [self.gathered])]
        arrays = [a for one in levels for a in (one.u, one.g, one.r, one.norms, one.f_norms)]
        return sum({id(a): int(a.nbytes) for a in arrays if a is not None}.values())

    @property
    def relaxes_coarsest(self) -> bool:
        """Whether the coarsest level is relaxed, and not stepped through."""
        options = self.options
        return len(self.levels) > 1 and (options.coarsest == "relaxation" or options.periodic)

    @property
    def gathers_coarsest(self) -> bool:
        """Whether ranks take steps of the coarsest level that end at points of other ranks."""
        return self.gathered is not None

    @property
    def coarsest(self) -> Level:
        """The coarsest level with all points to which this rank takes steps there."""
        level, length = self.levels[-1], self.options.local_points
        if self.gathered is None or length is None:
            return level if self.gathered is None else self.gathered
        return alone(level, truncated(level.block, length - 1))  # no step leads to a begin

    def allocate(
        self, state: State, restrict: Restrict, with_sources: bool, out: State | None = None
    ) -> None:
        """Give all levels arrays for states like `state`, zero where they are not overwritten.

        Arrays of an earlier solve are reused where they fit, but for the finest `u`, which becomes
        the result: a new array, or `out`.
        """
        finest, xp = self.levels[0], array_api_compat.array_namespace(state)
        finest.u = None
        finest.u = _finest_states((finest.num_slots, *state.shape), state, out)
        if len(self.levels) > 1:
            finest.u[...] = 0
        else:  # every point is stepped to, but a ghost may have no point
            finest.u[:1, ...] = 0
        finest.g = zeros(finest.g, finest.num_slots, state) if with_sources else None
        stack = xp.reshape(state, (1, *state.shape))
        for level, coarse in pairwise(self.levels):
            fine = stack[0, ...]
            stack = restrict(stack, level.index)
            for owner in (coarse, self.gathered if coarse is self.levels[-1] else None):
                if owner is not None:
                    owner.u = zeros(owner.u, owner.num_slots, stack[0, ...])
                    owner.g = zeros(owner.g, owner.num_slots, stack[0, ...])
            alike = tuple(fine.shape) == tuple(stack.shape[1:])
            own = None if level.r is coarse.g else level.r
            level.r = coarse.g if alike else zeros(own, coarse.num_slots, fine)
        self._allocate_residuals(stack[0, ...])
        for level in self.levels:
            level.relaxed = False

    def _allocate_residuals(self, coarsest_state: State) -> None:
        finest = self.levels[0]
        for one in (self.levels[-1], self.gathered):
            if one is not None and self.relaxes_coarsest and one.relaxes_by_residual:
                one.r = zeros(one.r, one.c_rows.stop, coarsest_state)
        if len(self.levels) > 1 and finest.norms.size == 0:
            finest.norms = np.zeros(self.levels[1].num_slots)
            if finest.measured == "all_points":
                finest.f_norms = np.zeros(finest.f_points.size)

    def after(self, point: int) -> Hierarchy:
        """Return the levels from a point of the coarsest level on, with views of the same arrays.

        The states before it, and at it, stay what they are.
        """
        fine = int(self.levels[-1].grid.fine_index[point])
        places = [int(np.searchsorted(one.grid.fine_index, fine)) for one in self.levels]
        levels = [_after(*pair) for pair in zip(self.levels, places, strict=True)]
        for old, new, old_coarse, coarse in zip(
            self.levels, levels, self.levels[1:], levels[1:], strict=False
        ):
            rows = slice(old_coarse.num_slots - coarse.num_slots, None)
            new.r = coarse.g if old.r is old_coarse.g else old.r[rows]
            new.norms = old.norms[rows]
        coarsest, gathered = levels[-1], None
        if coarsest.r is not None:
            coarsest.r = coarsest.r[: coarsest.c_rows.stop]
        if levels[0].f_norms.size:
            levels[0].f_norms = np.zeros(levels[0].f_points.size)
        if self.gathered is not None:
            gathered = _after(self.gathered, point)
        return dataclasses.replace(self, levels=levels, gathered=gathered, parent=self.whole)

    def own_steps(self) -> list[Step]:
        """Return, level by level, the stack of steps that this rank takes; empty stacks too."""
        return [level.steps(level.targets) for level in (*self.levels[:-1], self.coarsest)]


def _finest_states(shape: tuple[int, ...], like: State, out: State | None) -> State:
    """Return `out` if it is given and fits, else a new array."""
    if out is not None:
        if tuple(out.shape) != shape or out.dtype != like.dtype:
            raise ValueError(
                f"out has shape {tuple(out.shape)} and dtype {out.dtype}, expected {shape}, "
                f"{like.dtype}: own points and one more"
            )
        return out
    if type(like) is np.ndarray:
        return empty(shape, like.dtype)
    xp = array_api_compat.array_namespace(like)
    return xp.empty(shape, dtype=like.dtype, device=array_api_compat.device(like))


def gathered_level(levels: list[Level], options: MGRITOptions) -> Level | None:
    """Return what this rank needs of the coarsest level in a place of its own, if anything."""
    coarsest = levels[-1]
    if options.local_points is not None:
        return alone(coarsest, truncated(coarsest.block, options.local_points))
    if options.coarsest == "gather" and coarsest.comm.size > 1:
        return whole(coarsest)
    return None


def truncated(block: range, length: int) -> range:
    """Return the points of all local coarse grids of `length` points that end in a block."""
    return range(max(block.start - length + 1, 0), block.stop) if block else block
