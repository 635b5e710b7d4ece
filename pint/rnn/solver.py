"""A network's scores, loss and gradient, by MGRIT over the time axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import MGRITOptions, at_least, instance_of
from pint.parallel.comm import Communicator, as_communicator
from pint.rnn.batch import Batch, Targets
from pint.rnn.evaluation import Evaluation, Part
from pint.rnn.losses import CrossEntropy, Loss
from pint.rnn.network import Network
from pint.rnn.stages import DIVERGENCE_ADVICE
from pint.rnn.sweep import Sweep

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
    total_weight : float
        Sum of their weights in the loss.
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
    total_weight: float
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
    warm_start_sequences : int, default 0
        Warm starts for so many sequences: where all sequences of a batch were solved before, cycles
        begin with their states at that time. Each rank keeps those at its C-points.

    Raises
    ------
    ValueError
        If the number of ranks is no multiple of `time_ranks`, or sequences are to be remembered
        by several groups, which would meet ever others of them, or states are not to be kept at
        all points.
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
        self.evaluation = Evaluation(
            network, self.loss, num_steps, forward, backward, self.time, warm_start_sequences
        )

    @property
    def sweep(self) -> Sweep:
        """The first solve along time; all have the same grid, levels and layout."""
        return self.evaluation.stages.sweeps[0]

    def iterate(self, forward: int, backward: int) -> None:
        """Do so many cycles from now on, in each solve."""
        for sweep in self.evaluation.stages.sweeps:
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
        ValueError
            If shapes do not fit, on every rank.
        FloatingPointError
            If the solve diverged, on every rank.
        """
        with self.comm.collective(self.evaluation.watch):
            batch = self._batch(x, mask, start)
        own = self._own(batch)
        with self.comm.collective(self.evaluation.watch):
            solved = self.evaluation.solve(batch.rows(own)) if own.size else None
        values = None if solved is None else self.network.scores(solved.features.values)
        times = None if solved is None else solved.features.times
        residuals = self._joined([] if solved is None else solved.forward_residuals)
        return self._whole(own, values, times, len(batch.x)), residuals

    def loss_and_gradient(
        self,
        x: Array,
        y: Array,
        mask: NDArray[np.bool_] | None = None,
        start: Array | None = None,
        *,
        inputs: bool = False,
        numbers: NDArray[np.int64] | None = None,
    ) -> LossAndGradient:
        """Return the loss of a batch and its gradient; collective.

        Parameters
        ----------
        x, mask, start
            As in `predict`.
        y : ndarray
            Targets, the same on every rank: for each element (a sequence, or with pooling "every" a
            time of a sequence) a class, or with `SquaredError` num_outputs numbers. Those
            of missing elements do not matter.
        inputs : bool, default False
            Also return the gradients with respect to the sequences and the initial state.
        numbers : ndarray of int64, shape (B,), optional
            Which sequences they are, 0..warm_start_sequences - 1, for a warm start.

        Raises
        ------
        ValueError
            If shapes do not fit, or no element of the batch has a weight; on every rank.
        FloatingPointError
            If the loss or the gradient is not finite, or a solve diverged; on every rank.
        """
        with self.comm.collective(self.evaluation.watch):
            batch = self._batch(x, mask, start, numbers)
            targets = self._targets(y, batch)
        if not targets.total > 0:
            raise ValueError("no element of the batch has a weight: the loss is not defined")
        own = self._own(batch)
        with self.comm.collective(self.evaluation.watch):
            part = self._part(batch, targets, own, inputs)
        with self.evaluation.watch.phase("messages"):
            return self._total(part, own, batch, targets, inputs)

    def total_weight(self, x: Array, y: Array, mask: NDArray[np.bool_] | None = None) -> float:
        """Return the sum of the weights of a batch's elements; 0 if the loss looks at none of them.

        Arguments are those of `loss_and_gradient`, which checks more of them.
        """
        return self._targets(y, Batch(np.asarray(x), mask)).total

    def _targets(self, y: Any, batch: Batch) -> Targets:
        return Targets.of(np.asarray(y), batch, self.loss, self.network.architecture)

    def _batch(self, x: Any, mask: Any, start: Any, numbers: Any = None) -> Batch:
        """Return a batch that fits."""
        given = (None if each is None else np.asarray(each) for each in (mask, start, numbers))
        batch = Batch(np.asarray(x), *given)
        batch.check(self.network.architecture, self.num_steps, self.warm_start_sequences)
        return batch

    def _own(self, batch: Batch) -> NDArray[np.int64]:
        """Return which sequences of a batch this rank's group works on."""
        return np.array_split(np.arange(len(batch.x)), self.num_groups)[self.group]

    def _part(
        self, batch: Batch, targets: Targets, own: NDArray[np.int64], inputs: bool
    ) -> Part | None:
        """Return this rank's part of loss and gradient; None where its group has no sequence."""
        if own.size == 0:
            return None
        solve = self.evaluation.loss_and_gradient
        return solve(batch.rows(own), targets.rows(own), inputs=inputs)

    def _whole(
        self,
        own: NDArray[np.int64],
        values: Array | None,
        times: NDArray[np.int64] | None,
        count: int,
    ) -> Array:
        """Return the scores of a whole batch; collective."""
        a = self.network.architecture
        shape = (count, self.num_steps) if a.pooling == "every" else (count,)
        scores = np.zeros((*shape, a.num_outputs), dtype=np.dtype(a.dtype))
        if values is not None and times is not None:
            scores[np.ix_(own, times - 1)] = values.swapaxes(0, 1)
        elif values is not None and self.time.rank == 0:
            scores[own] = values
        return self.comm.sum(scores)

    def _total(
        self,
        part: Part | None,
        own: NDArray[np.int64],
        batch: Batch,
        targets: Targets,
        inputs: bool,
    ) -> LossAndGradient:
        """Sum over all ranks, of the time axis and of the batch at once."""
        none = np.zeros_like(self.network.parameters)
        gradient = self.comm.sum(none if part is None else part.back.parameters)
        counted = (0.0, 0) if part is None else (part.loss, part.num_correct)
        loss, num_correct = self.comm.sum(np.array(counted))
        if not np.isfinite(gradient).all():
            raise FloatingPointError(f"the gradient is not finite; {DIVERGENCE_ADVICE}")
        forward = self._joined([] if part is None else part.solved.forward_residuals)
        backward = self._joined([] if part is None else part.backward_residuals)
        is_exact = not (forward[-1] > 0 or backward[-1] > 0)  # nothing to compare with norms
        squares = self.comm.sum(np.zeros(2) if part is None or is_exact else part.squares())
        d_x, d_start = self._input_gradients(part, own, batch) if inputs else (None, None)
        return LossAndGradient(
            loss=float(loss),
            num_correct=int(num_correct),
            num_elements=int((targets.weights > 0).sum()),
            total_weight=targets.total,
            gradient=gradient,
            forward_residuals=forward,
            backward_residuals=backward,
            forward_relative=_ratio(forward[-1], squares[0]),
            backward_relative=_ratio(backward[-1], squares[1]),
            input_gradient=d_x,
            start_gradient=d_start,
        )

    def _joined(self, rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the residual norms of all solves of all groups together; collective."""
        count = max((row.size for row in rows), default=0)
        if self.num_groups > 1:
            count = int(self.comm.allgather_blocks(np.array([count])).max())
        # A solve that stopped before the others keeps its last residual.
        padded = [np.pad(row, (0, count - row.size), mode="edge") for row in rows]
        if len(padded) == 1 and self.num_groups == 1:
            return padded[0]
        squares = np.sum(np.square(padded), axis=0) if padded else np.zeros(count)
        if self.num_groups > 1:
            squares = self.comm.sum(squares if self.time.rank == 0 else np.zeros(count))
        return np.asarray(np.sqrt(squares), dtype=np.float64)

    def _input_gradients(
        self, part: Part | None, own: NDArray[np.int64], batch: Batch
    ) -> tuple[Array, Array]:
        """Return the gradients with respect to sequences and initial states; collective."""
        a = self.network.architecture
        d_x = np.zeros(batch.x.shape, dtype=np.dtype(a.dtype))
        d_start = np.zeros((a.num_states, len(batch.x), a.state_width), dtype=d_x.dtype)
        if part is not None:
            d_x[own] = part.back.x
            if self.time.rank == 0:
                d_start[:, own] = part.back.start
        return self.comm.sum(d_x), self.comm.sum(d_start)


def _ratio(residual: float, square: float) -> float:
    """Return a residual norm divided by the norm of a solution."""
    if np.isnan(residual):
        return float("nan")
    return float(residual / np.sqrt(square)) if square > 0 else 0.0
