"""Schedules: the programs of all ranks of a run, one for each kind of rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointSolver
from pint.drivers.driver import Driver
from pint.grid.level import Level
from pint.grid.timegrid import TimeGrid
from pint.mgrit.solver import MGRIT
from pint.options import MGRITOptions, at_least
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.scaling.dry_run import (
    DryRunCommunicator,
    DryRunDriver,
    Kind,
    Notes,
    Program,
    ShapeOnlyModel,
    at_rank,
    solving,
)
from pint.scaling.input_counts import InputCounts

_REFUSED = {
    "delta": "a Delta correction",
    "richardson": "error estimates and extrapolation",
    "refinement": "refinement",
    "local_tolerance": "a local tolerance",
}


@dataclass(frozen=True, kw_only=True)
class PredictedRun:
    """What is run: a solve, or a step of training.

    Parameters
    ----------
    num_steps : int
        Steps N of the finest level.
    forward : MGRITOptions
        How the solve iterates; `max_iterations` cycles, whatever the tolerances say.
    backward : MGRITOptions, optional
        How the adjoint problem is solved; None: there is none.
    state_bytes : tuple of int
        Bytes of a state by level; the last entry holds for all coarser levels.
    replays : bool, default False
        Cycles of one process are replayed, as the compiled driver does.
    num_parameters : int, default 0
        Of a network that is trained; 0: no training around the two solves.
    parameter_bytes : int, default 4
        Of a number among them, and in the scores.
    layers : RecurrenceOptions, optional
        Recurrent layers of a training: they determine the inputs of a rank.
    input_bytes : int, default 0
        Of what is kept for each of these inputs.
    tape_bytes : tuple of int
        Bytes that the linearisation of a step takes, by level; the last entry holds for all coarser
        levels.
    fixed_bytes : int, default 0
        What every rank keeps besides: parameters, inputs.
    groups : int, default 1
        Groups of ranks that share the sequences of a batch; each shares time.

    Raises
    ------
    ValueError
        If an option is one whose schedule is not known beforehand.
    """

    num_steps: int
    forward: MGRITOptions
    backward: MGRITOptions | None = None
    state_bytes: tuple[int, ...] = (8,)
    replays: bool = False
    num_parameters: int = 0
    parameter_bytes: int = 4
    layers: RecurrenceOptions | None = None
    input_bytes: int = 0
    tape_bytes: tuple[int, ...] = (0,)
    fixed_bytes: int = 0
    groups: int = 1

    def __post_init__(self) -> None:
        at_least("num_steps", self.num_steps, 1)
        at_least("groups", self.groups, 1)
        for name, what in _REFUSED.items():
            if getattr(self.forward, name):
                raise ValueError(
                    f"the schedule of {what} is not known beforehand: leave {name} out"
                )
        if self.forward.storage != "all":
            raise ValueError("the schedule of storage 'c_points' is not known: use 'all'")


def fixed(options: MGRITOptions) -> MGRITOptions:
    """Return the options with `max_iterations` cycles, and no tolerance."""
    return replace(options, tolerance=None, relative_tolerance=None)


@dataclass(eq=False)
class Schedule:
    """What every rank does.

    Attributes
    ----------
    run : PredictedRun
        What is run.
    size : int
        Number of ranks that share time.
    programs : list of Program
        Of the kinds of ranks.
    kinds : ndarray of int64, shape (size,)
        Which program each rank has.
    """

    run: PredictedRun
    size: int
    programs: list[Program] = field(default_factory=list)
    kinds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, run: PredictedRun, size: int) -> Schedule:
        """Walk a run on `size` ranks.

        Ranks have equal programs if their levels agree in the number of points, the place of the
        first point in its interval, the distance of the neighbours and the ends of the time axis.
        One rank of each kind is walked.
        """
        at_least("size", size, 1)
        walk = _Walk(run, size)
        _, first, kinds = np.unique(
            _hashed(walk.signatures()), return_index=True, return_inverse=True
        )
        schedule = cls(run, size, kinds=np.asarray(kinds, dtype=np.int64).reshape(-1))
        schedule.programs = [walk.program(int(rank)) for rank in first]
        return schedule

    def steps(self) -> list[dict[tuple[str, int], int]]:
        """Return, rank by rank, the evaluations by solve and level."""
        return [self.programs[kind].num_steps for kind in self.kinds]

    def messages(self) -> list[dict[str, int]]:
        """Return, rank by rank, how many messages it sends, and collective calls it makes."""
        kinds: tuple[Kind, ...] = ("send", "wait", "collective")
        counts = [{kind: one.count(kind) for kind in kinds} for one in self.programs]
        return [counts[kind] for kind in self.kinds]


class _Walk:
    """The solvers of a run, made once, and walked from the place of any rank."""

    def __init__(self, run: PredictedRun, size: int) -> None:
        self.run, self.size, self.notes = run, size, Notes()
        self.comm = DryRunCommunicator(self.notes, size)
        self.model = ShapeOnlyModel(self.notes, run.state_bytes, run.tape_bytes)
        grid = TimeGrid.uniform(0.0, 1.0, run.num_steps)
        self.forward = MGRIT(self.model, grid, fixed(run.forward), self.comm)
        self.adjoint = None
        self.num_inputs = np.zeros(size, dtype=np.int64)
        if run.backward is not None:
            self.adjoint = AdjointSolver(self.forward, fixed(run.backward))
            if run.layers is not None:
                counts = InputCounts(run.layers, self.forward, self.adjoint, self._move)
                self.num_inputs = counts.of_all_ranks()

    def signatures(self) -> NDArray[np.int64]:
        """Return a row of numbers for each rank; ranks with equal rows have one program."""
        columns = [self.num_inputs, *_columns(self.forward)]
        if self.adjoint is not None:
            columns += [column[::-1] for column in _columns(self.adjoint.solver)]
        return np.stack(columns, axis=1)

    def program(self, rank: int) -> Program:
        """Walk what a rank does."""
        notes = self.notes
        self._move(rank)
        num_inputs = int(self.num_inputs[rank])
        notes.num_bytes = self.run.fixed_bytes + num_inputs * self.run.input_bytes
        driver = self._place(self.forward)
        training = self.run.num_parameters > 0
        if training:
            self._begin_step()
        state = np.zeros((0, self.run.state_bytes[0]), dtype=np.uint8)
        with solving(notes, "forward", driver):
            result = self.forward.solve(state, local_status=training)
            notes.work("rest", -1, 1)
        if self.adjoint is not None:
            if training:
                notes.work("head", -1, 1)
            driver = self._place(self.adjoint.solver)
            with solving(notes, "adjoint", driver):
                self.adjoint.solve(result, state, total=False)
                notes.work("rest", -1, 1)
                notes.work("turn", -1, result.u.shape[0])
        if training:
            self._end_step()
        return notes.program()

    def _move(self, rank: int) -> None:
        """Begin the notes of a rank, and put the solvers in its place."""
        self.notes.begin(rank)
        self.comm.move()
        solvers = [self.forward] if self.adjoint is None else [self.forward, self.adjoint.solver]
        for solver in solvers:
            solver.hierarchy = at_rank(solver.hierarchy, self.notes)

    def _place(self, solver: MGRIT) -> Driver:
        """Put a driver that notes into a solver."""
        replays = self.run.replays and self.adjoint is None
        recording = None
        if self.run.num_parameters and solver is self.forward:
            recording = solver.options.max_iterations - 1
        driver = DryRunDriver(self.model, replays=replays, recording=recording)
        solver.driver = driver
        solver._checked = True  # a solve that follows others
        return driver

    def _begin_step(self) -> None:
        """Note what `NetworkSolver.loss_and_gradient` does before the forward solve."""
        self.notes.work("bind", 0, int(self.num_inputs[self.notes.rank]))

    def _end_step(self) -> None:
        """Note the sums of losses, gradients and residuals over all ranks, and the update."""
        run = self.run
        for size in (40, run.num_parameters * run.parameter_bytes):
            self._sum(size)
        if run.groups > 1:
            self._collect("allgather", 16)
            self._sum(16 * run.forward.max_iterations)
        self.notes.work("update", -1, run.num_steps)

    def _sum(self, size: int) -> None:
        self._collect("sum", size)

    def _collect(self, name: str, size: int) -> None:
        """Note a message of the ranks of all groups."""
        if self.size * self.run.groups > 1:
            self.notes.message("collective", "all " + name, size)


def _hashed(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for each row, the same for equal rows and no others (in 64 bits)."""
    factors = np.random.default_rng(0).integers(1, 1 << 63, rows.shape[1], dtype=np.uint64)
    hashed: NDArray[np.uint64] = (rows.astype(np.uint64) * (2 * factors + 1)).sum(axis=1)
    return hashed


