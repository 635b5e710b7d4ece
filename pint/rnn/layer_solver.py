"""Recurrent layers in one direction of time, with their forward and adjoint solver."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointResult, AdjointSolver
from pint.arrays import empty
from pint.grid.timegrid import TimeGrid
from pint.mgrit.result import Result
from pint.mgrit.solver import MGRIT
from pint.mgrit.status import Status
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator, as_communicator
from pint.parallel.thread_team import ThreadTeam
from pint.rnn.batch import Batch
from pint.rnn.parameters import num_entries, views
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.tape import stale_steps
from pint.rnn.warm_start import WarmStart
from pint.stopwatch import Stopwatch

Array = NDArray[Any]


class LayerSolver:
    """Solve a stack of recurrent layers along time, and its adjoint problem.

    Parameters
    ----------
    options : RecurrenceOptions
        Shapes of the layers.
    parameters : ndarray, shape (num_parameters,)
        Parameters of the layers; shared, not copied.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        Options of the forward and of the adjoint solve.
    comm : Communicator
        The ranks that share the time axis.
    is_reverse : bool, default False
        Step from the end of the sequences to their beginning.
    warm_start_sequences : int, default 0
        Number of sequences with a warm start, see `WarmStart`.
    """

    def __init__(
        self,
        options: RecurrenceOptions,
        parameters: Array,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Communicator,
        *,
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
        self.max_iterations: tuple[int | None, int | None] = None, None
        self._buffers: dict[str, Array] = {}
        self._sequence_ids: NDArray[np.int64] | None = None
        self._recorded: Result | None = None  # the result whose derivatives are noted
        self._stale = stale_steps(self.forward)
        levels = self.forward.hierarchy.levels
        self.has_cycles = len(levels) > 1
        self.warm_start = (
            WarmStart(warm_start_sequences, levels[0])
            if warm_start_sequences and self.has_cycles
            else None
        )
        stacks = self.forward.hierarchy.own_steps()
        both = stacks + self.backward.own_steps()
        self._windows = {
            False: self.model.input_windows(*stacks),
            True: self.model.input_windows(*both),
        }

    @property
    def num_inputs(self) -> int:
        """Number of inputs, means among them, that this rank reads in both solves."""
        return len(self._windows[True])

    def iterate(self, forward: int, backward: int) -> None:
        """Set the number of cycles of both solves, from the next solve on."""
        self.max_iterations = forward, backward

    def bind(self, batch: Batch, *, backward: bool) -> None:
        """Bind the sequences of a batch for `solve`, and if `backward` for `transpose` too."""
        x, mask = batch.x, batch.mask
        if self.is_reverse:
            x, mask = x[:, ::-1], None if mask is None else mask[:, ::-1]
        with self.watch.phase("inputs"):
            self.model.set_inputs(x, self._windows[backward], mask)
            if self.has_cycles:
                self.model.project()  # on all ranks at once, not while one waits for another
        self._sequence_ids = batch.sequence_ids

    def solve(
        self,
        start: Array,
        *,
        record: bool,
        error: Exception | None = None,
        local_status: bool = False,
    ) -> Result:
        """Solve for the states of the bound sequences; collective.

        The solve begins with the states of earlier solves where `WarmStart` has all of them. The
        states are valid until the next solve.

        Parameters
        ----------
        start : ndarray, shape (layers, B, W)
            Initial state.
        record : bool
            Keep derivatives for `transpose`.
        error, local_status
            As in `MGRIT.solve`.
        """
        guess, ids = None, self._sequence_ids
        if self.warm_start is not None and ids is not None:
            guess = self.warm_start.guess(ids)
        options = self.forward.options
        self.model.discard()
        # Each cycle of a diagonal Delta correction needs derivatives itself.
        self.model.recording = record or options.uses_diagonals
        try:
            result = self.forward.solve(
                start,
                guess,
                max_iterations=self.max_iterations[0],
                skip_first_down=options.skip_first_down and guess is None,
                out=self._buffer("states", len(self.forward.block)),
                error=error,
                local_status=local_status,
            )
        finally:
            self.model.recording = False
        self._recorded = result if record else None
        if self.warm_start is not None and ids is not None and result.status is not Status.DIVERGED:
            self.warm_start.keep(ids, result.u)
        return result

    def _buffer(self, name: str, num_points: int) -> Array | None:
        """Return memory for states at the own points and the ghost point, reused by every solve."""
        shape = (num_points + 1, *self.model.state_shape)
        if name not in self._buffers or self._buffers[name].shape != shape:
            self._buffers[name] = empty(shape, self.model.dtype)
        return self._buffers[name]

    def empty_input_gradient(self) -> Array:
        """Return zeros for the derivative with respect to the sequences, (B, T, F)."""
        shape = (self.model.batch, self.num_steps, self.model.options.num_features)
        return np.zeros(shape, dtype=self.model.dtype)

    def times(self, result: Result) -> NDArray[np.int64]:
        """Return the elements, counted from 1, whose outputs this rank owns."""
        own = np.arange(max(result.first, 1), result.first + result.u.shape[0])
        return self.num_steps + 1 - own if self.is_reverse else own

    def outputs(self, result: Result) -> Array:
        """Return h of the top layer at `times`, shape (number of times, B, H); a view."""
        own: Array = result.u[1 if result.first == 0 else 0 :]
        return own[:, -1, :, : self.model.options.hidden]

    def final(self, result: Result) -> Array:
        """Return h of the top layer at the last point, (B, H), on every rank; collective."""
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
        error: Exception | None = None,
    ) -> AdjointResult:
        """Solve the adjoint problem; collective.

        Gradients and status belong to this rank's steps, see `AdjointSolver.solve` for
        ``total=False``. The adjoint states are valid until the next solve.

        Parameters
        ----------
        result : Result
            Result of `solve`.
        d_final : ndarray, shape (B, H), or None
            Derivative with respect to `final`; None is zero.
        d_outputs : ndarray, shape (number of `times`, B, H), or None
            Derivative with respect to `outputs`; None is zero.
        d_x : ndarray, shape (B, T, F), or None
            Takes the derivative with respect to the sequences at this rank's steps.
        d_states : ndarray, shape (layers, B, W), or None
            Further derivative with respect to the final states of all layers; None is zero.
        error
            As in `MGRIT.solve`.
        """
        hidden, shape = self.model.options.hidden, self.model.state_shape
        terminal, sources = np.zeros(shape, dtype=self.model.dtype), None
        if d_final is not None:
            terminal[-1, :, :hidden] = d_final
        if d_outputs is not None:
            own = np.zeros((result.u.shape[0], *shape), dtype=self.model.dtype)
            own[own.shape[0] - d_outputs.shape[0] :, -1, :, :hidden] = d_outputs
            sources = self.backward.at_reversed_points(own)
            if own.shape[0]:
                terminal += own[-1]  # counts on the rank that owns the last point
        if d_states is not None:
            terminal += d_states
        stale = self._stale if result is self._recorded else None
        self.model.discard(stale)
        self._recorded = None
        self.model.input_gradient = d_x[:, ::-1] if d_x is not None and self.is_reverse else d_x
        try:
            return self.backward.solve(
                result,
                terminal,
                sources,
                total=False,
                max_iterations=self.max_iterations[1],
                out=self._buffer("adjoint states", len(self.backward.solver.block)),
                error=error,
            )
        finally:
            self.model.input_gradient = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceGradient:
    """Gradients of a number that depends on the outputs and the final states of layers.

    Attributes
    ----------
    parameters : dict of str to ndarray
        Gradient of each tensor, by the names of `RecurrenceOptions.shapes`.
    start : ndarray, shape (layers, B, W)
        Gradient of the initial states.
    x : ndarray, shape (T, B, num_features), or None
        Gradient of the sequences; None where `of_x` was False.
    status : Status
        How the solve ended.
    """

    parameters: dict[str, Array]
    start: Array
    x: Array | None
    status: Status


class SequenceSolver(LayerSolver):
    """Solve recurrent layers over sequences of one length, forwards and backwards.

    Every rank gives the same arrays and gets whole ones; the ranks share the time axis.

    Parameters
    ----------
    options : RecurrenceOptions
        Shapes of the layers.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        Options of the forward and of the adjoint solve.
    comm : mpi4py communicator or Communicator, optional
        The ranks that share the time axis.

    Examples
    --------
    >>> options = RecurrenceOptions(num_features=2, hidden=3, dtype=float)
    >>> exact = MGRITOptions(levels=1)
    >>> solver = SequenceSolver(options, 5, exact, exact)
    >>> tensors = [np.zeros(shape) for shape in options.shapes().values()]
    >>> solver.bind_sequences(tensors, np.ones((5, 1, 2)))
    >>> result = solver.solve(np.ones((1, 1, 3)), record=True)
    >>> solver.whole_outputs(result)[:, 0, 0].round(3)  # half of z: factor 1 / (1 + 1 / 2)
    array([0.667, 0.444, 0.296, 0.198, 0.132])
    """

    def __init__(
        self,
        options: RecurrenceOptions,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Any = None,
    ) -> None:
        parameters = np.zeros(num_entries(options.shapes()), options.dtype)
        comm = as_communicator(comm).duplicate()
        super().__init__(options, parameters, num_steps, forward, backward, comm)

    def _buffer(self, name: str, num_points: int) -> None:
        """Return nothing: `whole_outputs` may share memory with results."""

    def bind_sequences(
        self, parameters: Iterable[Array], x: Array, mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Set the parameters and the sequences of the solves to come.

        Parameters
        ----------
        parameters : iterable of ndarray
            Tensors in the order of `RecurrenceOptions.shapes`; copied.
        x : ndarray, shape (T, B, num_features)
            Sequences; copied.
        mask : ndarray of bool, shape (B, T), optional
            False where a sequence has no element.
        """
        np.concatenate([tensor.ravel() for tensor in parameters], out=self.model.parameters)
        self.bind(Batch(x.swapaxes(0, 1), mask), backward=True)

    def whole_outputs(self, result: Result) -> Array:
        """Return h of the top layer after each step, shape (T, B, H), on every rank; collective.

        On one rank it shares memory with `result`.
        """
        own = self.outputs(result)
        return own if self.comm.size == 1 else self.comm.allgather_blocks(own)

    def gradient(
        self, result: Result, d_outputs: Array | None, d_final: Array | None, *, of_x: bool
    ) -> SequenceGradient:
        """Return the gradient at a solution for the bound parameters and sequences; collective.

        Parameters
        ----------
        result : Result
            Result of `solve`.
        d_outputs : ndarray, shape (T, B, H), or None
            Derivative with respect to `whole_outputs`; None is zero.
        d_final : ndarray, shape (layers, B, W), or None
            Derivative with respect to the final states; None is zero.
        of_x : bool
            Whether to compute the gradient of the sequences.
        """
        d_x = self.empty_input_gradient() if of_x else None
        own = None if d_outputs is None else d_outputs[self.times(result) - 1]
        adjoint = self.transpose(result, None, own, d_x, d_states=d_final)
        gradient, d_start = adjoint.parameter_gradient, adjoint.initial_gradient
        if self.comm.size > 1:
            gradient, d_start = self.comm.sum(gradient), self.comm.sum(d_start)
            d_x = None if d_x is None else self.comm.sum(d_x)
        diverged = self.comm.any(adjoint.status is Status.DIVERGED)
        return SequenceGradient(
            parameters=views(gradient, self.model.shapes),
            start=d_start,
            x=None if d_x is None else d_x.swapaxes(0, 1),
            status=Status.DIVERGED if diverged else adjoint.status,
        )
