"""The log of a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pint.rnn.solver import LossAndGradient
from pint.train.accuracy import AccuracyLog

COLUMNS = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "parallel_test_accuracy",
    "exact_test_accuracy",
    "seconds",
    "forward_residual",
    "backward_residual",
    "gradient_norm",
    "learning_rate",
)
"""What is recorded of each epoch of a classifier."""


ERROR_COLUMNS = (
    "epoch",
    "train_loss",
    "parallel_test_error",
    "exact_test_error",
    *COLUMNS[COLUMNS.index("seconds") :],
)
"""The same where numbers are predicted; errors are means of the loss, as that of the training."""


@dataclass(kw_only=True, eq=False)
class TrainingLog:
    """What happened so far; the same on every rank but for `timings`.

    Attributes
    ----------
    epochs : list of dict of str to float
        One row per finished epoch, with the names in `names`.
    forward_residuals, backward_residuals : list of ndarray of float64
        Residual norms of each batch, by iteration; NaN where none was measured.
    accuracy : AccuracyLog
        Iterations and accuracy of each batch.
    timings : dict of str to float
        Seconds of this rank by phase: compile, training, parallel_test, exact_test.
    finished : bool
        False until all epochs are done, and so also after an interruption.
    names : tuple of str
        `COLUMNS` of a classifier, `ERROR_COLUMNS` where numbers are predicted.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    forward_residuals: list[NDArray[np.float64]] = field(default_factory=list)
    backward_residuals: list[NDArray[np.float64]] = field(default_factory=list)
    accuracy: AccuracyLog = field(default_factory=AccuracyLog)
    timings: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    names: tuple[str, ...] = COLUMNS

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Return the epochs as one array for each name; new."""
        return {name: np.array([row[name] for row in self.epochs]) for name in self.names}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of the block to those of `phase`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.timings[phase] = self.timings.get(phase, 0.0) + spent


class Progress:
    """What a trainer tells while it works; this one keeps silent."""

    def batch(self, epoch: int, index: int, num_batches: int, means: EpochMeans) -> None:
        """Hear of a finished batch."""

    def epoch(self, row: dict[str, float]) -> None:
        """Hear of a finished epoch."""


@dataclass(eq=False)
class MeasuredMean:
    """A mean over the batches that have measured something; NaN if none has."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Take in the value of a batch; NaN is none."""
        if not np.isnan(value):
            self.total += value
            self.count += 1

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.count if self.count else np.nan


@dataclass(eq=False)
class EpochMeans:
    """Means over an epoch: over its elements, or its batches; the learning rate is the last one.

    Elements count as much as in the loss. Residuals are means over the batches that have one:
    exactly stepped ones have none.
    """

    classifies: bool = True
    num_batches: int = 0
    num_seen: int = 0
    weight: float = 0.0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    gradient_norm: float = 0.0
    learning_rate: float = 0.0
    forward_residual: MeasuredMean = field(default_factory=MeasuredMean)
    backward_residual: MeasuredMean = field(default_factory=MeasuredMean)

    def add(self, got: LossAndGradient, norm: float, seconds: float) -> None:
        """Take in one batch."""
        self.num_batches += 1
        self.num_seen += got.num_elements
        self.weight += got.total_weight
        self.loss += got.loss * got.total_weight
        self.correct += got.num_correct
        self.seconds += seconds
        self.gradient_norm += norm
        self.forward_residual.add(last_residual(got.forward_residuals))
        self.backward_residual.add(last_residual(got.backward_residuals))

    def columns(self) -> dict[str, float]:
        """Return the means under the names of a log's columns."""
        accuracy = {"train_accuracy": self.correct / self.num_seen} if self.classifies else {}
        return {
            "train_loss": self.loss / self.weight,
            **accuracy,
            "seconds": self.seconds,
            "forward_residual": self.forward_residual.value,
            "backward_residual": self.backward_residual.value,
            "gradient_norm": self.gradient_norm / self.num_batches,
            "learning_rate": self.learning_rate,
        }


def last_residual(residuals: NDArray[np.float64]) -> float:
    """Return the residual norm measured in the last iteration; NaN if there was none."""
    return float(residuals[-1])
