"""A network's scores, loss and gradient, by MGRIT over the time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import MGRITOptions, at_least, instance_of
from pint.parallel.comm import Communicator, as_communicator
from pint.rnn.architecture import layer_stacks
from pint.rnn.batch import Batch, Targets
from pint.rnn.layer_solver import LayerSolver
from pint.rnn.losses import CrossEntropy, Loss
from pint.rnn.network import Network
from pint.rnn.parameters import views
from pint.rnn.stage import (
    DIVERGENCE_ADVICE,
    ForwardPass,
    StackGradient,
    Stage,
    describe_status,
    divergence,
    forward_pass,
)
from pint.stopwatch import Stopwatch

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class LossAndGradient:
    """Loss of one batch and its gradient; the same on every rank.

    Attributes
    ----------
    loss : float
        Mean over the batch, see `Loss`.
    num_correct, num_elements : int
        Number of elements (sequences, or times of sequences) with the right class, and of all.
    total_weight : float
        Sum of the elements' weights in the loss.
    gradient : ndarray, shape (num_parameters,)
        Gradient of the loss with respect to all parameters.
    forward_residuals, backward_residuals : ndarray of float64
        Residual norms of both solves, by iteration; NaN where none was measured. Several solves
        give the root of the sum of squares.
    forward_relative, backward_relative : float
        Last residual norm divided by the norm of the solution at all points; NaN if none was
        measured.
    input_gradient : ndarray, shape (B, T, num_features), or None
        Gradient with respect to the sequences, with ``inputs=True``.
    start_gradient : ndarray, shape (layers * directions, B, W), or None
        Gradient with respect to the initial state, with ``inputs=True``.
    """

    loss: float
    num_correct: int
    num_elements: int
    total_weight: float
    gradient: Array
    forward_residuals: NDArray[np.float64]
    backward_residuals: NDArray[np.float64]
    forward_relative: float
    backward_relative: float
    input_gradient: Array | None = None
    start_gradient: Array | None = None


@dataclass(frozen=True, eq=False)
class HeadGradient:
    """Loss of the scores of one rank, and its derivatives.

    Attributes
    ----------
    loss, num_correct : float, int
        Sums over the scores.
    d_scores, d_features : ndarray, or None
        Derivatives with respect to the scores and the features; None without scores.
    """

    loss: float = 0.0
    num_correct: int = 0
    d_scores: Array | None = None
    d_features: Array | None = None


@dataclass(frozen=True, eq=False)
class LocalGradient:
    """Loss and gradient of one rank; their sum over all ranks belongs to the batch.

    Attributes
    ----------
    loss, num_correct : float, int
        Loss and right classes of the scores that count on this rank.
    parameters : ndarray, shape (num_parameters,)
        Derivative with respect to all parameters.
    start : ndarray, shape (layers * directions, B, W)
        Derivative with respect to the initial state.
    x : ndarray, shape (B, T, num_features), or None
        Derivative with respect to the sequences.
    squares : ndarray of float64, shape (2,)
        Squared norms of the states and of the adjoint states.
    forward_residuals, backward_residuals : list of ndarray of float64
        Residual norms of each solve.
    error : Exception or None
        Divergence of the last solve on this rank.
    """

    loss: float
    num_correct: int
    parameters: Array
    start: Array
    x: Array | None
    squares: NDArray[np.float64]
    forward_residuals: list[NDArray[np.float64]]
    backward_residuals: list[NDArray[np.float64]]
    error: Exception | None


class NetworkSolver:
    """Evaluate a network and its gradient, both by MGRIT over the time axis.

    Parameters
    ----------
    network : Network
        The parameters; shared, so that several solvers can work with the same ones.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        Options of the forward and of the adjoint solve. ``MGRITOptions(levels=1)`` is exact serial
        stepping, and exact backpropagation through time.
    comm : mpi4py communicator or Communicator, optional
        The ranks.
    loss : Loss, default CrossEntropy()
        The loss.
    time_ranks : int, optional
        Number of ranks that share the time axis of a sequence; it must divide the number of ranks,
        and the groups share the sequences of a batch. All ranks share the time axis if left out.
    warm_start_sequences : int, default 0
        Number of sequences with a warm start: cycles begin with the states of the latest solve
        where all sequences of a batch have one. Each rank keeps states at its C-points.

    Raises
    ------
    ValueError
        If the number of ranks is no multiple of `time_ranks`, if several groups shall keep warm
        starts (a group would meet other sequences each time), or if states are not kept at all
        points.
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
        warm_start_sequences: int = 0,
    ) -> None:
        instance_of("network", network, Network)
        instance_of("forward", forward, MGRITOptions)
        instance_of("backward", backward, MGRITOptions)
        at_least("num_steps", num_steps, 1)
        if "c_points" in (forward.storage, backward.storage):
            raise ValueError("networks need the states at all points: leave storage 'c_points' out")
        self.network, self.num_steps = network, num_steps
        self.loss = CrossEntropy() if loss is None else loss
        instance_of("loss", self.loss, Loss)
        self.comm = as_communicator(comm).duplicate()
        size = self.comm.size if time_ranks is None else time_ranks
        at_least("time_ranks", size, 1)
        if self.comm.size % size:
            raise ValueError(f"time_ranks {size} does not divide the {self.comm.size} ranks")
        self.group, self.num_groups = self.comm.rank // size, self.comm.size // size
        self.time: Communicator = self.comm if self.num_groups == 1 else self.comm.split(size)
        at_least("warm_start_sequences", warm_start_sequences, 0)
        if warm_start_sequences and self.num_groups > 1:
            raise ValueError(
                f"warm starts need one group of ranks, got {self.num_groups}: leave out time_ranks"
            )
        self.warm_start_sequences = warm_start_sequences
        self.watch = Stopwatch()
        directions = network.architecture.bidirectional
        self.stages = [
            Stage(
                stacks, network.parameters, num_steps, forward, backward, self.time,
                warm_start_sequences,
            )
            for stacks in layer_stacks(network.options, bidirectional=directions)
        ]  # fmt: skip

    @property
    def layer_solvers(self) -> list[LayerSolver]:
        """The solvers of all stages and directions; all have the same grid, levels and layout."""
        return [solver for stage in self.stages for solver in stage.solvers]

    def iterate(self, forward: int, backward: int) -> None:
        """Set the number of cycles of every forward and adjoint solve from now on."""
        for solver in self.layer_solvers:
            solver.iterate(forward, backward)

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
            Scores, on every rank.
        residuals : ndarray of float64, shape (iterations,)
            Residual norms.

        Raises
        ------
        ValueError
            If shapes do not fit, on every rank.
        FloatingPointError
            If the solve diverged, on every rank.
        """
        with self.comm.collective(self.watch):
            batch = self._batch(x, mask, start)
        own = self._own(batch)
        with self.comm.collective(self.watch):
            solved = self._forward_pass(batch.rows(own)) if own.size else None
        scores = self._whole_scores(solved, own, len(batch.x))
        return scores, self._joined([[] if solved is None else solved.residuals])[0]

    def loss_and_gradient(
        self,
        x: Array,
        y: Array,
        mask: NDArray[np.bool_] | None = None,
        start: Array | None = None,
        *,
        inputs: bool = False,
        sequence_ids: NDArray[np.int64] | None = None,
        error: Exception | None = None,
    ) -> LossAndGradient:
        """Return the loss of a batch and its gradient; collective.

        Parameters
        ----------
        x, mask, start
            As in `predict`.
        y : ndarray
            Targets, the same on every rank: for each element (a sequence, or with pooling "every" a
            time of a sequence) a class, or with `SquaredError` num_outputs numbers. Targets of
            missing elements do not matter.
        inputs : bool, default False
            Also return the gradients with respect to the sequences and the initial state.
        sequence_ids : ndarray of int64, shape (B,), optional
            Ids of the sequences for warm starts, in 0..warm_start_sequences - 1.
        error : Exception, optional
            An error of this rank, for example in reading `x`, which is raised on every rank.

        Raises
        ------
        ValueError
            If shapes do not fit, or no element of the batch has a weight; on every rank.
        FloatingPointError
            If the loss or the gradient is not finite, or a solve diverged; on every rank.
        """
        local = None
        try:
            batch, targets = self._checked(error, x, y, mask, start, sequence_ids)
            own = self._own(batch)
            if own.size:
                rows = batch.rows(own)
                pooling, begin = self.network.architecture.pooling, self._start(rows)
                with self.watch.phase("forward solve"):
                    solved = forward_pass(self.stages, pooling, rows, begin, record=True)
                local = self._local_gradient(rows, targets.rows(own), solved, inputs)
                error = local.error
        except Exception as caught:  # on this rank, or on all ranks of its group
            error = caught
        with self.watch.phase("messages"):
            scalars = self._summed_scalars(local, error)
            return self._total(scalars, local, own, batch, targets, inputs)

    def total_weight(self, x: Array, y: Array, mask: NDArray[np.bool_] | None = None) -> float:
        """Return the sum of the weights of a batch's elements; 0 if no element has a weight.

        It takes arguments of `loss_and_gradient`, which checks more of them.
        """
        return self._targets(y, Batch(np.asarray(x), mask)).total

    def _checked(
        self, error: Exception | None, x: Any, y: Any, mask: Any, start: Any, sequence_ids: Any
    ) -> tuple[Batch, Targets]:
        """Return a batch and its targets; raise what is wrong with them on every rank of a group.

        The other ranks of the group find an error at the begin of their solve.
        """
        agreement = self.layer_solvers[0].forward.comm
        try:
            if error is not None:
                raise error
            batch = self._batch(x, mask, start, sequence_ids)
            targets = self._targets(y, batch)
            if not targets.total > 0:
                raise ValueError("no element of the batch has a weight: the loss is not defined")
        except Exception:
            with agreement.collective(self.watch):
                raise
        if self._own(batch).size == 0:  # no solve
            with agreement.collective(self.watch):
                pass
        return batch, targets

    def _targets(self, y: Any, batch: Batch) -> Targets:
        return Targets.of(np.asarray(y), batch, self.loss, self.network.architecture)

    def _batch(self, x: Any, mask: Any, start: Any, sequence_ids: Any = None) -> Batch:
        """Return a batch that fits."""
        given = (None if each is None else np.asarray(each) for each in (mask, start, sequence_ids))
        batch = Batch(np.asarray(x), *given)
        batch.check(self.network.architecture, self.num_steps, self.warm_start_sequences)
        return batch

    def _own(self, batch: Batch) -> NDArray[np.int64]:
        """Return the sequences of a batch that belong to this rank's group."""
        return np.array_split(np.arange(len(batch.x)), self.num_groups)[self.group]

    def _forward_pass(self, batch: Batch) -> ForwardPass:
        """Return the states for this group's sequences; raise if they diverge on this rank."""
        pooling = self.network.architecture.pooling
        with self.watch.phase("forward solve"):
            solved = forward_pass(self.stages, pooling, batch, self._start(batch))
        if solved.error is not None:
            raise solved.error
        return solved

    def _start(self, batch: Batch) -> Array:
        """Return the initial state for a batch, shape (layers * directions, B, W); new."""
        network = self.network
        return batch.initial_state(network.architecture, network.weights.get("initial_state"))

    def _local_gradient(
        self, batch: Batch, targets: Targets, solved: ForwardPass, inputs: bool
    ) -> LocalGradient:
        """Return this rank's part of loss and gradient; collective on this group."""
        error = solved.error
        with self.watch.phase("head"):
            try:
                head = self._head(solved, targets.at(solved.features.times))
            except Exception as caught:  # raised on every rank by the next solve
                error = error or caught
                values = solved.features.values
                head = HeadGradient(d_features=None if values is None else np.zeros_like(values))
        results = solved.results
        derivatives = self.stages[-1].transposed_pool(
            self.network.architecture.pooling, results[-1], batch.mask, head.d_features
        )
        gradients: list[list[StackGradient]] = []
        with self.watch.phase("backward solve"):
            for index in range(len(self.stages) - 1, -1, -1):
                gradients.append([])
                solves = zip(self.stages[index].solvers, results[index], derivatives, strict=True)
                for solver, result, (d_final, d_outputs) in solves:
                    d_x = solver.empty_input_gradient() if inputs or index > 0 else None
                    adjoint = solver.transpose(result, d_final, d_outputs, d_x, error=error)
                    error = divergence("no gradient", adjoint)
                    gradients[-1].append(StackGradient(adjoint, d_x))
                if index > 0:
                    derivatives = self._below(index, results, gradients[-1])
        local = self._assembled(solved, head, gradients, inputs, error)
        if "initial_state" in self.network.weights and batch.start is None:
            named = views(local.parameters, self.network.architecture.shapes)
            named["initial_state"] += local.start.sum(axis=1)
        return local

    def _below(
        self, index: int, results: list[list[Any]], gradients: list[StackGradient]
    ) -> list[tuple[Array | None, Array | None]]:
        """Return the derivatives at the stage below, which sees all times; collective."""
        with self.stages[index].solvers[0].watch.phase("messages"):
            whole = self.time.sum(_sum_x(gradients))
        below = self.stages[index - 1]
        return [(None, own) for own in below.own_outputs(results[index - 1], whole)]

    def _head(self, solved: ForwardPass, targets: Targets) -> HeadGradient:
        """Return loss and derivatives of this rank's scores."""
        if solved.features.values is None:
            return HeadGradient()
        with np.errstate(over="ignore", invalid="ignore"):  # raised below
            scores = self.network.scores(solved.features.values)
            terms, d_scores = self.loss.terms(scores, targets.y)
            loss = float((targets.weights * terms).sum())
            d_scores *= targets.weights[..., None].astype(scores.dtype)
            d_features = d_scores @ self.network.weights["head.weight"]
        if not np.isfinite(loss):
            status = describe_status(solved.results[0][0])
            raise FloatingPointError(f"the loss is {loss} ({status}); {DIVERGENCE_ADVICE}")
        if not np.isfinite(d_features).all():
            raise FloatingPointError(
                f"the loss is {loss:.1e}, its derivative not finite; {DIVERGENCE_ADVICE}"
            )
        num_correct = self.loss.num_correct(scores, targets.y, targets.weights > 0)
        return HeadGradient(loss, num_correct, d_scores, d_features)

    def _assembled(
        self,
        solved: ForwardPass,
        head: HeadGradient,
        gradients: list[list[StackGradient]],
        inputs: bool,
        error: Exception | None,
    ) -> LocalGradient:
        """Put a gradient together; `gradients` are from the last stage to the first."""
        a, features = self.network.architecture, solved.features
        parameters = np.zeros_like(self.network.parameters)
        batch = self.layer_solvers[0].model.batch
        start = np.zeros((a.num_states, batch, a.state_width), dtype=np.dtype(a.dtype))
        for stage, of_stage in zip(self.stages, gradients[::-1], strict=True):
            for stack, gradient in zip(stage.stacks, of_stage, strict=True):
                parameters[stack.part] = gradient.adjoint.parameter_gradient
                start[stack.rows] = gradient.adjoint.initial_gradient
        named = views(parameters, a.shapes)
        if features.times is None and features.owner != self.time.rank:
            head = HeadGradient()  # the owner counts the same scores
        if head.d_scores is not None and features.values is not None:
            rows = head.d_scores.reshape(-1, head.d_scores.shape[-1])
            named["head.weight"] += rows.T @ features.values.reshape(-1, features.values.shape[-1])
            named["head.bias"] += rows.sum(axis=0)
        adjoints = [gradient.adjoint for stage in gradients for gradient in stage]
        squares = [0.0, 0.0]
        if self.layer_solvers[0].has_cycles:  # else there is no residual to compare with norms
            states = [result.u for stage in solved.results for result in stage]
            squares = [_square(states), _square([adjoint.w for adjoint in adjoints])]
        return LocalGradient(
            loss=head.loss,
            num_correct=head.num_correct,
            parameters=parameters,
            start=start,
            x=_sum_x(gradients[-1]) if inputs else None,
            squares=np.array(squares),
            forward_residuals=solved.residuals,
            backward_residuals=[adjoint.residuals for adjoint in adjoints],
            error=error,
        )

    def _whole_scores(
        self, solved: ForwardPass | None, own: NDArray[np.int64], count: int
    ) -> Array:
        """Return the scores of a whole batch; collective."""
        a = self.network.architecture
        shape = (count, self.num_steps) if a.pooling == "every" else (count,)
        scores = np.zeros((*shape, a.num_outputs), dtype=np.dtype(a.dtype))
        if solved is not None and solved.features.values is not None:
            features = solved.features
            values = self.network.scores(solved.features.values)
            if features.times is not None:
                scores[np.ix_(own, features.times - 1)] = values.swapaxes(0, 1)
            elif features.owner == self.time.rank:
                scores[own] = values
        return self.comm.sum(scores)

    def _summed_scalars(
        self, local: LocalGradient | None, error: Exception | None
    ) -> NDArray[np.float64]:
        """Return loss, right classes and two squares, summed over all ranks; collective.

        An error of any rank is raised on all of them.
        """
        own = np.zeros(5)
        if error is not None:
            own[4] = 1
        elif local is not None:
            own[:4] = local.loss, local.num_correct, *local.squares
        total = self.comm.sum(own)
        if total[4]:
            with self.comm.collective():
                if error is not None:
                    raise error
        return total[:4]

    def _total(
        self,
        scalars: NDArray[np.float64],
        local: LocalGradient | None,
        own: NDArray[np.int64],
        batch: Batch,
        targets: Targets,
        inputs: bool,
    ) -> LossAndGradient:
        """Sum over all ranks, of the time axis and of the batch at once; collective."""
        none = np.zeros_like(self.network.parameters)
        gradient = self.comm.sum(none if local is None else local.parameters)
        if not np.isfinite(gradient).all():
            raise FloatingPointError(f"the gradient is not finite; {DIVERGENCE_ADVICE}")
        forward, backward = self._joined(
            ([], []) if local is None else (local.forward_residuals, local.backward_residuals)
        )
        d_x, d_start = self._input_gradients(local, own, batch) if inputs else (None, None)
        return LossAndGradient(
            loss=float(scalars[0]),
            num_correct=int(scalars[1]),
            num_elements=int((targets.weights > 0).sum()),
            total_weight=targets.total,
            gradient=gradient,
            forward_residuals=forward,
            backward_residuals=backward,
            forward_relative=_ratio(forward[-1], scalars[2]),
            backward_relative=_ratio(backward[-1], scalars[3]),
            input_gradient=d_x,
            start_gradient=d_start,
        )

    def _joined(self, solves: Sequence[list[NDArray[np.float64]]]) -> list[NDArray[np.float64]]:
        """Return the residual norms of all solves of all groups together; collective.

        Parameters
        ----------
        solves : sequence of list of ndarray
            For each kind of solve, the residual norms of this group's solves.
        """
        counts = np.array([[max((row.size for row in rows), default=0) for rows in solves]])
        if self.num_groups > 1:
            counts = self.comm.allgather_blocks(counts)
        sizes = counts.max(axis=0)
        # A solve that stopped before the others keeps its last residual.
        padded = [
            [np.pad(row, (0, size - row.size), mode="edge") for row in rows]
            for rows, size in zip(solves, sizes, strict=True)
        ]
        if self.num_groups == 1 and all(len(rows) == 1 for rows in padded):
            return [rows[0] for rows in padded]
        squares = np.concatenate(
            [
                np.sum(np.square(rows), axis=0) if rows else np.zeros(size)
                for rows, size in zip(padded, sizes, strict=True)
            ]
        )
        if self.num_groups > 1:
            squares = self.comm.sum(squares if self.time.rank == 0 else np.zeros_like(squares))
        return np.split(np.sqrt(squares), np.cumsum(sizes)[:-1])

    def _input_gradients(
        self, local: LocalGradient | None, own: NDArray[np.int64], batch: Batch
    ) -> tuple[Array, Array]:
        """Return the gradients with respect to sequences and initial states; collective."""
        a = self.network.architecture
        d_x = np.zeros(batch.x.shape, dtype=np.dtype(a.dtype))
        d_start = np.zeros((a.num_states, len(batch.x), a.state_width), dtype=d_x.dtype)
        if local is not None:
            d_x[own] = local.x
            d_start[:, own] = local.start
        return self.comm.sum(d_x), self.comm.sum(d_start)


def _ratio(residual: float, square: float) -> float:
    """Return a residual norm divided by the norm of a solution."""
    if np.isnan(residual):
        return float("nan")
    return float(residual / np.sqrt(square)) if square > 0 else 0.0


def _sum_x(gradients: list[StackGradient]) -> Array:
    """Return the sum of the derivatives with respect to the sequences of all directions."""
    first: Any = gradients[0].x
    total: Array = first if len(gradients) == 1 else first + gradients[1].x
    return total


def _square(states: list[Array]) -> float:
    """Return the sum of the squares of all states."""
    return sum(float(np.vdot(u, u)) for u in states)
