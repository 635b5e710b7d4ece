"""One level of a rank: its block of points and its arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.grid.layout import Layout
from pint.grid.slots import Slots, shifted, slots_of
from pint.grid.timegrid import TimeGrid
from pint.parallel.comm import Communicator, Request, SerialCommunicator
from pint.propagator import State, Step
from pint.stopwatch import Stopwatch


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
        Norms of the residual at `f_points`, where it is measured at all points.
    richardson : RichardsonEstimate or None
        Extrapolation and error estimates, set by the solver; on the finest level only.
    watch : Stopwatch
        Seconds by phase; one for all levels.
    relaxed : bool
        Whether all F-points, and the ghost, follow from the C-points.
    row : int
        Position among the arrays of this rank: `index`, or one more than the coarsest for what
        this rank gathers of the coarsest level.
    kept_steps : dict
        Stacks of steps that a driver uses again.
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
    richardson: Any = None
    watch: Stopwatch = field(default_factory=Stopwatch)
    row: int = -1
    kept_steps: dict[Any, Step] = field(default_factory=dict, init=False)
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
        """Return runs of C-points with equal numbers of F-points behind them in the block."""
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
        """Whether the last own point is a C-point."""
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
        """Whether C-relaxation is more than a step onto points that no other step reads."""
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


_CHUNK = 1024
"""Steps whose times are brought to Python at once."""


def wait(*requests: Request | None) -> None:
    """Wait for the requests that exist."""
    for request in requests:
        if request is not None:
            request.wait()
