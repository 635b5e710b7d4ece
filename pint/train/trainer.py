"""The training loop: batches, updates, evaluation, and a file after every epoch."""

from __future__ import annotations

import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.data.sequences import Samples, SequenceData
from pint.options import at_least, instance_of, positive
from pint.parallel.comm import as_communicator
from pint.rnn.solver import NetworkSolver
from pint.rnn.stage import DIVERGENCE_ADVICE
from pint.stopwatch import Stopwatch
from pint.timeline import Timeline
from pint.train.accuracy import AccuracyControl, AccuracyOptions, measure
from pint.train.learning_rate import LearningRate
from pint.train.log import COLUMNS, ERROR_COLUMNS, EpochMeans, TrainingLog, TrainingProgress
from pint.train.optimizers import Adam, Optimizer, Update, clip_by_norm


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training.

    Parameters
    ----------
    epochs : int, default 20
        Number of passes through the training data.
    batch : int, default 100
        Sequences per update; the last batch of an epoch has the rest.
    optimizer : Optimizer, default Adam()
        Update rule.
    schedule : LearningRate, default LearningRate()
        Factor of the learning rate over the updates.
    clip : float, optional
        Greatest 2-norm of a gradient; longer ones are scaled down to it.
    seed : int, default 0
        Seed of the order of the training data.
    accuracy : AccuracyOptions, default AccuracyOptions()
        Wanted accuracy of the gradients, and how often it is measured.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    epochs: int = 20
    batch: int = 100
    optimizer: Optimizer = field(default_factory=Adam)
    schedule: LearningRate = field(default_factory=LearningRate)
    clip: float | None = None
    seed: int = 0
    accuracy: AccuracyOptions = field(default_factory=AccuracyOptions)

    def __post_init__(self) -> None:
        instance_of("optimizer", self.optimizer, Optimizer)
        instance_of("schedule", self.schedule, LearningRate)
        instance_of("accuracy", self.accuracy, AccuracyOptions)
        at_least("epochs", self.epochs, 1)
        at_least("batch", self.batch, 1)
        at_least("seed", self.seed, 0)
        positive("clip", self.clip)


class Interrupt:
    """Turn Ctrl-C into a request for the end of a training; a second Ctrl-C raises.

    A KeyboardInterrupt in the middle of a batch would leave the other ranks waiting for messages.
    A context manager.

    Attributes
    ----------
    pending : bool
        Whether Ctrl-C was pressed on this rank.
    """

    def __init__(self) -> None:
        self.pending = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        try:
            self._previous = signal.signal(signal.SIGINT, self._request)
        except ValueError:  # only the main thread handles signals
            self._previous = None
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True


