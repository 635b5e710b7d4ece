"""The levels of a solve: their grids, the blocks of this rank, and its arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import array_api_compat
import array_api_compat.numpy  # now, so that the first solve need not wait for it
import numpy as np
from numpy.typing import NDArray

from pint.comm import Communicator, Request, SerialCommunicator
from pint.layout import Layout
from pint.mgrit.recycling import Recycler
from pint.mgrit.richardson import Richardson
from pint.mgrit.stopwatch import Stopwatch
from pint.options import MGRITOptions
from pint.propagator import State, Step
from pint.slots import Slots, shifted, slots_of
from pint.stepping import Driver
from pint.timegrid import TimeGrid


@dataclass(eq=False)
class Level:
    """One level as this rank sees it.

    Slot s of an array holds point ``block.start + s - 1``: slot 0 is the ghost, a copy of the last
    point of the left neighbour. All arrays but the finest `u` are kept from solve to solve. In a
    periodic problem the points are 1..N, and the ghost of the first rank is point N, which is 0.

    Attributes
    ----------
    index : int
        0 is the finest.
    grid : TimeGrid
        All points of the level.
    layout : Layout
        Which rank owns which.
    comm : Communicator
        The ranks.
    m : int or ndarray of int64
        Coarsening factor: the multiples of m are the C-points; or the indices of the C-points.
    relax : int
        Number of CF-sweeps.
    relax_weight : float
        Weight of C-relaxation.
    measured : {"c_points", "all_points", "none"}
        Where the residual is measured; nowhere but on the finest level.
    u : array, shape (len(block) + 1, ...state_shape)
        States.
    g : array of the same shape, or None
        Right-hand side: u_i = Phi(u_{i-1}) + g_i; None is zero.
    r : array, shape (number of slots of the next level, ...state_shape)
        Residual at the C-points, by the slots of the next level; it is that level's `g` where
        their states are of one shape. On the coarsest level None, unless relaxation needs it.
    norms : ndarray of float64, shape (number of slots of the next level,)
        Squared norms of `r`; on the finest level only.
    f_norms : ndarray of float64, shape (number of F-points,)
        Those of the residual at `f_points`, where it is measured at all points.
    richardson : Richardson or None
        Extrapolation and error estimates; on the finest level only.
    watch : Stopwatch
        Seconds by phase; one for all levels.
    relaxed : bool
        Whether all F-points, and the ghost, follow from the C-points.
    row : int
        Position among the arrays of this rank: `index`, or one more than the coarsest for what
        this rank gathers of the coarsest level.
    """

    index: int
    grid: TimeGrid
    layout: Layout
    comm: Communicator
    m: int | NDArray[np.int64]
    relax: int
    relax_weight: float = 1.0
    measured: str = "none"
    u: State = None
    g: State = None
    r: State = None
    norms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    f_norms: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    relaxed: bool = False
    richardson: Richardson | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    row: int = -1
    block: range = field(init=False)

    def __post_init__(self) -> None:
        self.row = self.index if self.row < 0 else self.row
        self.block = self.layout.block(self.comm.rank)
        self.left = self.layout.left(self.comm.rank)
        self.right = self.layout.right(self.comm.rank)
        self.c_points = self._c_slots()
        self.c_steps = self._c_slots(skipped=1 if 0 in self.block else 0)
        self.intervals = self._intervals()

    @property
    def num_slots(self) -> int:
        """Length of the arrays, the ghost included."""
        return len(self.block) + 1

    @property
    def owned(self) -> slice:
        """Slots of all own points."""
        return slice(1, self.num_slots, 1)

    @property
    def targets(self) -> slice:
        """Slots of the own points that a step leads to: all but point 0."""
        return slice(2 if 0 in self.block else 1, self.num_slots, 1)

    def _c_slots(self, skipped: int = 0) -> Slots:
        """Return the slots of the own C-points but the first `skipped` of them."""
        if isinstance(self.m, np.ndarray):
            begin, end = np.searchsorted(self.m, (self.block.start, self.block.stop))
            return self.m[begin + skipped : end] + (1 - self.block.start)
        return slice(-self.block.start % self.m + 1 + skipped * self.m, self.num_slots, self.m)

    def _intervals(self) -> list[tuple[Slots, int]]:
        """Return C-points that have as many F-points behind them, cut at the block's end."""
        if isinstance(self.c_points, slice):
            return [(self.c_points, self.c_points.step - 1)]
        lengths = np.diff(self.c_points, append=self.num_slots) - 1
        return [(self.c_points[lengths == n], int(n)) for n in np.unique(lengths) if n > 0]

    @property
    def first_c(self) -> int:
        """Slot of the first own C-point; beyond the last slot where there is none."""
        if isinstance(self.c_points, slice):
            return min(int(self.c_points.start), self.num_slots)
        return int(self.c_points[0]) if self.c_points.size else self.num_slots

    @property
    def ends_with_c(self) -> bool:
        """Tell whether the last own point is a C-point."""
        slots = slots_of(self.c_points, self.num_slots)
        return bool(len(slots)) and slots[-1] == self.num_slots - 1

    @property
    def c_rows(self) -> slice:
        """Rows of `r` that belong to `c_steps`."""
        begin = 2 if 0 in self.block else 1
        return slice(begin, begin + len(slots_of(self.c_steps, self.num_slots)), 1)

    @property
    def f_points(self) -> NDArray[np.int64]:
        """Slots of the own F-points; new."""
        slots = np.arange(self.targets.start, self.num_slots)
        return np.setdiff1d(slots, np.asarray(slots_of(self.c_steps, self.num_slots)))

    @property
    def relaxes_by_residual(self) -> bool:
        """Tell whether C-relaxation is more than a step onto points that no other one reads."""
        neighbours = self.m == 1 if isinstance(self.m, int) else bool((np.diff(self.m) == 1).any())
        return self.relax > 0 and (neighbours or self.relax_weight != 1)

    def steps(self, slots: Slots) -> Step:
        """Return the stack of steps that end at the points in `slots`."""
        return self.grid.steps(shifted(slots, self.block.start - 1))

    def single_steps(self, slots: range | NDArray[np.int64]) -> Iterator[Step]:
        """Yield the step that ends at each of the slots, with plain numbers."""
        for begin in range(0, len(slots), _CHUNK):
            part = slots[begin : begin + _CHUNK]
            if isinstance(part, range):
                stack = self.steps(slice(part.start, part.stop, part.step))
            else:
                stack = self.steps(part)
            columns = (field.tolist() for field in stack[1:])  # type: ignore[union-attr]
            for fields in zip(*columns, strict=True):
                yield Step(self.index, *fields)

    @property
    def shown(self) -> slice:
        """Slots that a result shows: all own points, and point 0 of a ring."""
        opens_ring = self.layout.is_ring and bool(self.block) and self.block.start == 1
        return slice(0 if opens_ring else 1, None)

    @property
    def first_shown(self) -> int:
        """Index of the first point that a result shows."""
        return self.block.start + int(self.shown.start) - 1

    def receive_ghost(self) -> Request | None:
        """Post the receive of the ghost; None where there is no left neighbour."""
        if self.left == self.comm.rank:  # a ring of one rank: its last point is final already
            self.u[0, ...] = self.u[-1, ...]
            return None
        return None if self.left is None else self.comm.irecv(self.u[0, ...], self.left)

    def send_last(self) -> Request | None:
        """Send the last own point to the right neighbour; None where there is none."""
        if self.right is None or self.right == self.comm.rank:
            return None
        return self.comm.isend(self.u[-1, ...], self.right)

    def exchange(self) -> None:
        """Bring the ghost up to date; collective over the ranks with points."""
        self.wait(self.receive_ghost(), self.send_last())

    def wait(self, *requests: Request | None) -> None:
        """Wait for the messages that are under way."""
        if any(request is not None for request in requests):
            with self.watch.phase("messages", self.index):
                wait(*requests)


