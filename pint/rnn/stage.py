"""Stages of recurrent layers, what the head takes from the last one, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointResult
from pint.mgrit.result import Result
from pint.mgrit.status import Status
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator
from pint.rnn.architecture import LayerStack, Pooling
from pint.rnn.batch import Batch
from pint.rnn.layer_solver import LayerSolver

Array = NDArray[Any]
Mask = NDArray[np.bool_] | None
Results = list[Result]
"""One result for each direction."""

DIVERGENCE_ADVICE = "parameters that grow without bound need a smaller learning rate or clipping"


@dataclass(frozen=True, eq=False)
class Features:
    """What the head takes from the top stage on this rank.

    Attributes
    ----------
    values : ndarray, shape (B, D H), or (number of times, B, D H), or None
        States of the top layer, or their mean. None: another rank has them.
    times : ndarray of int64, or None
        With pooling "every", the elements of this rank, counted from 1; each is on one rank only.
    owner : int, default 0
        Without times, the rank whose scores count; the same values may be on other ranks, too.
    """

    values: Array | None
    times: NDArray[np.int64] | None = None
    owner: int = 0


@dataclass(eq=False)
class StackGradient:
    """Gradients of one stack of layers; parts of sums over the ranks.

    Attributes
    ----------
    adjoint : AdjointResult
        Solution of the adjoint problem, with the gradients of parameters and initial state.
    x : ndarray, shape (B, T, F), or None
        Derivative with respect to the sequences.
    """

    adjoint: AdjointResult
    x: Array | None


class Stage:
    """Layers that see the same sequences: one stack, or one layer for each direction.

    Parameters
    ----------
    stacks : list of LayerStack
        Layers of each direction.
    parameters : ndarray, shape (num_parameters,)
        Parameters of the network; shared.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        Options of the forward and of the adjoint solve.
    comm : Communicator
        The ranks that share the time axis.
    warm_start_sequences : int, default 0
        Number of sequences with a warm start, see `WarmStart`.
    """

    def __init__(
        self,
        stacks: list[LayerStack],
        parameters: Array,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Communicator,
        warm_start_sequences: int = 0,
    ) -> None:
        self.stacks, self.comm, self.num_steps = stacks, comm, num_steps
        self.solvers = [
            LayerSolver(
                stack.options, parameters[stack.part], num_steps, forward, backward, comm,
                is_reverse=index == 1, warm_start_sequences=warm_start_sequences,
            )
            for index, stack in enumerate(stacks)
        ]  # fmt: skip

    def outputs(self, results: Results) -> Array:
        """Return h of all directions at all times, (B, T, D H), on every rank; collective."""
        both = []
        for solver, result in zip(self.solvers, results, strict=True):
            with solver.watch.phase("messages"):
                rows = self.comm.allgather_blocks(np.ascontiguousarray(solver.outputs(result)))
            both.append(rows[::-1] if solver.is_reverse else rows)
        return np.concatenate(both, axis=2).swapaxes(0, 1)

    def own_outputs(self, results: Results, outputs: Array) -> list[Array]:
        """Return each direction's own part, (times, B, H), of an array like `outputs`."""
        parts = np.split(outputs, len(self.solvers), axis=2)
        triples = zip(self.solvers, results, parts, strict=True)
        return [part[:, s.times(result) - 1].swapaxes(0, 1) for s, result, part in triples]

    def pool(self, pooling: Pooling, results: Results, mask: Mask) -> Features:
        """Return what the head takes from the states; collective."""
        pairs = list(zip(self.solvers, results, strict=True))
        if pooling == "last" and len(pairs) == 1:
            solver, result = pairs[0]
            owner = result.layout.owner(self.num_steps)
            final = solver.outputs(result)[-1] if self.comm.rank == owner else None
            return Features(final, owner=owner)
        if pooling == "last":
            finals = [solver.final(result) for solver, result in pairs]
            return Features(np.concatenate(finals, axis=1))
        if pooling == "mean":
            weights = self._mean_weights(results, mask)
            sums = [
                np.einsum("nb,nbh->bh", own, solver.outputs(result))
                for (solver, result), own in zip(pairs, weights, strict=True)
            ]
            return Features(self.comm.sum(np.concatenate(sums, axis=1)))
        if len(pairs) == 1:
            solver, result = pairs[0]
            return Features(solver.outputs(result), solver.times(result))
        # The directions of a time lie on different ranks.
        times = np.array_split(np.arange(1, self.num_steps + 1), self.comm.size)[self.comm.rank]
        return Features(self.outputs(results)[:, times - 1].swapaxes(0, 1), times)

    def transposed_pool(
        self, pooling: Pooling, results: Results, mask: Mask, d_values: Array | None
    ) -> list[tuple[Array | None, Array | None]]:
        """Return derivatives with respect to each direction's `final` and `outputs`; collective.

        Parameters
        ----------
        pooling, results, mask
            As given to `pool`.
        d_values : ndarray or None
            Derivative with respect to the `values` of its `Features`.
        """
        if d_values is None:
            return [(None, None)] * len(self.solvers)
        if pooling == "last":
            return [(d, None) for d in np.split(d_values, len(self.solvers), axis=1)]
        if pooling == "mean":
            weights = self._mean_weights(results, mask)
            parts = np.split(d_values, len(self.solvers), axis=1)
            return [(None, w[:, :, None] * d) for w, d in zip(weights, parts, strict=True)]
        if len(self.solvers) == 1:
            return [(None, d_values)]
        rows = self.comm.allgather_blocks(np.ascontiguousarray(d_values))
        return [(None, own) for own in self.own_outputs(results, rows.swapaxes(0, 1))]

    def _mean_weights(self, results: Results, mask: Mask) -> list[Array]:
        """Return the weights of each direction's own times in the means, (times, B)."""
        model = self.solvers[0].model
        if mask is None:
            mask = np.ones((model.batch, self.num_steps), dtype=np.bool_)
        weights = (mask / mask.sum(axis=1, keepdims=True)).T.astype(model.dtype)
        return [weights[s.times(r) - 1] for s, r in zip(self.solvers, results, strict=True)]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """The states of all stages, and what the head takes from them.

    Attributes
    ----------
    results : list of list of Result
        Results of each stage and direction.
    features : Features
        Features of the top stage.
    error : Exception or None
        Divergence on this rank; the caller raises it on all ranks.
    """

    results: list[Results]
    features: Features
    error: Exception | None

    @property
    def residuals(self) -> list[NDArray[np.float64]]:
        """Residual norms of each solve."""
        return [result.residuals for stage in self.results for result in stage]