class Trainer:
    """Train a network; every rank keeps all parameters and makes the same updates.

    Labels need a loss that classifies, and the test part gives an accuracy. Numbers need another
    loss, such as `SquaredError`, and the test part gives the mean of the loss. Targets at every
    step need a network with pooling "every".

    Parameters
    ----------
    solver : NetworkSolver
        Gives losses and gradients, and the parallel test result.
    data : SequenceData
        The same on every rank.
    options : TrainingOptions
        How to train.
    comm : mpi4py communicator or Communicator, optional
        The ranks; by default the ranks of `solver`.
    progress : TrainingProgress, optional
        Shows batches and epochs.
    on_epoch : callable, optional
        Called with the log after every epoch, and once more at the end; writes files.
    timeline : Timeline, optional
        Records the first `num_recorded` batches. To record everything, evaluation on test data
        included, train inside its ``with`` block instead.
    num_recorded : int, default 3
        Number of recorded batches.

    Attributes
    ----------
    last_update : Update
        The latest change of the parameters, and the optimizer's state after it; its arrays are
        changed in place by the next one.

    Raises
    ------
    ValueError
        If the data do not fit the network, its pooling or its loss.
    """

    def __init__(
        self,
        solver: NetworkSolver,
        data: SequenceData,
        options: TrainingOptions,
        comm: Any = None,
        progress: TrainingProgress | None = None,
        on_epoch: Callable[[TrainingLog], None] | None = None,
        timeline: Timeline | None = None,
        num_recorded: int = 3,
    ) -> None:
        at_least("num_recorded", num_recorded, 1)
        _check_fit(solver, data)
        self.solver = solver
        self.control = AccuracyControl(solver, options.accuracy)
        self.exact = self.control.exact
        self.data = data
        self.options = options
        self.comm = solver.comm if comm is None else as_communicator(comm)
        self.progress = TrainingProgress() if progress is None else progress
        self.on_epoch = on_epoch
        self.timeline, self.num_recorded = timeline, num_recorded
        self.watch = Stopwatch()
        names = COLUMNS if data.is_classification else ERROR_COLUMNS
        self.log = TrainingLog(accuracy=self.control.log, names=names)
        self.last_update = self._no_update()

    def train(self) -> TrainingLog:
        """Run all epochs, or those before an interruption; collective.

        Raises
        ------
        FloatingPointError
            If training diverges, on every rank.
        OSError, ValueError
            If sequences cannot be read, on every rank.
        ValueError
            If the ranks have different parameters, data or options.
        """
        self._check_alike()
        self.last_update = self._no_update()
        with Interrupt() as interrupt:
            with self.log.timed("compile"):
                self._warm_up()
            try:
                for epoch in range(1, self.options.epochs + 1):
                    self._finish_epoch(epoch, self._train_epoch(epoch, interrupt))
                self.log.finished = True
            except InterruptedError:  # on every rank, between two batches
                pass
            if self.on_epoch is not None:
                self.on_epoch(self.log)
        return self.log

    def _check_alike(self) -> None:
        """Raise on every rank unless all train the same network on the same data; collective."""
        data, how = self.data, self.options
        with self.comm.collective(self.watch):
            first = data.train(slice(0, 1)).x
        options = how.epochs, how.batch, how.schedule, how.clip, how.seed, how.accuracy
        looked_at = {
            "parameters": self.solver.network.parameters.tobytes(),
            "training data": data.y_train.tobytes(),
            "first sequence": first.tobytes(),
            "test data": data.y_test.tobytes(),
            "options": repr(options).encode(),
        }
        keys = [zlib.crc32(each) for each in looked_at.values()]
        ranks = self.comm.allgather_blocks(np.array([keys], dtype=np.int64))
        differ = [name for name, column in zip(looked_at, ranks.T, strict=True) if np.ptp(column)]
        if differ:
            raise ValueError(
                f"the ranks differ in their {', '.join(differ)}: make them equal, from one seed"
            )

    def _no_update(self) -> Update:
        parameters = self.solver.network.parameters
        return Update(np.zeros_like(parameters), self.options.optimizer.init(parameters))

    def _warm_up(self) -> None:
        """Compile all kernels, so that compilation is not counted as training."""
        for index in range(len(self.data.y_train)):
            x, y, mask = self.data.train(slice(index, index + 1))
            if self.solver.total_weight(x, y, mask) > 0:
                break
        else:
            raise ValueError(f"no element of {self.data.name} has a weight: nothing can be learned")
        self.control.warm_up(x, y, mask)
        self.exact.predict(x, mask)

    def _train_epoch(self, epoch: int, interrupt: Interrupt) -> EpochMeans:
        """Update on every batch; raise InterruptedError if a rank was interrupted; collective."""
        options, data = self.options, self.data
        order = np.random.default_rng([options.seed, epoch]).permutation(len(data.y_train))
        batches = np.split(order, range(options.batch, order.size, options.batch))
        means = EpochMeans(classifies=data.is_classification)
        self.control.start_epoch()
        for index, chosen in enumerate(batches):
            begin = time.perf_counter()
            num_updates = self.last_update.state.num_updates
            factor = options.schedule.factor(num_updates, options.epochs * len(batches))
            means.learning_rate = factor * options.optimizer.learning_rate
            self.watch.iteration = num_updates
            with self.log.timed("training"), self._recorded(num_updates), self.watch.phase("batch"):
                sequence_ids = chosen if self.solver.warm_start_sequences else None
                samples, error = self._loaded(chosen, interrupt)
                if error is None and not self.solver.total_weight(*samples) > 0:
                    continue  # no element has a weight
                got = self.control.loss_and_gradient(
                    *samples, sequence_ids=sequence_ids, error=error
                )
                with self.watch.phase("update"):
                    gradient, norm = _clipped(got.gradient, options.clip)
                    self._change_parameters(gradient, means.learning_rate)
            self.log.forward_residuals.append(got.forward_residuals)
            self.log.backward_residuals.append(got.backward_residuals)
            means.add(got, norm, time.perf_counter() - begin)
            self.progress.batch(epoch, index + 1, len(batches), means)
        with self.comm.collective(self.watch):
            pass  # an error in reading a last batch whose elements have no weight on other ranks
        return means

    def _loaded(
        self, chosen: NDArray[np.int64], interrupt: Interrupt
    ) -> tuple[Samples, Exception | None]:
        """Return a batch, or an error of this rank, which `loss_and_gradient` raises on all."""
        try:
            if interrupt.pending:
                raise InterruptedError("training was interrupted")
            return self.data.train(chosen), None
        except Exception as error:
            return Samples(np.empty((0, 0, 0), np.float32), np.empty(0), None), error

    def _recorded(self, num_updates: int) -> AbstractContextManager[object]:
        """Return the timeline, as a context manager, for one of the first batches."""
        if self.timeline is None or num_updates >= self.num_recorded:
            return nullcontext()
        return self.timeline

    def _change_parameters(self, gradient: NDArray[Any], learning_rate: float) -> None:
        """Update the parameters in place; nothing of their size is allocated."""
        parameters, last = self.solver.network.parameters, self.last_update
        self.last_update = self.options.optimizer.update(
            gradient, last.state, parameters, learning_rate, out=last
        )
        parameters += self.last_update.change

    def _finish_epoch(self, epoch: int, means: EpochMeans) -> None:
        """Measure the test part in both ways, record the epoch, and show it."""
        self.comm.bcast(self.solver.network.parameters, 0)  # in case ranks round differently
        with self.log.timed("parallel_test"):
            parallel = self._parallel_test()
        with self.log.timed("exact_test"):
            exact = measure(self.exact, self.solver.loss, self._test_batches())
        what = "accuracy" if self.data.is_classification else "error"
        row = {
            "epoch": float(epoch),
            **means.columns(),
            f"parallel_test_{what}": parallel,
            f"exact_test_{what}": exact,
        }
        self.log.epochs.append({name: row[name] for name in self.log.names})
        self.progress.epoch(row)
        if self.on_epoch is not None and epoch < self.options.epochs:
            self.on_epoch(self.log)

    def _parallel_test(self) -> float:
        """Measure the test part by cycles; NaN if they diverged in mode "adaptive"."""
        try:
            return measure(self.solver, self.solver.loss, self._test_batches())
        except FloatingPointError:
            if self.options.accuracy.mode == "adaptive":
                return np.nan
            raise

    def _test_batches(self) -> Iterator[Samples]:
        batch = self.options.batch
        for start in range(0, len(self.data.y_test), batch):
            with self.comm.collective(self.watch):
                samples = self.data.test(slice(start, start + batch))
            yield samples


