"""The levels of a solve: their grids, the blocks of this rank, and its arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import array_api_compat

from pint.comm import Communicator, Request
from pint.layout import Layout
from pint.options import MGRITOptions
from pint.propagator import State, Step
from pint.stepping import Driver
from pint.timegrid import TimeGrid


@dataclass(eq=False)
class Level:
    """One level as this rank sees it.

    Slot s of an array holds point ``block.start + s - 1``: slot 0 is the ghost, a copy of the last
    point of the left neighbour.

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
    m : int
        Coarsening factor: the multiples of m are the C-points.
    relax : int
        Number of CF-sweeps.
    u : array, shape (len(block) + 1, ...state_shape)
        States.
    g : array of the same shape, or None
        Right-hand side: u_i = Phi(u_{i-1}) + g_i; None is zero.
    """

    index: int
    grid: TimeGrid
    layout: Layout
    comm: Communicator
    m: int
    relax: int
    u: State = None
    g: State = None
    block: range = field(init=False)

    def __post_init__(self) -> None:
        self.block = self.layout.block(self.comm.rank)
        self.left = self.layout.left(self.comm.rank)
        self.right = self.layout.right(self.comm.rank)
        self.first_c = -self.block.start % self.m + 1

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

    @property
    def c_points(self) -> slice:
        """Slots of the own C-points, point 0 included."""
        return slice(self.first_c, self.num_slots, self.m)

    @property
    def c_steps(self) -> slice:
        """Slots of the own C-points that a step leads to: all but point 0."""
        skipped = self.m if 0 in self.block else 0
        return slice(self.first_c + skipped, self.num_slots, self.m)

    def steps(self, slots: slice) -> Step:
        """Return the stack of steps that end at the points in `slots`."""
        shift = self.block.start - 1
        return self.grid.steps(slice(slots.start + shift, slots.stop + shift, slots.step))

    def allocate(self, like: State, zero_g: bool) -> None:
        """Make `u` for states like `like`, and `g` unless it is zero."""
        xp = array_api_compat.array_namespace(like)
        shape = (self.num_slots, *like.shape)
        device = array_api_compat.device(like)
        self.u = xp.zeros(shape, dtype=like.dtype, device=device)
        self.g = None if zero_g else xp.zeros(shape, dtype=like.dtype, device=device)

    def receive_ghost(self) -> Request | None:
        """Post the receive of the ghost; None where there is no left neighbour."""
        return None if self.left is None else self.comm.irecv(self.u[0, ...], self.left)

    def send_last(self) -> Request | None:
        """Send the last own point to the right neighbour; None where there is none."""
        return None if self.right is None else self.comm.isend(self.u[-1, ...], self.right)

    def exchange(self) -> None:
        """Bring the ghost up to date; collective over the ranks with points."""
        wait(self.receive_ghost(), self.send_last())


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

    @classmethod
    def build(
        cls, grid: TimeGrid, layout: Layout, driver: Driver, options: MGRITOptions, comm: Any
    ) -> Hierarchy:
        """Coarsen `grid` as the options say; no arrays yet."""
        levels: list[Level] = []
        factors = options.factors(grid.num_steps)
        for index in range(len(factors) + 1):
            m = factors[index] if index < len(factors) else options.coarsening_of(index)
            levels.append(Level(index, grid, layout, comm, m, options.relax_of(index)))
            grid, layout = grid.coarsen(m), layout.coarsen(m)
        return cls(levels, driver, options, comm)

    @property
    def gathers_coarsest(self) -> bool:
        """Tell whether every rank steps through the whole coarsest level."""
        several = self.comm.size > 1 and len(self.levels) > 1
        return several and self.options.coarsest == "gather"

    def own_steps(self) -> list[Step]:
        """Return, level by level, the stack of steps that this rank takes; empty stacks too."""
        stacks = [level.steps(level.targets) for level in self.levels]
        if self.gathers_coarsest:
            coarsest = self.levels[-1].grid
            stacks[-1] = coarsest.steps(slice(1, coarsest.num_steps + 1, 1))
        return stacks