def whole(level: Level) -> Level:
    """Return the level as if one rank owned all of it; without arrays."""
    return alone(level, range(int(level.layout.bounds[0]), level.layout.num_points))


def alone(level: Level, points: range) -> Level:
    """Return these points of the level for one rank, which sends nothing; without arrays."""
    layout = Layout(np.array([points.start, points.stop]))
    return dataclasses.replace(
        level,
        layout=layout,
        comm=SerialCommunicator(),
        u=None,
        g=None,
        r=None,
        norms=np.zeros(0),
        row=level.index + 1,
    )


def _after(level: Level, point: int) -> Level:
    """Return a level from a point on, with views of its states and right-hand side."""
    layout = level.layout.after(point)
    gone = len(level.block) - len(layout.block(level.comm.rank))
    return dataclasses.replace(
        level,
        grid=level.grid.after(point),
        layout=layout,
        m=level.m if isinstance(level.m, int) else level.m[level.m >= point] - point,
        u=level.u[gone:],
        g=None if level.g is None else level.g[gone:],
    )


def zeros(kept: State, num: int, like: State) -> State:
    """Return `num` states like `like`, all zero; in the array `kept` if that fits."""
    shape, device = (num, *like.shape), array_api_compat.device(like)
    if (
        kept is not None
        and type(kept) is type(like)
        and (tuple(kept.shape), kept.dtype, array_api_compat.device(kept))
        == (tuple(shape), like.dtype, device)
    ):
        kept[...] = 0
        return kept
    xp = array_api_compat.array_namespace(like)
    return xp.zeros(shape, dtype=like.dtype, device=device)


_CHUNK = 1024
"""Steps whose times are brought to Python at once."""


