"""What a rank does in a solve, noted down by going through the solver with states of no size.

The solver itself is walked, its cycles, messages and checks: only its driver and its communicator
are ones that note what they are asked for. So what is noted is what a real run does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy, gathered_level
from pint.grid.level import Level
from pint.grid.slots import Slots, slots_of
from pint.parallel.comm import Communicator, Request
from pint.parallel.exact_sum import NUM_DIGITS
from pint.propagator import Linearization, Propagator, State, Step
from pint.stopwatch import NOWHERE, Stopwatch

RECORDED = " recorded"
"""What is added to the name of work on the finest level that is recorded for an adjoint solve."""

Kind = Literal["work", "send", "wait", "collective"]


class Operation(NamedTuple):
    """One thing that a rank does.

    Attributes
    ----------
    kind : {"work", "send", "wait", "collective"}
        Work of its own; a message to another rank; waiting for one; a message of all ranks.
    name : str
        Which work, or which collective call.
    solve : str
        "forward", "adjoint", or "" outside of both.
    phase : str
        As in `Result.phases`.
    level, iteration : int
        Where and when; -1 where neither belongs to it.
    size : int
        Intervals or points that work treats side by side; bytes of a message.
    length : int
        Steps of each interval, one after another.
    other : int
        The rank at the other end of a message, as a difference.
    channel : int
        Messages of different channels do not overtake each other's counting.
    """

    kind: Kind
    name: str
    solve: str
    phase: str
    level: int
    iteration: int
    size: int
    length: int = 1
    other: int = 0
    channel: int = 0


@dataclasses.dataclass(eq=False)
class Program:
    """What one rank does.

    Attributes
    ----------
    operations : list of Operation
        In order.
    num_steps : dict of (str, int) to int
        Evaluations of Phi, or of its transpose, by solve and level.
    num_bytes : int
        Of the states, right-hand sides and residuals that it keeps.
    """

    operations: list[Operation]
    num_steps: dict[tuple[str, int], int]
    num_bytes: int

    def count(self, kind: Kind) -> int:
        """Return the number of operations of a kind."""
        return sum(one.kind == kind for one in self.operations)


class Notes:
    """Takes down the operations of one rank.

    Attributes
    ----------
    rank : int
        Whose they are.
    solve : str
        What is under way.
    """

    def __init__(self) -> None:
        self.rank = 0
        self.begin(0)

    def begin(self, rank: int) -> None:
        """Begin again, for another rank."""
        self.rank, self.solve = rank, ""
        self.operations: list[Operation] = []
        self.num_steps: dict[tuple[str, int], int] = {}
        self.num_bytes = 0
        self.watch = Stopwatch()

    def work(self, name: str, level: int, size: int, length: int = 1) -> None:
        """Note work, if there is any."""
        if size > 0 and length > 0:
            self._note("work", name, level, size, length)

    def message(self, kind: Kind, name: str, size: int, other: int = 0, channel: int = 0) -> None:
        """Note a message."""
        self._note(kind, name, NOWHERE, size, 1, other, channel)

    def _note(self, kind: Kind, name: str, level: int, *rest: int) -> None:
        phase, phase_level = self.watch.current
        level, iteration = phase_level if level == NOWHERE else level, self.watch.iteration
        self.operations.append(Operation(kind, name, self.solve, phase, level, iteration, *rest))

    def program(self) -> Program:
        """Return what was noted."""
        return Program(self.operations, self.num_steps, self.num_bytes)


class DryRunCommunicator(Communicator):
    """A rank among others that are not there: it notes messages, and receives nothing.

    Parameters
    ----------
    notes : Notes
        Where they go.
    size : int
        Number of ranks.
    channel : int, default 0
        Distinguishes communicators of equal ranks.
    is_mirrored : bool, default False
        Ranks are numbered from the other end.
    """

    def __init__(
        self, notes: Notes, size: int, channel: int = 0, *, is_mirrored: bool = False
    ) -> None:
        self.notes, self.size, self.channel = notes, size, channel
        self._is_mirrored = is_mirrored
        self._mirror: DryRunCommunicator | None = None
        self.move()

    def move(self) -> None:
        """Be the rank whose notes are taken."""
        rank = self.notes.rank
        self.rank = self.size - 1 - rank if self._is_mirrored else rank
        if self._mirror is not None:
            self._mirror.move()

    def isend(self, array: Any, dest: int) -> Request:  # noqa: D102
        self._meet("send", array, dest)
        return _SentMessage()

    def irecv(self, array: Any, source: int) -> Request:  # noqa: D102
        return _Awaited(self, array, source)

    def _meet(self, kind: Kind, array: Any, rank: int) -> None:
        other = (self.rank - rank) if self._is_mirrored else (rank - self.rank)
        self.notes.message(kind, kind, num_bytes(array), other, self.channel)

    def _collect(self, name: str, array: Any) -> None:
        if self.size > 1:
            self.notes.message("collective", name, num_bytes(array))

    def allgather_blocks(  # noqa: D102
        self, array: NDArray[Any], rows: NDArray[np.int64] | None = None
    ) -> NDArray[Any]:
        self._collect("allgather", array)
        count = self.size * array.shape[0] if rows is None else int(rows.sum())
        if array.size == 0:
            return np.zeros((count, *array.shape[1:]), dtype=array.dtype)
        return np.repeat(array, -(-count // array.shape[0]), axis=0)[:count]

    def gather_blocks(self, array: NDArray[Any], root: int = 0) -> NDArray[Any] | None:  # noqa: D102
        self._collect("gather", array)
        return array.copy() if self.rank == root else None

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:  # noqa: D102
        self._collect("sum", array)
        return array.copy()

    def bcast(self, array: NDArray[Any], root: int) -> NDArray[Any]:  # noqa: D102
        self._collect("bcast", array)
        return array

    def barrier(self) -> None:  # noqa: D102
        self._collect("barrier", np.zeros(0))

    def duplicate(self) -> Communicator:  # noqa: D102
        return self

    def reversed(self) -> Communicator:  # noqa: D102
        if self._mirror is None:
            self._mirror = DryRunCommunicator(self.notes, self.size, 1, is_mirrored=True)
        return self._mirror

    def split(self, size: int) -> Communicator:  # noqa: D102
        raise NotImplementedError("a walk goes through one group of ranks")

    def across(self, size: int) -> Communicator:  # noqa: D102
        raise NotImplementedError("a walk goes through one group of ranks")

    def abort(self) -> None:  # noqa: D102
        raise SystemExit(1)


class _SentMessage:
    """A message that was sent: its buffer is free at once."""

    def wait(self) -> None:
        """Return."""


class _Awaited:
    """A message that has not been received yet."""

    def __init__(self, comm: DryRunCommunicator, array: Any, source: int) -> None:
        self.comm, self.array, self.source = comm, array, source

    def wait(self) -> None:
        """Note that the rank waits."""
        self.comm._meet("wait", self.array, self.source)


def num_bytes(array: Any) -> int:
    """Return the bytes that an array stands for: of states without size, see `ShapeOnlyModel`."""
    if array.ndim >= 2 and array.shape[-2] == 0:
        return int(np.prod(array.shape[:-2], dtype=np.int64)) * int(array.shape[-1])
    return int(array.nbytes)


class ShapeOnlyModel(Propagator):
    """A model with empty states; a state of level l counts as `state_bytes[l]` bytes.

    A state has shape (0, b): it has no entries, and b is what a real one takes.

    Parameters
    ----------
    notes : Notes
        Takes down linearisations and gradients.
    state_bytes : tuple of int
        Bytes of a state by level; the last entry holds for all coarser levels.
    tape_bytes : tuple of int
        Bytes of the linearisation of a step, likewise.
    """

    batched = True

    def __init__(
        self, notes: Notes, state_bytes: tuple[int, ...], tape_bytes: tuple[int, ...] = (0,)
    ) -> None:
        self.notes, self.state_bytes, self.tape_bytes = notes, state_bytes, tape_bytes
        self.dtype = np.dtype(np.uint8)

    @property
    def state_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(0, b)."""
        return (0, self.state_bytes[0])

    def step(self, u: State, step: Step) -> State:
        """Return the states themselves."""
        return u

    def linearize(self, u: State, step: Step) -> _NoTape:
        """Note that steps are linearised."""
        count = int(np.size(step.last))
        self.notes.work("linearize", step.level, count)
        self.notes.num_bytes += count * self.tape_bytes[min(step.level, len(self.tape_bytes) - 1)]
        return _NoTape(self, u, step)


