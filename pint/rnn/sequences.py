"""Whole sequences through a stack of recurrent layers: outputs, and gradients of everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.mgrit.result import Result
from pint.mgrit.status import Status
from pint.options import MGRITOptions
from pint.parallel.comm import as_communicator
from pint.rnn.parameters import num_entries, views
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.sweep import Sequences, Sweep

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceGradient:
    """Gradients of a number that depends on the outputs and the final states of layers.

    Attributes
    ----------
    parameters : dict of str to ndarray
        By the names of `RecurrenceOptions.shapes`.
    start : ndarray, shape (layers, B, W)
        Of the initial states.
    x : ndarray, shape (T, B, num_features), or None
        Of the sequences; None where it was not asked for.
    status : Status
        How the solve ended.
    """

    parameters: dict[str, Array]
    start: Array
    x: Array | None
    status: Status


class SequenceSolver:
    """Solves recurrent layers over sequences of one length, forwards and backwards.

    Every rank gives the same arrays and gets whole ones; the time axis is split among them.

    Parameters
    ----------
    options : RecurrenceOptions
        The layers.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        How the forward and the adjoint problem are solved.
    comm : mpi4py communicator or Communicator, optional
        The ranks that share the time axis.

    Examples
    --------
    >>> options = RecurrenceOptions(num_features=2, hidden=3, dtype=float)
    >>> exact = MGRITOptions(levels=1)
    >>> solver = SequenceSolver(options, 5, exact, exact)
    >>> solver.bind([np.zeros(shape) for shape in options.shapes().values()], np.ones((5, 1, 2)))
    >>> result = solver.solve(np.ones((1, 1, 3)), record=True)
    >>> solver.outputs(result)[:, 0, 0].round(3)  # a half of z keeps 1 / (1 + 1 / 2) of the state
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
        self.sweep = Sweep(
            options, parameters, num_steps, forward, backward, as_communicator(comm).duplicate()
        )
        self.model = self.sweep.model
        self.forward, self.backward = self.sweep.forward, self.sweep.backward

    def bind(
        self, parameters: Iterable[Array], x: Array, mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Set the parameters and the sequences; what a gradient needs of them is kept until then.

        Parameters
        ----------
        parameters : iterable of ndarray
            In the order of `RecurrenceOptions.shapes`; copied.
        x : ndarray, shape (T, B, num_features)
            Sequences; copied.
        mask : ndarray of bool, shape (B, T), optional
            False where a sequence has no element.
        """
        np.concatenate([tensor.ravel() for tensor in parameters], out=self.model.parameters)
        self.sweep.bind(Sequences(x=x.swapaxes(0, 1), mask=mask), backward=True)

    def solve(self, start: Array, *, record: bool) -> Result:
        """Solve for the states of the bound sequences; collective.

        Parameters
        ----------
        start : ndarray, shape (layers, B, W)
            Initial states.
        record : bool
            Keep the derivatives of the last sweep for `gradient`, which otherwise evaluates them.
        """
        return self.sweep.solve(start, record=record)

    def outputs(self, result: Result) -> Array:
        """Return h of the top layer after each step, shape (T, B, H), on every rank; collective.

        It shares memory with `result` where there is one rank.
        """
        own = self.sweep.outputs(result)
        return own if result.comm.size == 1 else result.comm.allgather_blocks(own)

    def gradient(
        self, result: Result, d_outputs: Array | None, d_final: Array | None, *, of_x: bool
    ) -> SequenceGradient:
        """Return the gradient at a solution for the bound parameters and sequences; collective.

        Parameters
        ----------
        result : Result
            What `solve` returned for them.
        d_outputs : ndarray, shape (T, B, H), or None
            Derivative with respect to `outputs`; None is zero.
        d_final : ndarray, shape (layers, B, W), or None
            Derivative with respect to the final states; None is zero.
        of_x : bool
            Whether the gradient of the sequences is computed.
        """
        shape = (len(result.times) - 1, self.model.batch, self.model.options.num_features)
        d_x = np.zeros(shape, dtype=self.model.dtype) if of_x else None
        own = None if d_outputs is None else d_outputs[self.sweep.times(result) - 1]
        adjoint = self.sweep.transpose(
            result, None, own, None if d_x is None else d_x.swapaxes(0, 1), d_states=d_final
        )
        gradient = adjoint.parameter_gradient
        if result.comm.size > 1:
            gradient = result.comm.sum(gradient)
            d_x = None if d_x is None else result.comm.sum(d_x)
        return SequenceGradient(
            parameters=views(gradient, self.model.shapes),
            start=adjoint.initial_gradient,
            x=d_x,
            status=adjoint.status,
        )
