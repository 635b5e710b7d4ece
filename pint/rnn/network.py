"""A sequence classifier: recurrent layers, a linear head, softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from pint.adjoint import AdjointResult, AdjointSolver
from pint.mgrit.iteration import Status
from pint.mgrit.solver import MGRIT, Result
from pint.options import MGRITOptions, at_least
from pint.rnn.parameters import num_entries, uniform, views
from pint.rnn.recurrence import Recurrence, RecurrenceOptions
from pint.timegrid import TimeGrid

Array = NDArray[Any]


class Classifier:
    """Parameters of recurrent layers with a linear head on the last state of the top layer.

    Parameters
    ----------
    options : RecurrenceOptions
        The recurrent layers.
    num_classes : int
        Width of the output.
    seed : int, default 0
        Seed of the initial parameters, all uniform in +-hidden^(-1/2), as torch draws them.

    Attributes
    ----------
    parameters : ndarray, shape (num_parameters,)
        All parameters, flat; optimizers change it in place.
    shapes : dict of str to tuple of int
        Names and shapes of the tensors in it: those of torch.nn.GRU, then head.weight
        (num_classes, hidden) and head.bias (num_classes,).
    """

    def __init__(self, options: RecurrenceOptions, num_classes: int, seed: int = 0) -> None:
        at_least("num_classes", num_classes, 2)
        at_least("seed", seed, 0)
        self.options = options
        cell = options.shapes()
        head = {"head.weight": (num_classes, options.hidden), "head.bias": (num_classes,)}
        self.shapes = {**cell, **head}
        rng = np.random.default_rng(seed)
        dtype = np.dtype(options.dtype)
        self.parameters: Array = uniform(self.shapes, options.hidden**-0.5, dtype, rng)
        self.cell_parameters = self.parameters[: num_entries(cell)]
        self.weights = views(self.parameters, self.shapes)

    def load(self, weights: Mapping[str, Array]) -> None:
        """Copy tensors into the parameters, for example ``pint.open_run("run.h5").model``.

        Parameters
        ----------
        weights : mapping of str to ndarray
            All tensors, with the names and shapes in `shapes`.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape is wrong; nothing is changed then.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if shapes != self.shapes:
            raise ValueError(f"weights must have the shapes {self.shapes}, got {shapes}")
        for name, tensor in weights.items():
            self.weights[name][...] = tensor

    def logits(self, h: Array) -> Array:
        """Return the class scores, shape (B, num_classes), of states (B, hidden)."""
        scores: Array = h @ self.weights["head.weight"].T + self.weights["head.bias"]
        return scores


@dataclass(frozen=True, kw_only=True, eq=False)
class LossAndGradient:
    """What one batch gives; the same on every rank.

    Attributes
    ----------
    loss : float
        Mean cross-entropy over the batch.
    num_correct : int
        Sequences whose greatest score is that of their class.
    gradient : ndarray, shape (num_parameters,)
        Of the loss with respect to all parameters.
    forward_residuals, backward_residuals : ndarray of float64
        Residual norms of both solves, by iteration; NaN where none was measured.
    """

    loss: float
    num_correct: int
    gradient: Array
    forward_residuals: NDArray[np.float64]
    backward_residuals: NDArray[np.float64]


