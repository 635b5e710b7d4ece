"""Losses of scores, element by element: cross-entropy and squared error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

Array = NDArray[Any]


class Loss(ABC):
    """A mean over elements: sequences, or every time of every sequence.

    Elements may have weights; the loss is sum(weight * term) / sum(weight).

    Attributes
    ----------
    classifies : bool
        Whether the greatest score of an element is its class; False by default.
    """

    classifies: ClassVar[bool] = False

    @abstractmethod
    def check(self, y: Array, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless targets fit scores of this shape, (..., num_outputs)."""

    @abstractmethod
    def weights(self, y: Array) -> NDArray[np.float64]:
        """Return the weight of each element, shape (...)."""

    @abstractmethod
    def terms(self, scores: Array, y: Array) -> tuple[NDArray[np.float64], Array]:
        """Return each element's term, shape (...), and its derivative by the scores; new."""

    def num_correct(self, scores: Array, y: Array, counts: NDArray[np.bool_]) -> int:
        """Return how many of the elements that count are classified rightly; 0 if none can be."""
        return 0


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """-log softmax(scores)[y], for integer classes.

    Parameters
    ----------
    class_weights : tuple of float, optional
        Weight of each class; all 1 if left out.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or none is positive.

    Examples
    --------
    >>> terms, _ = CrossEntropy().terms(np.zeros((1, 4)), np.array([2]))
    >>> bool(np.isclose(terms[0], np.log(4)))
    True
    """

    classifies: ClassVar[bool] = True
    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        given = self.class_weights
        if given is not None and not (np.isfinite(given).all() and min(given) >= 0 < max(given)):
            raise ValueError(f"class_weights must be finite, at least 0 and not all 0, got {given}")

    def check(self, y: Array, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y are integer classes, one for each element."""
        num_classes = shape[-1]
        if y.shape != shape[:-1] or y.dtype.kind not in "iu":
            raise ValueError(
                f"classes must be integers of shape {shape[:-1]}, got {y.shape} of {y.dtype}"
            )
        if y.size and not (y.min() >= 0 and y.max() < num_classes):
            raise ValueError(f"classes must be in 0..{num_classes - 1}, got {y.min()}..{y.max()}")
        given = self.class_weights
        if given is not None and len(given) != num_classes:
            raise ValueError(f"class_weights must be {num_classes} numbers, got {len(given)}")

    def weights(self, y: Array) -> NDArray[np.float64]:
        """Return the weight of each element's class."""
        if self.class_weights is None:
            return np.ones(y.shape)
        return np.array(self.class_weights, dtype=np.float64)[y]

    def terms(self, scores: Array, y: Array) -> tuple[NDArray[np.float64], Array]:
        """Return -log softmax(scores)[y] and softmax(scores) - onehot(y)."""
        log_p = log_softmax(scores, axis=-1)
        chosen = np.take_along_axis(log_p, y[..., None], axis=-1)
        d_scores = np.exp(log_p)
        np.put_along_axis(d_scores, y[..., None], np.exp(chosen) - 1, axis=-1)
        return -chosen[..., 0].astype(np.float64), d_scores

    def num_correct(self, scores: Array, y: Array, counts: NDArray[np.bool_]) -> int:
        """Return the weighted count of elements whose class has the greatest score."""
        return int(((scores.argmax(axis=-1) == y) & counts).sum())


@dataclass(frozen=True, kw_only=True)
class SquaredError(Loss):
    """The mean over outputs of (score - y)^2, as torch.nn.MSELoss."""

    def check(self, y: Array, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y are finite numbers in the scores' shape."""
        if y.shape != shape or y.dtype.kind != "f":
            raise ValueError(
                f"targets must be real numbers of shape {shape}, got {y.shape} of {y.dtype}"
            )
        if not np.isfinite(y).all():
            raise ValueError("targets must not hold NaN or inf")

    def weights(self, y: Array) -> NDArray[np.float64]:
        """Return 1 for each element."""
        return np.ones(y.shape[:-1])

    def terms(self, scores: Array, y: Array) -> tuple[NDArray[np.float64], Array]:
        """Return the mean of (scores - y)^2 and 2 (scores - y) / num_outputs."""
        difference = scores - y.astype(scores.dtype)
        squares = difference.astype(np.float64) ** 2
        return squares.mean(axis=-1), 2 * difference / scores.dtype.type(scores.shape[-1])
