"""What a test part tells of a network: accuracy, or where nothing is classified the mean loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.data.sequences import Samples
from pint.rnn.losses import Loss
from pint.rnn.solver import NetworkSolver

Array = NDArray[Any]


def measure(solver: NetworkSolver, loss: Loss, batches: Iterable[Samples]) -> float:
    """Return the accuracy over all elements, or the mean of a loss that does not classify.

    Collective. Elements are sequences, or with pooling "every" their times that are not missing.

    Parameters
    ----------
    solver : NetworkSolver
        Computes the scores.
    loss : Loss
        What the network was trained for.
    batches : iterable of Samples
        The test part, the same on every rank.
    """
    total = np.zeros(2)
    for x, y, mask in batches:
        scores, _ = solver.predict(x, mask)
        total += tally(loss, scores, y, mask)
    return float(total[0] / total[1])


def tally(
    loss: Loss, scores: Array, y: Array, mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return a sum over elements and the weight of them all; new.

    Parameters
    ----------
    loss : Loss
        One that classifies counts correct classes, another one adds up its terms.
    scores : ndarray, shape (B, num_outputs) or (B, T, num_outputs)
        Of each element.
    y : ndarray, shape (B, ...) or (B, T, ...)
        Targets.
    mask : ndarray of bool, shape (B, T), or None
        Which elements of the sequences there are; None: all.
    """
    counts = np.ones(scores.shape[:-1], dtype=np.bool_)
    if mask is not None and scores.ndim == 3:
        counts = mask
    if loss.classifies:
        return np.array([loss.num_correct(scores, y, counts), counts.sum()], dtype=np.float64)
    y = np.where(counts[..., None], y, 0)  # a missing element may have NaN
    terms, _ = loss.terms(scores, y)
    weights = loss.weights(y) * counts
    return np.array([(weights * terms).sum(), weights.sum()])
