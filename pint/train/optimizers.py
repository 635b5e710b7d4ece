"""First-order optimizers: frozen descriptions with two pure functions, `init` and `update`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.options import positive

Array = NDArray[Any]

_PART = 16384
"""Entries that are updated at once, so that intermediate results stay in the cache."""


class OptimizerState(NamedTuple):
    """State of an optimizer between two updates.

    Attributes
    ----------
    num_updates : int
        Number of updates so far.
    moments : tuple of ndarray, each of shape (num_parameters,)
        Running means.
    """

    num_updates: int
    moments: tuple[Array, ...]


class Update(NamedTuple):
    """Result of an update.

    Attributes
    ----------
    change : ndarray, shape (num_parameters,)
        Summand of the parameters.
    state : OptimizerState
        State for the next update.
    """

    change: Array
    state: OptimizerState


class Optimizer(ABC):
    """A rule that turns gradients into changes of parameters; it has no state itself.

    Examples
    --------
    >>> optimizer, parameters = SGD(learning_rate=0.5), np.array([1.0, 2.0])
    >>> state = optimizer.init(parameters)
    >>> change, state = optimizer.update(np.array([2.0, 0.0]), state, parameters)
    >>> parameters + change
    array([0., 2.])
    """

    learning_rate: float

    @abstractmethod
    def init(self, parameters: Array) -> OptimizerState:
        """Return the state before the first update of `parameters`, shape (num_parameters,)."""

    def update(
        self,
        gradient: Array,
        state: OptimizerState,
        parameters: Array,
        learning_rate: float | None = None,
        *,
        out: Update | None = None,
    ) -> Update:
        """Return the change of the parameters and the next state; the arguments stay as they are.

        Parameters
        ----------
        gradient : ndarray, shape (num_parameters,)
            Gradient of the loss at `parameters`.
        state : OptimizerState
            State from `init`, or from the previous update.
        parameters : ndarray, shape (num_parameters,)
            Parameters at which the gradient was taken.
        learning_rate : float, optional
            Learning rate in place of the optimizer's own; see `LearningRate`.
        out : Update, optional
            An earlier update whose arrays take the new one. Its state may be `state`. The result
            does not depend on it.

        Returns
        -------
        Update
            ``change, state``; new arrays, or the arrays of `out`.

        Raises
        ------
        ValueError
            If the gradient or a moment has another shape than the parameters.
        """
        _check_shapes(gradient, state, parameters)
        change, new = out or Update(np.empty_like(parameters), self.init(parameters))
        rate = self.learning_rate if learning_rate is None else learning_rate
        count = state.num_updates + 1
        for part in _parts(parameters.size):
            moments = [moment[part] for moment in state.moments]
            change[part], changed = self._rule(
                gradient[part], moments, parameters[part], rate, count
            )
            for old, moment in zip(new.moments, changed, strict=True):
                old[part] = moment
        return Update(change, OptimizerState(count, new.moments))

    @abstractmethod
    def _rule(
        self, gradient: Array, moments: list[Array], parameters: Array, rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        """Return change and new moments of some entries in update number `count`, from 1."""


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent with momentum: v <- momentum v + g, change = -learning_rate v.

    Parameters
    ----------
    learning_rate : float, default 0.1
        Step length.
    momentum : float, default 0.0
        In [0, 1).
    nesterov : bool, default False
        Go along g + momentum v, with the new v; needs momentum.
    weight_decay : float, default 0.0
        Times the parameters, is added to the gradient; in [0, 1).

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013; in the form that torch.optim.SGD uses.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        _fraction("momentum", self.momentum)
        _fraction("weight_decay", self.weight_decay)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0, got 0: give momentum=0.9")

    def init(self, parameters: Array) -> OptimizerState:
        """Return a zero velocity, and none without momentum."""
        return OptimizerState(0, (np.zeros_like(parameters),) if self.momentum else ())

    def _rule(
        self, gradient: Array, moments: list[Array], parameters: Array, rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * parameters
        if not self.momentum:
            return -rate * gradient, ()
        velocity = self.momentum * moments[0] + gradient
        along = gradient + self.momentum * velocity if self.nesterov else velocity
        return -rate * along, (velocity,)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam: step by the bias-corrected mean gradient over the root of its mean square.

    Parameters
    ----------
    learning_rate : float, default 1e-3
        Step length.
    beta1, beta2 : float, default 0.9 and 0.999
        Decay of the mean and of the mean square, in [0, 1).
    epsilon : float, default 1e-8
        Added to the root.

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check_adam(self)

    def init(self, parameters: Array) -> OptimizerState:
        """Return zero means of the gradient and of its square."""
        return OptimizerState(0, (np.zeros_like(parameters), np.zeros_like(parameters)))

    def _rule(
        self, gradient: Array, moments: list[Array], parameters: Array, rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        return _adam_rule(self, gradient, moments, rate, count)


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay: parameters also shrink, apart from the gradient.

    Parameters
    ----------
    learning_rate : float, default 1e-3
        Step length.
    beta1, beta2 : float, default 0.9 and 0.999
        As in `Adam`.
    epsilon : float, default 1e-8
        As in `Adam`.
    weight_decay : float, default 1e-2
        Each update takes learning_rate times this part of the parameters away; in [0, 1).

    Raises
    ------
    ValueError
        If a value is out of its range.

    References
    ----------
    Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, in the
    form that torch.optim.AdamW uses.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        _check_adam(self)
        _fraction("weight_decay", self.weight_decay)

    def init(self, parameters: Array) -> OptimizerState:
        """Return zero means of the gradient and of its square."""
        return OptimizerState(0, (np.zeros_like(parameters), np.zeros_like(parameters)))

    def _rule(
        self, gradient: Array, moments: list[Array], parameters: Array, rate: float, count: int
    ) -> tuple[Array, tuple[Array, ...]]:
        change, new = _adam_rule(self, gradient, moments, rate, count)
        return change - rate * self.weight_decay * parameters, new


def _check_adam(options: Adam | AdamW) -> None:
    positive("learning_rate", options.learning_rate)
    positive("epsilon", options.epsilon)
    _fraction("beta1", options.beta1)
    _fraction("beta2", options.beta2)


def _adam_rule(
    options: Adam | AdamW, gradient: Array, moments: list[Array], rate: float, count: int
) -> tuple[Array, tuple[Array, ...]]:
    """Return Adam's change, and the new means of the gradient and of its square."""
    mean, square = moments
    mean = mean + (1 - options.beta1) * (gradient - mean)
    square = square + (1 - options.beta2) * (gradient * gradient - square)
    root = np.sqrt(square / (1 - options.beta2**count))
    step = -rate / (1 - options.beta1**count)
    return step * mean / (root + options.epsilon), (mean, square)


def clip_by_norm(gradient: Array, max_norm: float | None) -> tuple[Array, float]:
    """Return the gradient, scaled down to `max_norm` where it is longer, and its norm before.

    Parameters
    ----------
    gradient : ndarray, shape (num_parameters,)
        Summed over all ranks, so that every rank scales alike; stays as it is.
    max_norm : float or None
        Greatest 2-norm; None leaves the gradient as it is.

    Returns
    -------
    clipped : ndarray, shape (num_parameters,)
        `gradient` itself where it is short enough, or else a new array.
    norm : float
        2-norm of `gradient`.
    """
    norm = float(np.linalg.norm(gradient))
    if max_norm is None or norm <= max_norm:
        return gradient, norm
    return gradient * gradient.dtype.type(max_norm / norm), norm


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, start + _PART) for start in range(0, size, _PART))


def _check_shapes(gradient: Array, state: OptimizerState, parameters: Array) -> None:
    shapes = {gradient.shape, *(moment.shape for moment in state.moments)}
    if parameters.ndim != 1 or shapes != {parameters.shape}:
        raise ValueError(
            f"parameters, gradient and moments must be flat and of one length, got parameters of "
            f"shape {parameters.shape}, the others {sorted(shapes)}"
        )


def _fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