class _NoTape(Linearization):
    """The derivative of steps that do nothing."""

    def adjoint(self, w: State, rows: slice) -> State:
        """Return the adjoint states themselves."""
        return w

    def gradient(self, w: State) -> NDArray[Any]:
        """Note that a gradient is computed; there is none."""
        model: Any = self.propagator
        model.notes.work("gradient", 0, int(w.shape[0]))
        return np.zeros(0, dtype=np.uint8)


class DryRunDriver(Driver):
    """Notes what it is asked for.

    Parameters
    ----------
    model : ShapeOnlyModel
        Whose states have no size.
    replays : bool, default False
        One process replays its cycles, as the compiled driver does: they are one piece of work.
    recording : int, optional
        The cycle in which steps of the finest level are recorded for an adjoint solve.
    """

    def __init__(
        self, model: ShapeOnlyModel, *, replays: bool = False, recording: int | None = None
    ) -> None:
        super().__init__(model)
        self.notes, self.state_bytes = model.notes, model.state_bytes
        self.replays, self.recording = replays, recording

    def _work(self, name: str, level: Level, size: int, length: int = 1) -> None:
        is_recorded = level.index == 0 and self.iteration == self.recording
        self.notes.work(name + RECORDED * is_recorded, level.index, size, length)

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        slots = slots_of(starts, level.num_slots)
        if length and len(slots):
            cut = max(int(slots[-1]) + length - (level.num_slots - 1), 0)
            self._count(level, len(slots) * length - cut)
            self._work("sweep", level, len(slots), length - (cut if len(slots) == 1 else 0))

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        self._count(level, length)
        self._work("chain", level, 1, length)

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        num = len(slots_of(slots, level.num_slots))
        self._count(level, num)
        self._work("residual", level, num)

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        num = coarse.num_slots - coarse.targets.start
        self._count(coarse, num)
        self._work("coarse_rhs", coarse, num)

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        coarse = self.state_bytes[min(level + 1, len(self.state_bytes) - 1)]
        return np.zeros((u.shape[0], 0, coarse), dtype=u.dtype)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        fine = self.state_bytes[min(level, len(self.state_bytes) - 1)]
        return np.zeros((u.shape[0], 0, fine), dtype=u.dtype)

    def restrict_state(self, level: Level, coarse: Level) -> None:  # noqa: D102
        self._work("restrict_state", level, len(coarse.block))

    def restrict_residual(self, level: Level, coarse: Level) -> None:  # noqa: D102
        self._work("restrict_residual", level, coarse.num_slots - coarse.targets.start)

    def measure(self, level: Level) -> None:  # noqa: D102
        self._work("measure", level, level.c_rows.stop - level.c_rows.start)

    def squares(self, r: State) -> NDArray[np.float64]:  # noqa: D102
        return np.zeros(r.shape[0])

    def add_residual(self, level: Level) -> None:  # noqa: D102
        self._work("add_residual", level, level.c_rows.stop - level.c_rows.start)

    def correct(self, level: Level, coarse: Level) -> None:  # noqa: D102
        self._work("correct", level, len(coarse.block))

    def digits(self, values: NDArray[np.float64]) -> NDArray[np.int64]:  # noqa: D102
        return np.zeros(NUM_DIGITS + 2, dtype=np.int64)

    def attach(self, hierarchy: Hierarchy) -> None:  # noqa: D102
        super().attach(hierarchy)
        kept = [*hierarchy.levels, *([hierarchy.gathered] if hierarchy.gathered else [])]
        arrays = [array for one in kept for array in (one.u, one.g, one.r) if array is not None]
        self.notes.num_bytes += sum(num_bytes(a) for a in {id(a): a for a in arrays}.values())
        self._work("start", hierarchy.levels[0], hierarchy.levels[0].num_slots)

    def run_cycle(self, name: str, cycle: Any, hierarchy: Hierarchy) -> None:  # noqa: D102
        if not self.replays or hierarchy.comm.size > 1:
            cycle(hierarchy)
            return
        before = len(self.notes.operations)
        cycle(hierarchy)
        del self.notes.operations[before:]
        self._work(name, hierarchy.levels[0], hierarchy.levels[0].num_slots)


def at_rank(hierarchy: Hierarchy, notes: Notes) -> Hierarchy:
    """Return the levels as the rank of the notes sees them, without arrays."""
    levels = [
        dataclasses.replace(
            level, u=None, g=None, r=None, norms=np.zeros(0), f_norms=np.zeros(0), watch=notes.watch
        )
        for level in hierarchy.levels
    ]
    gathered = gathered_level(levels, hierarchy.options) if len(levels) > 1 else None
    return dataclasses.replace(hierarchy, levels=levels, gathered=gathered, watch=notes.watch)


@contextmanager
def solving(notes: Notes, solve: str, driver: Driver) -> Iterator[None]:
    """Note what happens inside a ``with`` block as part of a solve."""
    before, notes.solve = notes.solve, solve
    try:
        yield
    finally:
        for level, count in driver.num_steps.items():
            key = (solve, level)
            notes.num_steps[key] = notes.num_steps.get(key, 0) + count
        notes.solve = before
