"""Recurrent layers in one direction of time, with their forward and adjoint solver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointResult, AdjointSolver
from pint.grid.timegrid import TimeGrid
from pint.mgrit.result import Result
from pint.mgrit.solver import MGRIT
from pint.mgrit.status import Status
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator
from pint.parallel.thread_team import ThreadTeam
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.warm_start import Memory
from pint.stopwatch import Stopwatch

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """A batch as the layers take it.

    Attributes
    ----------
    x : ndarray, shape (B, T, F)
        Elements.
    mask : ndarray of bool, shape (B, T), or None
        Where sequences have elements; None: everywhere.
    numbers : ndarray of int64, shape (B,), or None
        Which of the remembered sequences they are; None: none of them.
    """

    x: Array
    mask: NDArray[np.bool_] | None = None
    numbers: NDArray[np.int64] | None = None

    def backwards(self) -> Sequences:
        """Return them from their end to their beginning; views."""
        mask = None if self.mask is None else self.mask[:, ::-1]
        return replace(self, x=self.x[:, ::-1], mask=mask)


class Sweep:
    """Solves a stack of recurrent layers along time, and its adjoint.

    Parameters
    ----------
    options : RecurrenceOptions
        The layers.
    parameters : ndarray, shape (num_parameters,)
        Of these layers; shared.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        How both problems are solved.
    comm : Communicator
        The ranks that share the time axis.
    is_reverse : bool, default False
        Go from the end of the sequences to their beginning.
    warm_start_sequences : int, default 0
        So many sequences are remembered, see `Memory`.
    """

    def __init__(
        self,
        options: RecurrenceOptions,
        parameters: Array,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Communicator,
        is_reverse: bool = False,
        warm_start_sequences: int = 0,
    ) -> None:
        self.model = Recurrence(options, parameters)
        self.model.team = ThreadTeam(forward.threads or 1)
        self.comm, self.is_reverse, self.num_steps = comm, is_reverse, num_steps
        self.watch = Stopwatch()
        grid = TimeGrid.uniform(0.0, float(num_steps), num_steps)
        self.forward = MGRIT(self.model, grid, forward, comm)
        self.backward = AdjointSolver(self.forward, backward)
        self._skips = forward.skip_first_down
        self._numbers: NDArray[np.int64] | None = None
        finest = self.forward.hierarchy.levels[0]
        has_cycles = len(self.forward.hierarchy.levels) > 1  # stepping needs no guess
        self.memory = (
            Memory(warm_start_sequences, finest) if warm_start_sequences and has_cycles else None
        )
        self._windows = {wanted: self._read(backward=wanted) for wanted in (False, True)}

    def _read(self, *, backward: bool) -> NDArray[np.int64]:
        """Return the inputs that this rank reads, see `Recurrence.input_windows`."""
        stacks = self.forward.hierarchy.own_steps()
        if backward:
            stacks = stacks + self.backward.own_steps()
        return self.model.input_windows(*stacks)

    @property
    def num_inputs(self) -> int:
        """Number of inputs, means among them, that this rank reads in both solves."""
        return len(self._windows[True])

    def iterate(self, forward: int, backward: int) -> None:
        """Do so many cycles from now on, in either solve."""
        _change(self.forward, max_iterations=forward)
        _change(self.backward.solver, max_iterations=backward)

    def bind(self, sequences: Sequences, *, backward: bool) -> None:
        """Bind sequences, so that `solve` can step, and `transpose` too if `backward`."""
        bound = sequences.backwards() if self.is_reverse else sequences
        with self.watch.phase("inputs"):
            self.model.set_inputs(bound.x, self._windows[backward], bound.mask)
            if len(self.forward.hierarchy.levels) > 1:
                self.model.project()  # on all ranks at once, not while one waits for another
        self._numbers = sequences.numbers

    def solve(self, start: Array, *, record: bool) -> Result:
        """Solve for the states of the bound sequences; collective.

        If all of them are remembered, begin with their states; remember them.

        Parameters
        ----------
        start : ndarray, shape (layers, B, W)
            Initial state.
        record : bool
            Keep derivatives of the last cycle for `transpose`.
        """
        guess = None
        if self.memory is not None:
            guess = None if self._numbers is None else self.memory.guess(self._numbers)
            _change(self.forward, skip_first_down=self._skips and guess is None)
        last = self.forward.options.max_iterations - 1
        every = self.forward.options.delta == "diagonal"  # each cycle needs its derivatives

        def before_last(iteration: int, residual: float) -> None:
            self.model.recording = every or (record and iteration == last - 1)

        at_once = last == 0 or len(self.forward.hierarchy.levels) == 1
        self.model.recording = every or (record and at_once)
        try:
            result = self.forward.solve(start, guess, on_iteration=before_last)
        finally:
            self.model.recording = False
        has_states = result.status is not Status.DIVERGED
        if self.memory is not None and self._numbers is not None and has_states:
            self.memory.keep(self._numbers, result.u)
        return result

    def times(self, result: Result) -> NDArray[np.int64]:
        """Return the elements, counted from 1, whose outputs this rank owns."""
        own = np.arange(max(result.first, 1), result.first + result.u.shape[0])
        return self.num_steps + 1 - own if self.is_reverse else own

    def outputs(self, result: Result) -> Array:
        """Return the top layer's h at `times`, shape (number of them, B, H); a view."""
        own: Array = result.u[1 if result.first == 0 else 0 :]
        return own[:, -1, :, : self.model.options.hidden]

    def final(self, result: Result) -> Array:
        """Return the top layer's h at the end of the sweep, (B, H), on every rank; collective."""
        with self.watch.phase("messages"):
            final: Array = result.final_state()[-1][:, : self.model.options.hidden]
        return final

    def transpose(
        self,
        result: Result,
        d_final: Array | None,
        d_outputs: Array | None,
        d_x: Array | None = None,
        d_states: Array | None = None,
    ) -> AdjointResult:
        """Solve the adjoint problem; gradients are of this rank's steps alone; collective.

        Parameters
        ----------
        result : Result
            Of `solve`.
        d_final : ndarray, shape (B, H), or None
            Derivative by `final`; None is zero.
        d_outputs : ndarray, shape (number of `times`, B, H), or None
            Derivative by `outputs`; None is zero.
        d_x : ndarray, shape (B, T, F), or None
            Where to put the derivative by the sequences, at this rank's steps; None: nowhere.
        d_states : ndarray, shape (layers, B, W), or None
            Derivative by the final states of all layers, in addition; None is zero.
        """
        terminal, sources = self._sources(result, d_final, d_outputs)
        if d_states is not None:
            terminal += d_states
        self.model.input_gradient = d_x[:, ::-1] if d_x is not None and self.is_reverse else d_x
        try:
            return self.backward.solve(result, terminal, sources, total=False)
        finally:
            self.model.input_gradient = None

    def _sources(
        self, result: Result, d_final: Array | None, d_outputs: Array | None
    ) -> tuple[Array, Array | None]:
        """Return dJ/du_N, and what each of this rank's reversed points adds; collective."""
        hidden, shape = self.model.options.hidden, self.model.state_shape
        terminal = np.zeros(shape, dtype=self.model.dtype)
        if d_final is not None:
            terminal[-1, :, :hidden] = d_final
        if d_outputs is None:
            return terminal, None
        own = np.zeros((result.u.shape[0], *shape), dtype=self.model.dtype)
        own[own.shape[0] - d_outputs.shape[0] :, -1, :, :hidden] = d_outputs
        return terminal + self._at_end(own), self.backward.at_reversed_points(own)

    def _at_end(self, own: Array) -> Array:
        """Return the last point's row of states given at the own points, on every rank."""
        last = self.forward.layout.owner(self.num_steps)
        row = own[-1].copy() if self.comm.rank == last else np.empty(own.shape[1:], own.dtype)
        with self.watch.phase("messages"):
            return self.comm.bcast(row, last)


def _change(solver: MGRIT, **changes: Any) -> None:
    """Change options that take effect in the next solve."""
    solver.options = solver.hierarchy.options = replace(solver.options, **changes)
