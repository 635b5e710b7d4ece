"""The log of a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pint.rnn.solver import LossAndGradient

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
"""Columns of the epochs of a classifier."""

ERROR_COLUMNS = (
    "epoch",
    "train_loss",
    "parallel_test_error",
    "exact_test_error",
    *COLUMNS[COLUMNS.index("seconds") :],
)
"""Columns where numbers are predicted; an error is the mean of the training's loss."""


@dataclass(eq=False)
class AccuracyLog:
    """Iterations and accuracy of each batch; lists with one entry for each batch.

    Attributes
    ----------
    forward_iterations, backward_iterations : list of float
        Cycles of both solves; 0 where the batch was stepped exactly.
    forward_relative, backward_relative : list of float
        Residual of the last cycle before its correction, divided by the norm of the solution; NaN
        where none was measured.
    estimated_error : list of float
        Estimated relative error of the gradient; NaN before the first comparison.
    measured_error, cosine : list of float
        Relative error of the gradient that the cycles give, and cosine of its angle with the exact
        one; NaN where they were not compared. The error is infinite where a solve diverged.
    """

    forward_iterations: list[float] = field(default_factory=list)
    backward_iterations: list[float] = field(default_factory=list)
    forward_relative: list[float] = field(default_factory=list)
    backward_relative: list[float] = field(default_factory=list)
    estimated_error: list[float] = field(default_factory=list)
    measured_error: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Return all lists as arrays, by name."""
        return {name: np.array(values, dtype=np.float64) for name, values in vars(self).items()}


@dataclass(kw_only=True, eq=False)
class TrainingLog:
    """History of a training; the same on every rank but for `timings`.

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
        """Add the seconds of the block to `phase`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.timings[phase] = self.timings.get(phase, 0.0) + spent


class TrainingProgress:
    """Receive the progress of a trainer; this class shows nothing."""

    def batch(self, epoch: int, index: int, num_batches: int, means: EpochMeans) -> None:
        """Show a finished batch."""

    def epoch(self, row: dict[str, float]) -> None:
        """Show a finished epoch."""


@dataclass(eq=False)
class MeasuredMean:
    """Mean over the batches with a measured value; NaN if there is none."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Add the value of a batch; NaN is no value."""
        if not np.isnan(value):
            self.total += value
            self.count += 1

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.count if self.count else np.nan


@dataclass(eq=False)
class EpochMeans:
    """Means over the elements or the batches of an epoch; the learning rate is the latest.

    Elements have their weights in the loss. Residuals are means over the batches with a residual:
    exactly stepped batches have none.
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
        """Add one batch."""
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
