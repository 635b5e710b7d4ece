"""All recurrent layers of a network, solved along time stage after stage, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.adjoint.solver import AdjointResult
from pint.mgrit.result import Result
from pint.mgrit.status import Status
from pint.options import MGRITOptions
from pint.parallel.comm import Communicator
from pint.rnn.network import LayerStack, Network
from pint.rnn.sweep import Sequences, Sweep

Array = NDArray[Any]
Results = list[Result]
"""One for each direction."""

DIVERGENCE_ADVICE = "parameters that grow without bound need a smaller learning rate or clipping"


@dataclass(eq=False)
class Derivatives:
    """What the adjoint problems of all stages give.

    Attributes
    ----------
    parameters : ndarray, shape (num_parameters,)
        Derivative by all parameters; of this rank's steps.
    start : ndarray, shape (layers * directions, B, W)
        Derivative by the initial state, on every rank.
    x : ndarray, shape (B, T, num_features), or None
        Derivative by the sequences; of this rank's steps.
    adjoints : list of AdjointResult
        Of all sweeps.
    """

    parameters: Array
    start: Array
    x: Array | None
    adjoints: list[AdjointResult]


class Stage:
    """The sweeps that see the same sequences: one, or one for each direction of a layer.

    Parameters
    ----------
    stacks : list of LayerStack
        What each of them solves.
    sweeps : list of Sweep
        On the same ranks.
    """

    def __init__(self, stacks: list[LayerStack], sweeps: list[Sweep]) -> None:
        self.stacks, self.sweeps = stacks, sweeps
        self.comm, self.hidden = sweeps[0].comm, stacks[0].options.hidden

    def solve(self, sequences: Sequences, start: Array, *, record: bool) -> Results:
        """Solve for the states; start is (all layers and directions, B, W); collective."""
        results = []
        for stack, sweep in zip(self.stacks, self.sweeps, strict=True):
            sweep.bind(sequences, backward=record)
            results.append(sweep.solve(start[stack.rows], record=record))
            check_solved("no states", results[-1])
        return results

    def finals(self, results: Results) -> Array:
        """Return h of each direction at its own end, (B, D H), on every rank; collective."""
        pairs = zip(self.sweeps, results, strict=True)
        return np.concatenate([sweep.final(result) for sweep, result in pairs], axis=1)

    def outputs(self, results: Results) -> Array:
        """Return h of all directions at all times, (B, T, D H), on every rank; collective."""
        both = []
        for sweep, result in zip(self.sweeps, results, strict=True):
            with sweep.watch.phase("messages"):
                rows = self.comm.allgather_blocks(np.ascontiguousarray(sweep.outputs(result)))
            both.append(rows[::-1] if sweep.is_reverse else rows)
        return np.concatenate(both, axis=2).swapaxes(0, 1)

    def own(self, results: Results, outputs: Array) -> list[Array]:
        """Return each sweep's own part, (number of times, B, H), of an array like `outputs`."""
        parts = np.split(outputs, len(self.sweeps), axis=2)
        triples = zip(self.sweeps, results, parts, strict=True)
        return [part[:, sweep.times(result) - 1].swapaxes(0, 1) for sweep, result, part in triples]

    def transpose(
        self,
        results: Results,
        d_finals: Array | None,
        d_outputs: list[Array] | None,
        into: Derivatives,
        *,
        inputs: bool,
    ) -> Array | None:
        """Solve the adjoint problems; add to `into`; collective.

        Parameters
        ----------
        results : list of Result
            Of `solve`.
        d_finals : ndarray, shape (B, D H), or None
            Derivative by `finals`; None is zero.
        d_outputs : list of ndarray, or None
            Derivative by the outputs that each sweep owns, see `own`; None is zero.
        into : Derivatives
            Takes the gradients of parameters and initial states.
        inputs : bool
            Compute what is returned.

        Returns
        -------
        ndarray, shape (B, T, F), or None
            Derivative by the sequences; this rank's part of a sum.
        """
        d_x: Array | None = None
        for index, (stack, sweep) in enumerate(zip(self.stacks, self.sweeps, strict=True)):
            shape = (sweep.model.batch, sweep.num_steps, stack.options.num_features)
            d_own = np.zeros(shape, dtype=sweep.model.dtype) if inputs else None
            columns = slice(index * self.hidden, (index + 1) * self.hidden)
            d_final = None if d_finals is None else d_finals[:, columns]
            d_output = None if d_outputs is None else d_outputs[index]
            adjoint = sweep.transpose(results[index], d_final, d_output, d_own)
            check_solved("no gradient", adjoint)
            into.adjoints.append(adjoint)
            into.parameters[stack.part] = adjoint.parameter_gradient
            into.start[stack.rows] = adjoint.initial_gradient
            if d_x is None or d_own is None:
                d_x = d_own
            else:
                d_x += d_own
        return d_x