def _clipped(gradient: NDArray[Any], max_norm: float | None) -> tuple[NDArray[Any], float]:
    """Return what `clip_by_norm` does; raise FloatingPointError if the norm is not finite."""
    with np.errstate(over="ignore"):  # raised below
        clipped, norm = clip_by_norm(gradient, max_norm)
    if not np.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradient is {norm}; {DIVERGENCE_ADVICE}")
    return clipped, norm


def _check_fit(solver: NetworkSolver, data: SequenceData) -> None:
    """Raise ValueError unless the data fit the network, its pooling and its loss."""
    network, name = solver.network.architecture, data.name
    if data.is_classification:
        kind, loss, outputs = "labels", "CrossEntropy", data.num_classes
        needs = f"the network has {network.num_outputs} classes"
    else:
        kind, loss, outputs = "numbers", "SquaredError", data.num_outputs
        needs = f"the network predicts {network.num_outputs} numbers"
    misfits = {
        f"the network takes {network.num_features} features, {name} has {data.num_features}": (
            data.num_features != network.num_features
        ),
        f"{needs}, {name} has {outputs}": outputs != network.num_outputs,
        f"{name} has a target at every step: pooling must be 'every', got {network.pooling!r}": (
            data.is_per_step and network.pooling != "every"
        ),
        f"{name} has one target for a sequence: pooling must be 'last' or 'mean', got 'every'": (
            not data.is_per_step and network.pooling == "every"
        ),
        f"{name} has {kind}: give NetworkSolver loss={loss}()": (
            data.is_classification != solver.loss.classifies
        ),
    }
    for message, is_wrong in misfits.items():
        if is_wrong:
            raise ValueError(message)