def forward_pass(
    stages: Sequence[Stage], pooling: Pooling, batch: Batch, start: Array, *, record: bool = False
) -> ForwardPass:
    """Solve for the states of all stages, from the first to the last; collective.

    Parameters
    ----------
    stages : sequence of Stage
        All stages of a network.
    pooling : {"last", "every", "mean"}
        What the head takes from the top stage.
    batch : Batch
        Sequences, the same on every rank.
    start : ndarray, shape (layers * directions, B, W)
        Initial state.
    record : bool, default False
        Keep what the adjoint problems need.
    """
    results: list[Results] = []
    error: Exception | None = None
    for stage, below in zip(stages, [None, *stages], strict=False):
        seen = batch if below is None else replace(batch, x=below.outputs(results[-1]))
        results.append([])
        for stack, solver in zip(stage.stacks, stage.solvers, strict=True):
            solver.bind(seen, backward=record)
            result = solver.solve(start[stack.rows], record=record, error=error, local_status=True)
            error = divergence("no states", result)
            results[-1].append(result)
    features = stages[-1].pool(pooling, results[-1], batch.mask)
    return ForwardPass(results, features, error)


def divergence(what: str, solved: Result | AdjointResult) -> Exception | None:
    """Return a FloatingPointError if a solve diverged, else None."""
    if solved.status is not Status.DIVERGED:
        return None
    return FloatingPointError(f"{what} ({describe_status(solved)}); {DIVERGENCE_ADVICE}")


def describe_status(solved: Result | AdjointResult) -> str:
    """Return how a solve ended, in words."""
    return "; ".join(filter(None, (solved.status.value, solved.detail)))