def wait(*requests: Request | None) -> None:
    """Wait for the requests that exist."""
    for request in requests:
        if request is not None:
            request.wait()


@dataclass(eq=False)
class Hierarchy:
    """All levels, finest first, and how they are stepped and solved."""

    levels: list[Level]
    driver: Driver
    options: MGRITOptions
    comm: Communicator
    gathered: Level | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    on_visit: Callable[[Level], None] | None = None
    recycler: Recycler = field(default_factory=Recycler)

    @classmethod
    def build(
        cls,
        grid: TimeGrid,
        layout: Layout,
        driver: Driver,
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
            measured = options.residual if index == 0 else "none"
            levels.append(Level(index, grid, layout, comm, m, relax, weight, measured))
            if index < len(factors):
                grid, layout = grid.coarsen(m), layout.coarsen(m)
        watch = Stopwatch() if watch is None else watch
        for level in levels:
            level.watch = watch
        if options.order is not None and len(levels) > 1:
            level, coarse = levels[:2]
            level.richardson = Richardson(level, coarse, options.order, options.richardson)
        gathered = gathered_level(levels, options) if len(levels) > 1 else None
        return cls(levels, driver, options, comm, gathered, watch)

    def visited(self, index: int) -> None:
        """Tell who wants to know that a cycle has finished its visit to a level."""
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
        """Tell whether the coarsest level is relaxed, and not stepped through."""
        options = self.options
        return len(self.levels) > 1 and (options.coarsest == "relaxation" or options.periodic)

    @property
    def gathers_coarsest(self) -> bool:
        """Tell whether ranks take steps of the coarsest level that end at points of others."""
        return self.gathered is not None

    @property
    def coarsest(self) -> Level:
        """The coarsest level with all points to which this rank takes steps there."""
        level, length = self.levels[-1], self.options.truncation
        if self.gathered is None or length is None:
            return level if self.gathered is None else self.gathered
        return alone(level, truncated(level.block, length - 1))  # no step leads to a begin

    def allocate(self, state: State, with_sources: bool) -> None:
        """Give all levels arrays for states like `state`: zero, but for what is overwritten.

        The finest `u` is the result's, in memory that nobody else holds; the others are kept where
        they fit.
        """
        finest, xp = self.levels[0], array_api_compat.array_namespace(state)
        finest.u = None
        finest.u = self.recycler.empty((finest.num_slots, *state.shape), state)
        if len(self.levels) > 1:
            finest.u[...] = 0
        else:  # every point is stepped to, but a ghost may have no point
            finest.u[:1, ...] = 0
        finest.g = zeros(finest.g, finest.num_slots, state) if with_sources else None
        stack = xp.reshape(state, (1, *state.shape))
        for level, coarse in pairwise(self.levels):
            fine = stack[0, ...]
            stack = self.driver.restrict(stack, level.index)
            for owner in (coarse, self.gathered if coarse is self.levels[-1] else None):
                if owner is not None:
                    owner.u = zeros(owner.u, owner.num_slots, stack[0, ...])
                    owner.g = zeros(owner.g, owner.num_slots, stack[0, ...])
            alike = tuple(fine.shape) == tuple(stack.shape[1:])
            own = None if level.r is coarse.g else level.r
            level.r = coarse.g if alike else zeros(own, coarse.num_slots, fine)
        coarsest = self.levels[-1]
        for one in (coarsest, self.gathered):
            if one is not None and self.relaxes_coarsest and one.relaxes_by_residual:
                one.r = zeros(one.r, one.c_rows.stop, stack[0, ...])
        if len(self.levels) > 1 and finest.norms.size == 0:
            finest.norms = np.zeros(self.levels[1].num_slots)
            if finest.measured == "all_points":
                finest.f_norms = np.zeros(finest.f_points.size)
        for level in self.levels:
            level.relaxed = False
        self.driver.bind(self)

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
        rest = dataclasses.replace(self, levels=levels, gathered=gathered)
        self.driver.rebind(rest)
        return rest

    def own_steps(self) -> list[Step]:
        """Return, level by level, the stack of steps that this rank takes; empty stacks too."""
        return [level.steps(level.targets) for level in (*self.levels[:-1], self.coarsest)]


def gathered_level(levels: list[Level], options: MGRITOptions) -> Level | None:
    """Return what this rank needs of the coarsest level in a place of its own, if anything."""
    coarsest = levels[-1]
    if options.coarsest == "truncated":
        return alone(coarsest, truncated(coarsest.block, options.truncation or 0))
    if options.coarsest == "gather" and coarsest.comm.size > 1:
        return whole(coarsest)
    return None


def truncated(block: range, length: int) -> range:
    """Return the points of all local coarse grids of so many points that end in a block."""
    return range(max(block.start - length + 1, 0), block.stop) if block else block