class ClassifierSolver:
    """Evaluates a classifier and its gradient, both by MGRIT over the time axis.

    Parameters
    ----------
    model : Classifier
        The parameters; shared, so that several solvers can work with the same ones.
    num_steps : int
        Length T of the sequences.
    forward, backward : MGRITOptions
        How the forward and the adjoint problem are solved. ``MGRITOptions(levels=1)`` is exact
        serial stepping, and exact backpropagation through time.
    comm : mpi4py communicator or Communicator, optional
        The ranks that share the time axis.
    """

    def __init__(
        self,
        model: Classifier,
        num_steps: int,
        forward: MGRITOptions,
        backward: MGRITOptions,
        comm: Any = None,
    ) -> None:
        self.model = model
        self.num_steps = num_steps
        self.gru = Recurrence(model.options, model.cell_parameters)
        grid = TimeGrid.uniform(0.0, float(num_steps), num_steps)
        self.forward = MGRIT(self.gru, grid, forward, comm)
        self.backward = AdjointSolver(self.forward, backward)
        self._forward_windows = self._input_windows(backward=False)
        self._windows = self._input_windows(backward=True)

    def _input_windows(self, *, backward: bool) -> NDArray[np.int64]:
        """Return the inputs that this rank reads, see `Recurrence.input_windows`."""
        stacks = self.forward.hierarchy.own_steps()
        if backward:
            stacks = stacks + self.backward.own_steps()
        read = [self.gru.input_windows(stack) for stack in stacks if np.size(stack.last)]
        none: NDArray[np.int64] = np.zeros((0, 2), dtype=np.int64)
        return np.unique(np.concatenate([none, *read]), axis=0)

    def _solve(self, x: Array, windows: NDArray[np.int64], *, record: bool) -> Result:
        if x.ndim != 3 or x.shape[1] != self.num_steps:
            raise ValueError(
                f"sequences must have shape (batch, {self.num_steps}, "
                f"{self.gru.options.num_features}), got {x.shape}"
            )
        if not np.isfinite(x).all():
            raise ValueError("sequences must not hold NaN or inf")
        self.gru.set_inputs(x, windows)
        zero = np.zeros(self.gru.state_shape, dtype=self.gru.dtype)
        last = self.forward.options.max_iterations - 1

        def before_last(iteration: int, residual: float) -> None:
            self.gru.recording = record and iteration == last - 1

        self.gru.recording = record and (last == 0 or len(self.forward.hierarchy.levels) == 1)
        try:
            return self.forward.solve(zero, on_iteration=before_last)
        finally:
            self.gru.recording = False

    def predict(self, x: Array) -> tuple[Array, NDArray[np.float64]]:
        """Return class scores and the residuals of the solve; collective.

        Parameters
        ----------
        x : ndarray, shape (B, T, num_features)
            Sequences, the same on every rank.

        Returns
        -------
        scores : ndarray, shape (B, num_classes)
            On every rank.
        residuals : ndarray of float64, shape (iterations,)
            Residual norms.

        Raises
        ------
        FloatingPointError
            If the solve diverged, on every rank.
        """
        result = self._solve(x, self._forward_windows, record=False)
        _check_finite("no scores", True, result)
        return self.model.logits(result.final_state()[-1]), result.residuals

    def loss_and_gradient(self, x: Array, y: NDArray[np.int64]) -> LossAndGradient:
        """Return the loss of a batch and its gradient; collective.

        Parameters
        ----------
        x : ndarray, shape (B, T, num_features)
            Sequences, the same on every rank.
        y : ndarray of int64, shape (B,)
            Classes.

        Raises
        ------
        FloatingPointError
            If the loss or the gradient is not finite, or a solve diverged; on every rank.
        """
        result = self._solve(x, self._windows, record=True)
        final = result.final_state()
        scores = self.model.logits(final[-1])
        loss, d_scores = cross_entropy(scores, y)
        _check_finite(f"the loss is {loss}", np.isfinite(loss), result)
        d_final = np.zeros_like(final)
        d_final[-1] = d_scores @ self.model.weights["head.weight"]
        adjoint = self.backward.solve(result, d_final)
        d_head = (d_scores.T @ final[-1]).ravel(), d_scores.sum(axis=0)
        gradient = np.concatenate([adjoint.parameter_gradient, *d_head])
        _check_finite("the gradient is not finite", np.isfinite(gradient).all(), adjoint)
        return LossAndGradient(
            loss=loss,
            num_correct=int((scores.argmax(axis=1) == y).sum()),
            gradient=gradient,
            forward_residuals=result.residuals,
            backward_residuals=adjoint.residuals,
        )


def _check_finite(what: str, finite: Any, solved: Result | AdjointResult) -> None:
    """Raise unless numbers are finite and come from a solve that did not diverge."""
    if finite and solved.status is not Status.DIVERGED:
        return
    told = "; ".join(filter(None, (solved.status.value, solved.detail)))
    raise FloatingPointError(
        f"{what} ({told}); parameters that grow without bound need a smaller learning rate or "
        "clipping"
    )


def cross_entropy(scores: Array, y: NDArray[np.int64]) -> tuple[float, Array]:
    """Return the mean softmax cross-entropy and its derivative.

    Parameters
    ----------
    scores : ndarray, shape (B, num_classes)
        Class scores.
    y : ndarray of int64, shape (B,)
        Classes.

    Returns
    -------
    loss : float
        -mean(log softmax(scores)[y]).
    d_scores : ndarray, shape (B, num_classes)
        (softmax(scores) - onehot(y)) / B.

    Raises
    ------
    ValueError
        If classes are not B integers in 0..num_classes - 1.
    """
    if y.shape != scores.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"classes must be {len(scores)} integers, got {y.shape} of {y.dtype}")
    if y.size and not (y.min() >= 0 and y.max() < scores.shape[1]):
        raise ValueError(f"classes must be in 0..{scores.shape[1] - 1}, got {y.min()}..{y.max()}")
    log_p = log_softmax(scores, axis=1)
    chosen = np.arange(y.size), y
    d_scores = np.exp(log_p)
    d_scores[chosen] -= 1
    return float(-log_p[chosen].mean(dtype=np.float64)), d_scores / scores.dtype.type(y.size)