def _columns(solver: MGRIT) -> Iterator[NDArray[np.int64]]:
    """Yield what distinguishes ranks: of each level, one number for each rank."""
    levels = solver.hierarchy.levels
    for level in levels:
        yield from _level_columns(level)
    if solver.options.local_points is not None:
        yield _neighbourhoods(levels[-1], solver.options.local_points)


def _level_columns(level: Level) -> Iterator[NDArray[np.int64]]:
    bounds = level.layout.bounds
    starts, counts = bounds[:-1], np.diff(bounds)
    yield counts
    yield (starts == 0).astype(np.int64)
    if isinstance(level.m, np.ndarray):
        yield np.searchsorted(level.m, starts)  # intervals of all lengths: every rank is its own
    elif level.m > 0:
        yield np.minimum(-starts % level.m, counts)  # points before the first own C-point
    full = np.flatnonzero(counts > 0)
    ranks = np.arange(counts.size)
    for last in (False, True):
        gaps = np.zeros(counts.size, dtype=np.int64)
        there = full[::-1] if last else full
        distances = np.abs(np.diff(there, prepend=there[:1]))
        gaps[there] = distances  # 0 at the end of the time axis
        if level.layout.is_ring and full.size:
            gaps[there[0]] = counts.size + ranks[there[0]]
        yield gaps


def _neighbourhoods(level: Level, length: int) -> NDArray[np.int64]:
    """Return a number for each rank, the same where those it talks to have the same points."""
    bounds = level.layout.bounds
    found: dict[tuple[int, int, bytes], int] = {}
    numbers = np.zeros(level.layout.size, dtype=np.int64)
    for rank in range(level.layout.size):
        begin, end = int(bounds[rank]), int(bounds[rank + 1])
        first = int(np.searchsorted(bounds, max(begin - length + 1, 0), "right")) - 1
        last = int(np.searchsorted(bounds, min(end + length - 1, bounds[-1]), "left"))
        around = bounds[min(first, rank) : last + 1] - begin
        key = (rank - first, min(begin, length), around.tobytes())
        numbers[rank] = found.setdefault(key, len(found))
    return numbers
