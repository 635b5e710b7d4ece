"""First-order optimizers: a frozen description, whose `update` changes parameters and state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.options import positive

Array = NDArray[Any]


@dataclass(eq=False)
class OptimizerState:
    """What an optimizer remembers.

    Attributes
    ----------
    num_updates : int
        Updates so far.
    moments : list of ndarray, each of shape (num_parameters,)
        Running means; changed in place.
    """

    num_updates: int
    moments: list[Array]


class Optimizer(ABC):
    """Changes parameters along a gradient."""

    learning_rate: float

    @abstractmethod
    def init(self, parameters: Array) -> OptimizerState:
        """Return the state before the first update of `parameters`, shape (num_parameters,)."""

    def update(
        self, parameters: Array, gradient: Array, state: OptimizerState, factor: float = 1.0
    ) -> None:
        """Change `parameters` and `state` in place by one update.

        Parameters
        ----------
        parameters, gradient : ndarray, shape (num_parameters,)
            The gradient stays as it is.
        state : OptimizerState
            From `init`.
        factor : float, default 1.0
            Of the learning rate, see `Schedule`.
        """
        state.num_updates += 1
        self._change(parameters, gradient, state, factor * self.learning_rate)

    @abstractmethod
    def _change(
        self, parameters: Array, gradient: Array, state: OptimizerState, rate: float
    ) -> None:
        """Take one step of length `rate`; `state` already counts it."""


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent with momentum: v <- momentum v + g, p <- p - learning_rate v.

    Parameters
    ----------
    learning_rate : float, default 0.1
        Step length.
    momentum : float, default 0.0
        In [0, 1).

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
    learning", ICML 2013; in the form that torch.optim.SGD uses.
    """

    learning_rate: float = 0.1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        _fraction("momentum", self.momentum)

    def init(self, parameters: Array) -> OptimizerState:
        """Return a zero velocity."""
        return OptimizerState(0, [np.zeros_like(parameters)])

    def _change(
        self, parameters: Array, gradient: Array, state: OptimizerState, rate: float
    ) -> None:
        velocity = state.moments[0]
        velocity *= self.momentum
        velocity += gradient
        parameters -= rate * velocity


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
    weight_decay : float, default 0.0
        Pulls parameters to zero by this part of the learning rate in each update, apart from the
        gradient (AdamW); in [0, 1).

    References
    ----------
    Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1; Loshchilov &
    Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, in the form that
    torch.optim.AdamW uses.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        positive("learning_rate", self.learning_rate)
        positive("epsilon", self.epsilon)
        _fraction("beta1", self.beta1)
        _fraction("beta2", self.beta2)
        _fraction("weight_decay", self.weight_decay)

    def init(self, parameters: Array) -> OptimizerState:
        """Return zero moments."""
        return OptimizerState(0, [np.zeros_like(parameters), np.zeros_like(parameters)])

    def _change(
        self, parameters: Array, gradient: Array, state: OptimizerState, rate: float
    ) -> None:
        mean, square = state.moments
        mean += (1 - self.beta1) * (gradient - mean)
        square += (1 - self.beta2) * (gradient * gradient - square)
        if self.weight_decay:
            parameters *= 1 - rate * self.weight_decay
        step = rate / (1 - self.beta1**state.num_updates)
        root = np.sqrt(square / (1 - self.beta2**state.num_updates))
        parameters -= step * mean / (root + self.epsilon)


def clip_by_norm(gradient: Array, max_norm: float | None) -> tuple[Array, float]:
    """Return the gradient, scaled down to `max_norm` where it is longer, and its norm before.

    Parameters
    ----------
    gradient : ndarray, shape (num_parameters,)
        Summed over all ranks, so that every rank scales alike.
    max_norm : float or None
        Greatest 2-norm; None leaves the gradient as it is.
    """
    norm = float(np.linalg.norm(gradient))
    if max_norm is None or norm <= max_norm:
        return gradient, norm
    return gradient * gradient.dtype.type(max_norm / norm), norm


def _fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
