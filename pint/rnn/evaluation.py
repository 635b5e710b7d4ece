"""What one group of ranks computes: loss and gradient of its sequences of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pint.mgrit.result import Result
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator
from pint.rnn.batch import Batch, Targets
from pint.rnn.losses import Loss
from pint.rnn.network import Network
from pint.rnn.parameters import views
from pint.rnn.pooling import Features, pool, transposed_pool
from pint.rnn.stages import DIVERGENCE_ADVICE, Derivatives, Results, Stages, told
from pint.rnn.sweep import Sequences
from pint.stopwatch import Stopwatch

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Solved:
    """The states of all stages, and what the head takes from them.

    Attributes
    ----------
    results : list of list of Result
        Of each stage and direction.
    features : Features
        Of the top stage.
    """

    results: list[Results]
    features: Features

    @property
    def forward_residuals(self) -> list[NDArray[np.float64]]:
        """Residual norms of each solve."""
        return [result.residuals for stage in self.results for result in stage]


@dataclass(frozen=True, eq=False)
class Head:
    """Loss of the scores that one rank has, and derivatives.

    Attributes
    ----------
    loss, num_correct : float, int
        Summed over these scores.
    d_scores, d_features : ndarray
        Derivatives by the scores and by what the head takes.
    """

    loss: float
    num_correct: int
    d_scores: Array
    d_features: Array


@dataclass(eq=False)
class Part:
    """Loss and gradient of one group's part of a batch; this rank's part of sums over all ranks.

    Attributes
    ----------
    solved : Solved
        The states.
    back : Derivatives
        From the adjoint problems, and from the head.
    loss, num_correct : float, int
        Of the scores that are counted on this rank.
    """

    solved: Solved
    back: Derivatives
    loss: float = 0.0
    num_correct: int = 0

    @property
    def backward_residuals(self) -> list[NDArray[np.float64]]:
        """Residual norms of each adjoint solve."""
        return [adjoint.residuals for adjoint in self.back.adjoints]

    def squares(self) -> NDArray[np.float64]:
        """Return the sums of squares of this rank's states, and of its adjoint states."""
        states: list[Result] = [result for stage in self.solved.results for result in stage]
        forward = sum(float(np.vdot(result.u, result.u)) for result in states)
        return np.array([forward, sum(float(np.vdot(a.w, a.w)) for a in self.back.adjoints)])


class Evaluation:
    """A network on the ranks that share the time axis of the same sequences.

    Parameters
    ----------
    network : Network
        The parameters; shared.
    loss : Loss
        What is to be small.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        How both problems are solved.
    comm : Communicator
        These ranks.
    warm_start_sequences : int, default 0
        See `Sweep`.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Communicator,
        warm_start_sequences: int = 0,
    ) -> None:
        self.network, self.loss, self.comm = network, loss, comm
        self.watch = Stopwatch()
        self.stages = Stages(network, num_steps, forward, backward, comm, warm_start_sequences)

    def solve(self, batch: Batch, *, record: bool = False) -> Solved:
        """Solve for the states; `record` what `loss_and_gradient` needs; collective."""
        a = self.network.architecture
        start = batch.initial_state(a, self.network.weights.get("initial_state"))
        sequences = Sequences(x=batch.x, mask=batch.mask, numbers=batch.numbers)
        with self.watch.phase("forward solve"):
            results = self.stages.solve(sequences, start, record=record)
            return Solved(results, pool(a.pooling, self.stages.top, results[-1], batch.mask))

    def loss_and_gradient(self, batch: Batch, targets: Targets, *, inputs: bool) -> Part:
        """Return this rank's part of loss and gradient, and if asked by the inputs; collective."""
        solved = self.solve(batch, record=True)
        with self.watch.phase("head"), self.comm.collective(self.watch):
            head = self._head(solved, targets.at(solved.features.times))
        pooling, top = self.network.architecture.pooling, self.stages.top
        d_finals, d_outputs = transposed_pool(
            pooling, top, solved.results[-1], batch.mask, head.d_features
        )
        with self.watch.phase("backward solve"):
            back = self.stages.transpose(solved.results, d_finals, d_outputs, inputs=inputs)
        named = views(back.parameters, self.network.architecture.shapes)
        if "initial_state" in named and batch.start is None and self.comm.rank == 0:
            named["initial_state"] += back.start.sum(axis=1)
        if solved.features.times is None and self.comm.rank > 0:
            return Part(solved, back)  # all ranks have the same head: one of them counts
        rows = head.d_scores.reshape(-1, head.d_scores.shape[-1])
        named["head.weight"] += rows.T @ solved.features.values.reshape(
            -1, solved.features.values.shape[-1]
        )
        named["head.bias"] += rows.sum(axis=0)
        return Part(solved, back, head.loss, head.num_correct)

    def _head(self, solved: Solved, targets: Targets) -> Head:
        """Return loss and derivatives of this rank's scores."""
        with np.errstate(over="ignore", invalid="ignore"):  # told by what follows
            scores = self.network.scores(solved.features.values)
            terms, d_scores = self.loss.terms(scores, targets.y)
            loss = float((targets.weights * terms).sum())
            d_scores *= targets.weights[..., None].astype(scores.dtype)
            d_features = d_scores @ self.network.weights["head.weight"]
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} ({told(solved.results[0][0])}); {DIVERGENCE_ADVICE}"
            )
        if not np.isfinite(d_features).all():
            raise FloatingPointError(
                f"the loss is {loss:.1e}, its derivative not finite; {DIVERGENCE_ADVICE}"
            )
        num_correct = self.loss.num_correct(scores, targets.y, targets.weights > 0)
        return Head(loss, num_correct, d_scores, d_features)
