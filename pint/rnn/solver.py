"""A network's scores, loss and gradient, by MGRIT over the time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint import AdjointResult
from pint.comm import Communicator, as_communicator
from pint.mgrit.iteration import Status
from pint.mgrit.solver import Result
from pint.options import MGRITOptions, at_least
from pint.rnn.losses import CrossEntropy, Loss
from pint.rnn.network import Network
from pint.rnn.parameters import views
from pint.rnn.sweep import Sequences, Sweep

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossAndGradient:
    """What one batch gives; the same on every rank.

    Attributes
    ----------
    loss : float
        Mean over the batch, see `Loss`.
    num_correct, num_elements : int
        Elements that are classified rightly, and all of them: sequences, or times of sequences.
    gradient : ndarray, shape (num_parameters,)
        Of the loss with respect to all parameters.
    forward_residuals, backward_residuals : ndarray of float64
        Residual norms of both solves, by iteration; NaN where none was measured. Of several solves,
        the root of the sum of squares.
    forward_relative, backward_relative : float
        The last of them, divided by the norm of the solution at all points; NaN if none was
        measured.
    input_gradient : ndarray, shape (B, T, num_features), or None
        Of the loss with respect to the sequences, if asked for.
    start_gradient : ndarray, shape (layers * directions, B, W), or None
        Of the loss with respect to the initial state, if asked for.
    """

    loss: float
    num_correct: int
    num_elements: int
    gradient: Array
    forward_residuals: NDArray[np.float64]
    backward_residuals: NDArray[np.float64]
    forward_relative: float
    backward_relative: float
    input_gradient: Array | None = None
    start_gradient: Array | None = None


class NetworkSolver:
    """Evaluates a network and its gradient, both by MGRIT over the time axis.

    Parameters
    ----------
    network : Network
        The parameters; shared, so that several solvers can work with the same ones.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        How the forward and the adjoint problem are solved. ``MGRITOptions(levels=1)`` is exact
        serial stepping, and exact backpropagation through time.
    comm : mpi4py communicator or Communicator, optional
        The ranks.
    loss : Loss, default CrossEntropy()
        What is to be small.
    time_ranks : int, optional
        Number of ranks that share the time axis of a sequence; it must divide their number, and the
        groups share the sequences of a batch. All ranks share the time axis if left out.

    Raises
    ------
    ValueError
        If the number of ranks is no multiple of `time_ranks`.
    """

    def __init__(
        self,
        network: Network,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Any = None,
        loss: Loss | None = None,
        time_ranks: int | None = None,
    ) -> None:
        self.network, self.num_steps = network, num_steps
        self.loss = CrossEntropy() if loss is None else loss
        self.comm = as_communicator(comm).duplicate()
        size = self.comm.size if time_ranks is None else time_ranks
        at_least("time_ranks", size, 1)
        if self.comm.size % size:
            raise ValueError(f"time_ranks {size} does not divide the {self.comm.size} ranks")
        self.group, self.num_groups = self.comm.rank // size, self.comm.size // size
        self.time: Communicator = self.comm if self.num_groups == 1 else self.comm.split(size)
        self.stages = [
            [
                Sweep(
                    options, network.parameters[part], num_steps, forward, backward, self.time,
                    is_reverse=direction == 1,
                )
                for direction, (options, part) in enumerate(stage)
            ]
            for stage in network.stages()
        ]  # fmt: skip

    @property
    def sweep(self) -> Sweep:
        """The first solve along time; all have the same grid, levels and layout."""
        return self.stages[0][0]

    def iterate(self, forward: int, backward: int) -> None:
        """Do so many cycles from now on, in each solve."""
        for stage in self.stages:
            for sweep in stage:
                sweep.iterate(forward, backward)

    def predict(
        self, x: Array, mask: NDArray[np.bool_] | None = None, start: Array | None = None
    ) -> tuple[Array, NDArray[np.float64]]:
        """Return scores and the residuals of the solve; collective.

        Parameters
        ----------
        x : ndarray, shape (B, T, num_features)
            Sequences, the same on every rank.
        mask : ndarray of bool, shape (B, T), optional
            False where a sequence has no element; all True if left out.
        start : ndarray, shape (layers * directions, B, W), optional
            Initial state; the learned one, or zero, if left out.

        Returns
        -------
        scores : ndarray, shape (B, num_outputs), or (B, T, num_outputs) where pooling is "every"
            On every rank.
        residuals : ndarray of float64, shape (iterations,)
            Residual norms.

        Raises
        ------
        FloatingPointError
            If the solve diverged, on every rank.
        """
        self._check(x, mask, start)
        every = self.network.architecture.pooling == "every"
        shape = (len(x), self.num_steps) if every else (len(x),)
        scores = np.zeros((*shape, self.network.weights["head.bias"].size), self._dtype)
        own, error = self._own(len(x)), None
        residuals = np.zeros(0)
        try:
            if own.size:
                solved = self._solve(x[own], _rows(mask, own), _columns(start, own), record=False)
                residuals, features = solved.residuals(), self._features(solved)
                values = self.network.scores(features.values)
                if every:
                    at = np.ix_(own, features.times - 1)
                    scores[at] = values.swapaxes(0, 1)
                elif self.time.rank == 0:
                    scores[own] = values
        except Exception as caught:  # every rank must hear of it
            error = caught
        self.comm.agree(error)
        if every or self.num_groups > 1:
            scores = self.comm.sum(scores)
        else:
            scores = self.comm.bcast(scores, 0)
        return scores, self._shared(residuals)

    def loss_and_gradient(
        self,
        x: Array,
        y: Array,
        mask: NDArray[np.bool_] | None = None,
        start: Array | None = None,
        *,
        inputs: bool = False,
    ) -> LossAndGradient:
        """Return the loss of a batch and its gradient; collective.

        Parameters
        ----------
        x, mask, start
            As in `predict`.
        y : ndarray
            Targets, the same on every rank: for each element (a sequence, or with pooling "every" a
            time of a sequence) a class, or with `SquaredError` num_outputs numbers.
        inputs : bool, default False
            Also return the gradients with respect to the sequences and the initial state.

        Raises
        ------
        ValueError
            If shapes do not fit, on every rank.
        FloatingPointError
            If the loss or the gradient is not finite, or a solve diverged; on every rank.
        """
        self._check(x, mask, start)
        weights = self._element_weights(y, mask, len(x))
        own, error, part = self._own(len(x)), None, None
        try:
            if own.size:
                batch = _Batch(x[own], y[own], weights[own], _rows(mask, own), _columns(start, own))
                part = self._part(batch, inputs)
        except Exception as caught:  # every rank must hear of it
            error = caught
        self.comm.agree(error)
        return self._total(part, own, x.shape, int((weights > 0).sum()), inputs)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.network.options.dtype)

    def _own(self, batch: int) -> NDArray[np.int64]:
        """Return the sequences of a batch that this rank's group works on."""
        return np.array_split(np.arange(batch), self.num_groups)[self.group]

    def _check(self, x: Array, mask: Any, start: Array | None) -> None:
        a = self.network.architecture
        if x.ndim != 3 or x.shape[1:] != (self.num_steps, a.num_features) or len(x) == 0:
            raise ValueError(
                f"sequences must have shape (batch, {self.num_steps}, {a.num_features}), batch at "
                f"least 1, got {x.shape}"
            )
        if not np.isfinite(x).all():
            raise ValueError("sequences must not hold NaN or inf")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != bool):
            raise ValueError(f"mask must be bool {x.shape[:2]}, got {mask.dtype} {mask.shape}")
        if mask is not None and not mask.any(axis=1).all():
            raise ValueError("mask leaves a sequence without any element")
        shape = (a.num_states, len(x), a.state_width)
        if start is not None and start.shape != shape:
            raise ValueError(f"start must have shape {shape}, got {start.shape}")

    def _element_weights(self, y: Array, mask: Any, batch: int) -> NDArray[np.float64]:
        """Return the weights of the terms of the loss, which sum to 1."""
        a = self.network.architecture
        every = a.pooling == "every"
        shape = (batch, self.num_steps, a.num_outputs) if every else (batch, a.num_outputs)
        self.loss.check(y, shape)
        weights = self.loss.weights(y)
        if every and mask is not None:
            weights = weights * mask
        total = weights.sum()
        if not total > 0:
            raise ValueError("no element of the batch has a weight: the loss is not defined")
        return np.asarray(weights / total, dtype=np.float64)

    def _solve(self, x: Array, mask: Any, start: Array | None, *, record: bool) -> _Solved:
        """Run all stages on one group's part of a batch."""
        a, sequences = self.network.architecture, Sequences(x=x, mask=mask)
        if start is None:
            start = np.zeros((a.num_states, len(x), a.state_width), dtype=self._dtype)
            if a.learned_start:
                start += self.network.weights["initial_state"][:, None]
        results: list[list[Result]] = []
        for index, stage in enumerate(self.stages):
            if results:
                sequences = Sequences(x=self._gathered(results[-1], index - 1), mask=mask)
            starts = _starts(start, index, len(stage))
            for sweep in stage:
                sweep.bind(sequences, backward=record)
            results.append(
                [
                    s.solve(u.astype(self._dtype), record=record)
                    for s, u in zip(stage, starts, strict=True)
                ]
            )
            for result in results[-1]:
                _check_finite("no states", True, result)
        return _Solved(results, mask, len(x))

    def _gathered(self, results: list[Result], stage: int) -> Array:
        """Return the outputs of both directions at all times, (B, T, 2 H), on every rank."""
        both = []
        for sweep, result in zip(self.stages[stage], results, strict=True):
            rows = self.time.allgather_blocks(np.ascontiguousarray(sweep.outputs(result)))
            both.append(rows[::-1] if sweep.is_reverse else rows)
        return np.concatenate(both, axis=2).swapaxes(0, 1)

    def _features(self, solved: _Solved) -> _Features:
        """Return what the head takes; where pooling is "every", this rank's part."""
        pooling, top, results = (
            self.network.architecture.pooling,
            self.stages[-1],
            solved.results[-1],
        )
        pairs = list(zip(top, results, strict=True))
        none: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        if pooling == "last":
            finals = [sweep.final(result) for sweep, result in pairs]
            return _Features(np.concatenate(finals, axis=1), none)
        if pooling == "mean":
            weights = solved.mean_weights(self.num_steps)
            sums = [
                np.einsum("nb,nbh->bh", weights[s.times(r) - 1].astype(self._dtype), s.outputs(r))
                for s, r in pairs
            ]
            return _Features(self.time.sum(np.concatenate(sums, axis=1)), none)
        if len(top) == 1:
            return _Features(top[0].outputs(results[0]), top[0].times(results[0]))
        times = np.array_split(np.arange(self.num_steps), self.time.size)[self.time.rank] + 1
        return _Features(self._gathered(results, -1)[:, times - 1].swapaxes(0, 1), times)

    def _part(self, batch: _Batch, inputs: bool) -> _Part:
        """Return loss and gradient of one group's part of a batch; this rank's part of sums."""
        solved = self._solve(batch.x, batch.mask, batch.start, record=True)
        features = self._features(solved)
        scores, every = self.network.scores(features.values), features.times.size > 0
        y, weights = batch.y, batch.weights
        if self.network.architecture.pooling == "every":
            y, weights = (np.swapaxes(a, 0, 1)[features.times - 1] for a in (y, weights))
        terms, d_scores = self.loss.terms(scores, y)
        loss = float((weights * terms).sum())
        if not np.isfinite(loss):
            _check_finite(f"the loss is {loss}", False, solved.results[-1][0])
        d_scores *= weights[..., None].astype(self._dtype)
        counted = every or (self.time.rank == 0 and self.network.architecture.pooling != "every")
        part = _Part(np.zeros_like(self.network.parameters), len(batch.x))
        part.solved = solved
        if counted:  # where all ranks have the same features, one of them counts
            part.loss, part.num_correct = loss, self.loss.num_correct(scores, y, weights > 0)
            named = views(part.gradient, self.network.architecture.shapes)
            rows = d_scores.reshape(-1, d_scores.shape[-1])
            named["head.weight"] += rows.T @ features.values.reshape(rows.shape[0], -1)
            named["head.bias"] += rows.sum(axis=0)
        self._transpose(part, features, d_scores @ self.network.weights["head.weight"], inputs)
        return part

    def _transpose(self, part: _Part, features: _Features, d_features: Array, inputs: bool) -> None:
        """Solve the adjoint problems of all stages, from the last to the first."""
        solved, hidden = part.solved, self.network.options.hidden
        assert solved is not None
        d_ends, d_all = self._d_outputs(solved, features, d_features)
        for index in range(len(self.stages) - 1, -1, -1):
            wanted = index > 0 or inputs
            d_x: Array | None = None
            for direction, sweep in enumerate(self.stages[index]):
                result, columns = (
                    solved.results[index][direction],
                    slice(direction * hidden, (direction + 1) * hidden),
                )
                shape = (part.batch, self.num_steps, sweep.model.options.num_features)
                sweep.model.input_gradient = np.zeros(shape, self._dtype) if wanted else None
                d_final = None if d_ends is None else d_ends[:, columns]
                d_own = None if d_all is None else d_all(sweep, result)[..., columns]
                adjoint = sweep.transpose(result, d_final, d_own)
                _check_finite("no gradient", True, adjoint)
                part.adjoints.append(adjoint)
                part.gradient[self.network.stages()[index][direction][1]] = (
                    adjoint.parameter_gradient
                )
                if sweep.model.input_gradient is not None:
                    own = sweep.model.input_gradient[:, :: -1 if sweep.is_reverse else 1]
                    d_x = own if d_x is None else d_x + own
            if index > 0:
                assert d_x is not None
                whole = self.time.sum(np.ascontiguousarray(d_x))
                d_ends, d_all = None, _selected(whole)
            part.d_x = d_x
        self._add_start(part)

    def _d_outputs(
        self, solved: _Solved, features: _Features, d_features: Array
    ) -> tuple[Array | None, Any]:
        """Return the derivative by the final states, or a function that gives that by outputs."""
        pooling = self.network.architecture.pooling
        if pooling == "last":
            return d_features, None
        if pooling == "mean":
            weights = solved.mean_weights(self.num_steps).astype(self._dtype)
            return None, lambda s, r: weights[s.times(r) - 1][:, :, None] * d_features
        if len(self.stages[-1]) == 1:
            return None, lambda s, r: d_features
        rows = self.time.allgather_blocks(np.ascontiguousarray(d_features))
        return None, _selected(rows.swapaxes(0, 1))

    def _add_start(self, part: _Part) -> None:
        """Collect the gradient with respect to the initial states."""
        starts = [adjoint.initial_gradient for adjoint in part.adjoints]
        order = starts
        if (
            self.network.architecture.bidirectional
        ):  # adjoints came from the last layer to the first
            order = [
                starts[2 * layer + d] for layer in reversed(range(len(starts) // 2)) for d in (0, 1)
            ]
        part.d_start = np.concatenate(order)
        if self.network.architecture.learned_start and self.time.rank == 0:
            named = views(part.gradient, self.network.architecture.shapes)
            named["initial_state"] += part.d_start.sum(axis=1)

    def _total(
        self,
        part: _Part | None,
        own: NDArray[np.int64],
        shape: tuple[int, ...],
        count: int,
        inputs: bool,
    ) -> LossAndGradient:
        """Sum over all ranks, of the time axis and of the batch at once."""
        if part is None:
            part = _Part(np.zeros_like(self.network.parameters), 0)
        gradient = self.comm.sum(part.gradient) if self.comm.size > 1 else part.gradient
        loss, correct = self.comm.sum(np.array([part.loss, part.num_correct]))
        if not np.isfinite(gradient).all():
            raise FloatingPointError("the gradient is not finite; " + _REMEDY)
        residuals = [self._shared(r) for r in part.residuals()]
        return LossAndGradient(
            loss=float(loss),
            num_correct=int(correct),
            num_elements=count,
            gradient=gradient,
            forward_residuals=residuals[0],
            backward_residuals=residuals[1],
            forward_relative=self._relative(residuals[0], part, "forward"),
            backward_relative=self._relative(residuals[1], part, "backward"),
            **(self._input_gradients(part, own, shape) if inputs else {}),
        )

    def _shared(self, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Join the residual norms of all groups."""
        if self.num_groups == 1:
            return residuals
        lengths = self.comm.allgather_blocks(np.array([residuals.size]))  # a group may have none
        squares = np.zeros(int(lengths.max()))
        if self.time.rank == 0:
            squares[: residuals.size] = residuals**2
        squares = self.comm.sum(squares)
        return np.asarray(np.sqrt(squares), dtype=np.float64)

    def _relative(self, residuals: NDArray[np.float64], part: _Part, which: str) -> float:
        """Divide the last residual by the norm of the solution; collective."""
        if np.isnan(residuals[-1]):
            return float("nan")
        square = self.comm.sum(np.array([part.square(which)]))[0]
        return float(residuals[-1] / np.sqrt(square)) if square > 0 else 0.0

    def _input_gradients(
        self, part: _Part, own: NDArray[np.int64], shape: tuple[int, ...]
    ) -> dict[str, Array]:
        """Return the gradients with respect to sequences and initial states, of the whole batch."""
        a = self.network.architecture
        d_x = np.zeros(shape, dtype=self._dtype)
        d_start = np.zeros((a.num_states, shape[0], a.state_width), dtype=self._dtype)
        if part.d_x is not None and part.d_start is not None:
            d_x[own] = part.d_x
            if self.time.rank == 0:
                d_start[:, own] = part.d_start
        return {"input_gradient": self.comm.sum(d_x), "start_gradient": self.comm.sum(d_start)}


@dataclass(frozen=True, eq=False)
class _Batch:
    """One group's part of a batch; the weights are those in the whole batch's loss."""

    x: Array
    y: Array
    weights: NDArray[np.float64]
    mask: NDArray[np.bool_] | None
    start: Array | None


@dataclass(frozen=True, eq=False)
class _Features:
    """What the head takes: (B, D H), or (number of times, B, D H) at some times, from 1."""

    values: Array
    times: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Solved:
    """The states of all stages."""

    results: list[list[Result]]
    mask: NDArray[np.bool_] | None
    batch: int

    def residuals(self) -> NDArray[np.float64]:
        """Return the residual norms of all solves together."""
        return _root_of_squares([r.residuals for stage in self.results for r in stage])

    def mean_weights(self, num_steps: int) -> NDArray[np.float64]:
        """Return the weight of each time in its sequence's mean, (T, B)."""
        if self.mask is None:
            return np.full((num_steps, self.batch), 1 / num_steps)
        return np.ascontiguousarray((self.mask / self.mask.sum(axis=1, keepdims=True)).T)


class _Part:
    """Loss and gradient of one group's part of a batch; this rank's part of what is summed."""

    def __init__(self, gradient: Array, batch: int) -> None:
        self.gradient, self.batch = gradient, batch
        self.loss, self.num_correct = 0.0, 0
        self.solved: _Solved | None = None
        self.adjoints: list[AdjointResult] = []
        self.d_x: Array | None = None
        self.d_start: Array | None = None

    def residuals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the residual norms of the forward and of the backward solves."""
        if self.solved is None:
            return np.zeros(0), np.zeros(0)
        return self.solved.residuals(), _root_of_squares([a.residuals for a in self.adjoints])

    def square(self, which: str) -> float:
        """Return the sum of squares of this rank's states, or of its adjoint states."""
        if self.solved is None:
            return 0.0
        states = (
            [result.u for stage in self.solved.results for result in stage]
            if which == "forward"
            else [adjoint.w for adjoint in self.adjoints]
        )
        return float(sum(np.vdot(u, u) for u in states))


_REMEDY = "parameters that grow without bound need a smaller learning rate or clipping"


def _check_finite(what: str, finite: Any, solved: Result | AdjointResult) -> None:
    """Raise unless numbers are finite and come from a solve that did not diverge."""
    if finite and solved.status is not Status.DIVERGED:
        return
    told = "; ".join(filter(None, (solved.status.value, solved.detail)))
    raise FloatingPointError(f"{what} ({told}); {_REMEDY}")


def _root_of_squares(rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = (
        np.sqrt(np.sum(np.square(rows), axis=0)) if len(rows) > 1 else rows[0]
    )
    return total


def _rows(a: Any, own: NDArray[np.int64]) -> Any:
    return None if a is None else a[own]


def _columns(a: Any, own: NDArray[np.int64]) -> Any:
    return None if a is None else a[:, own]


def _starts(start: Array, stage: int, num_directions: int) -> list[Array]:
    """Return the initial states of a stage's sweeps, each (layers, B, W)."""
    if num_directions == 1:
        return [start]
    return [start[2 * stage + direction][None] for direction in range(2)]


def _selected(d_all: Array) -> Any:
    """Return a function that takes a sweep's own times out of (B, T, ...)."""
    return lambda sweep, result: d_all[:, sweep.times(result) - 1].swapaxes(0, 1)
