"""Choose the loss for a data set."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pint.data.sequences import SequenceData
from pint.rnn.losses import CrossEntropy, Loss, SquaredError

ClassWeights = tuple[float, ...] | Literal["balanced"]


def loss_of(data: SequenceData, class_weights: ClassWeights | None = None) -> Loss:
    """Return the loss for the targets of a data set.

    Parameters
    ----------
    data : SequenceData
        The data set.
    class_weights : tuple of float or "balanced", optional
        Weight of each class, 1 by default. "balanced" is n / (K n_c) for K classes, of which each
        has n_c of the n elements of the training part: the total weights of all classes are equal.
        Classes without elements are not counted, and have weight 1.

    Raises
    ------
    ValueError
        If there are weights without classes, or not one weight for each class.
    """
    if not data.is_classification:
        if class_weights is not None:
            raise ValueError(f"--class-weights are for labels; {data.name} has numbers to predict")
        return SquaredError()
    if class_weights == "balanced":
        class_weights = _balanced(data)
    if class_weights is not None and len(class_weights) != data.num_classes:
        raise ValueError(
            f"--class-weights must be {data.num_classes} numbers, one for each class of "
            f"{data.name}, got {len(class_weights)}"
        )
    return CrossEntropy(class_weights=class_weights)


def _balanced(data: SequenceData) -> tuple[float, ...]:
    has_gaps = data.mask_train is not None and data.is_per_step
    y = data.y_train[data.mask_train] if has_gaps else data.y_train
    counts = np.bincount(y.ravel(), minlength=data.num_classes)
    present = counts > 0
    weights = np.ones(data.num_classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return tuple(weights.tolist())