class Stages:
    """All stages of a network on the ranks of one communicator.

    Parameters
    ----------
    network : Network
        The parameters; shared.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        How both problems are solved.
    comm : Communicator
        The ranks that share the time axis.
    warm_start_sequences : int, default 0
        See `Sweep`.
    """

    def __init__(
        self,
        network: Network,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Communicator,
        warm_start_sequences: int = 0,
    ) -> None:
        def sweep(stack: LayerStack, is_reverse: bool) -> Sweep:
            parameters = network.parameters[stack.part]
            return Sweep(
                stack.options, parameters, num_steps, forward, backward, comm, is_reverse,
                warm_start_sequences,
            )  # fmt: skip

        self.network, self.comm = network, comm
        self.stages = [
            Stage(stacks, [sweep(stack, index == 1) for index, stack in enumerate(stacks)])
            for stacks in network.stages()
        ]

    @property
    def top(self) -> Stage:
        """The stage that the head stands on."""
        return self.stages[-1]

    @property
    def sweeps(self) -> list[Sweep]:
        """All sweeps; they have the same grid, levels and layout."""
        return [sweep for stage in self.stages for sweep in stage.sweeps]

    def solve(self, sequences: Sequences, start: Array, *, record: bool) -> list[Results]:
        """Solve for the states of all stages, from the first to the last; collective.

        Parameters
        ----------
        sequences : Sequences
            The same on every rank.
        start : ndarray, shape (layers * directions, B, W)
            Initial state.
        record : bool
            Keep what `transpose` needs.
        """
        results = [self.stages[0].solve(sequences, start, record=record)]
        for below, stage in zip(self.stages, self.stages[1:], strict=False):
            above = replace(sequences, x=below.outputs(results[-1]))
            results.append(stage.solve(above, start, record=record))
        return results

    def transpose(
        self,
        results: list[Results],
        d_finals: Array | None,
        d_outputs: list[Array] | None,
        *,
        inputs: bool,
    ) -> Derivatives:
        """Solve the adjoint problems of all stages, from the last to the first; collective.

        Parameters
        ----------
        results : list of list of Result
            Of `solve`.
        d_finals, d_outputs
            Derivatives at the top, see `Stage.transpose`.
        inputs : bool
            Also return the derivative by the sequences.
        """
        a, batch = self.network.architecture, self.sweeps[0].model.batch
        start = np.zeros((a.num_states, batch, a.state_width), dtype=np.dtype(a.dtype))
        into = Derivatives(np.zeros_like(self.network.parameters), start, None, [])
        for index in range(len(self.stages) - 1, -1, -1):
            stage, wanted = self.stages[index], inputs or index > 0
            d_x = stage.transpose(results[index], d_finals, d_outputs, into, inputs=wanted)
            if index > 0 and d_x is not None:
                with stage.sweeps[0].watch.phase("messages"):
                    whole = self.comm.sum(d_x)
                d_finals, d_outputs = None, self.stages[index - 1].own(results[index - 1], whole)
            else:
                into.x = d_x
        return into


def check_solved(what: str, solved: Result | AdjointResult) -> None:
    """Raise FloatingPointError if a solve diverged; on every rank of it."""
    if solved.status is Status.DIVERGED:
        raise FloatingPointError(f"{what} ({told(solved)}); {DIVERGENCE_ADVICE}")


def told(solved: Result | AdjointResult) -> str:
    """Return how a solve ended, in words."""
    return "; ".join(filter(None, (solved.status.value, solved.detail)))
