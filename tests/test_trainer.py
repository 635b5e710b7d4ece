"""The training loop: batches, updates, both accuracies, interruption."""

import dataclasses
import io
import os
import signal
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from pint import MGRITOptions
from pint.data.har import SequenceData
from pint.parallel.comm import SerialCommunicator
from pint.rnn.losses import CrossEntropy
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.timeline import Timeline
from pint.train.accuracy import EXACT, AccuracyOptions
from pint.train.log import COLUMNS, TrainingProgress
from pint.train.optimizers import SGD, Adam
from pint.train.progress import ConsoleProgress
from pint.train.trainer import Trainer, TrainingOptions

STEPPING = MGRITOptions(levels=1)


def slopes(count, seed):
    """Return sequences that rise or fall, and which."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    ramp = np.linspace(-1, 1, 16)[None, :, None] * (2 * y - 1)[:, None, None]
    return (ramp + 0.3 * rng.standard_normal((count, 16, 1))).astype(np.float32), y


def make_data():
    x_train, y_train = slopes(50, 0)
    x_test, y_test = slopes(30, 1)
    return SequenceData(
        name="slopes",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=("fall", "rise"),
    )


def make_trainer(options, data=None, mgrit=STEPPING, **arguments):
    data = make_data() if data is None else data
    model = Network(RecurrenceOptions(num_features=1, hidden=8), 2)
    solver = NetworkSolver(model, data.num_steps, mgrit, mgrit)
    return Trainer(solver, data, options, SerialCommunicator(), **arguments)


def test_learns_and_records_every_column():
    options = TrainingOptions(epochs=6, batch=16, optimizer=Adam(learning_rate=0.03))
    log = make_trainer(options, mgrit=MGRITOptions(levels=2, max_iterations=3)).train()
    assert log.finished
    assert [row["epoch"] for row in log.epochs] == [1, 2, 3, 4, 5, 6]
    assert all(tuple(row) == COLUMNS for row in log.epochs)
    assert log.epochs[-1]["exact_test_accuracy"] > 0.9
    assert log.epochs[-1]["train_loss"] < 0.5 * log.epochs[0]["train_loss"]
    assert {"compile", "training", "parallel_test", "exact_test"} == set(log.timings)
    assert np.array(log.forward_residuals).shape == (6 * 4, 3)
    assert np.isnan(log.forward_residuals[0][0])


def test_the_first_batches_are_recorded():
    timeline = Timeline()
    options = TrainingOptions(epochs=2, batch=25)
    mgrit = MGRITOptions(levels=2, max_iterations=3)
    trainer = make_trainer(options, mgrit=mgrit, timeline=timeline, num_recorded=3)
    log = trainer.train()
    events = timeline.events()
    count = Counter(events.phase.tolist())
    whole = ("batch", "forward solve", "backward solve", "linearization", "gradient", "update")
    assert [count[phase] for phase in whole] == [3] * 6
    assert count["coarsest level"] == 3 * (3 + 3)
    assert events.iteration[events.phase == "batch"].tolist() == [0, 1, 2]
    assert sum(seconds.sum() for seconds in events.seconds().values()) < log.timings["training"]


class Batches(TrainingProgress):
    """Remembers which sequences each batch had."""

    def __init__(self):
        self.seen = []

    def batch(self, epoch, index, num_batches, means):
        self.seen.append((epoch, index, num_batches, means.num_seen))


def test_last_batch_takes_what_is_left_and_order_follows_the_seed():
    progress = Batches()
    make_trainer(TrainingOptions(epochs=2, batch=16), progress=progress).train()
    assert progress.seen[:4] == [(1, 1, 4, 16), (1, 2, 4, 32), (1, 3, 4, 48), (1, 4, 4, 50)]
    losses = [
        make_trainer(TrainingOptions(epochs=2, batch=16, seed=seed)).train().epochs[1]["train_loss"]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_one_full_batch_of_sgd_is_one_gradient_step():
    options = TrainingOptions(epochs=1, batch=50, optimizer=SGD(learning_rate=0.5))
    trainer = make_trainer(options)
    data, model = trainer.data, trainer.solver.network
    before = model.parameters.copy()
    expected = before - 0.5 * trainer.solver.loss_and_gradient(data.x_train, data.y_train).gradient
    trainer.train()
    np.testing.assert_allclose(model.parameters, expected, atol=1e-6)
    assert np.abs(expected - before).max() > 1e-3


def test_clipping_bounds_the_update():
    options = TrainingOptions(epochs=1, batch=50, optimizer=SGD(learning_rate=1.0), clip=1e-3)
    trainer = make_trainer(options)
    before = trainer.solver.network.parameters.copy()
    log = trainer.train()
    assert np.linalg.norm(trainer.solver.network.parameters - before) == pytest.approx(
        1e-3, rel=1e-2
    )
    assert log.epochs[0]["gradient_norm"] > 1e-3


def test_accuracies_differ_where_the_parallel_solve_is_inexact():
    """Both accuracies belong to the same weights: with one level they are equal, always."""
    options = TrainingOptions(epochs=6, batch=16, optimizer=Adam(learning_rate=0.03))
    exact = make_trainer(options).train()
    for row in exact.epochs:
        assert row["parallel_test_accuracy"] == row["exact_test_accuracy"]
    trainer = make_trainer(options, mgrit=MGRITOptions(levels=2, max_iterations=2))
    trainer.solver.predict = lambda x, mask: (np.tile([1.0, 0.0], (len(x), 1)), np.array([np.nan]))
    row = trainer.train().epochs[-1]
    assert row["parallel_test_accuracy"] == np.mean(trainer.data.y_test == 0)
    assert row["exact_test_accuracy"] > 0.9 > row["parallel_test_accuracy"]


def test_residuals_of_an_epoch_are_means_over_the_batches_that_have_them():
    """Where batches are stepped exactly, as "adaptive" decides by the clock, there is none."""
    trainer = make_trainer(
        TrainingOptions(epochs=2, batch=16, accuracy=AccuracyOptions(mode="adaptive", bound=1.0)),
        mgrit=MGRITOptions(levels=2, max_iterations=2),
    )
    trainer.control._seconds[EXACT] = 1e-9  # faster than cycles can be
    log = trainer.train()
    measured = np.isfinite([residuals[-1] for residuals in log.forward_residuals])
    assert measured.tolist() == [True, False, False, False] * 2
    for name in ("forward", "backward"):
        per_batch = [residuals[-1] for residuals in getattr(log, f"{name}_residuals")]
        assert log.columns()[f"{name}_residual"].tolist() == [per_batch[0], per_batch[4]]


class PressCtrlC(TrainingProgress):
    """Sends SIGINT to this process after some batches."""

    def __init__(self, after):
        self.after = after

    def batch(self, epoch, index, num_batches, means):
        if (epoch, index) == self.after:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("after", "finished"), [((1, 2), 0), ((2, 1), 1)])
def test_interruption_ends_between_batches_and_writes(after, finished):
    written, handler = [], signal.getsignal(signal.SIGINT)
    trainer = make_trainer(
        TrainingOptions(epochs=5, batch=16),
        progress=PressCtrlC(after),
        on_epoch=lambda log: written.append((len(log.epochs), log.finished)),
    )
    log = trainer.train()
    assert not log.finished
    assert len(log.epochs) == finished
    assert len(log.forward_residuals) == 4 * (after[0] - 1) + after[1]
    assert written[-1] == (finished, False)
    assert signal.getsignal(signal.SIGINT) is handler


def test_file_is_written_after_every_epoch():
    written = []
    trainer = make_trainer(
        TrainingOptions(epochs=3),
        on_epoch=lambda log: written.append((len(log.epochs), log.finished)),
    )
    trainer.train()
    assert written == [(1, False), (2, False), (3, True)]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_the_numbers(terminal):
    shown = io.StringIO()
    console = Console(force_terminal=terminal, record=True, width=120, file=shown)
    with ConsoleProgress(2, console) as progress:
        make_trainer(TrainingOptions(epochs=2, batch=16), progress=progress).train()
        text = console.export_text()
    assert "epoch   2  loss" in text
    assert "exact" in text
    assert "residual none" in text


def test_data_must_fit_the_model():
    data = make_data()
    model = Network(RecurrenceOptions(num_features=2, hidden=8), 2)
    solver = NetworkSolver(model, 16, STEPPING, STEPPING)
    with pytest.raises(ValueError, match="takes 2 features, slopes has 1"):
        Trainer(solver, data, TrainingOptions(), SerialCommunicator())
    model = Network(RecurrenceOptions(num_features=1, hidden=8), 3)
    solver = NetworkSolver(model, 16, STEPPING, STEPPING)
    with pytest.raises(ValueError, match="has 3 classes, slopes has 2"):
        Trainer(solver, data, TrainingOptions(), SerialCommunicator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"clip": -1.0}, "clip must be a positive number, got -1.0"),
        ({"clip": "1"}, "clip must be a positive number, got '1'"),
        ({"optimizer": "adam"}, "optimizer must be of Optimizer, got 'adam'"),
        ({"schedule": "cosine"}, "schedule must be of LearningRate, got 'cosine'"),
        ({"accuracy": "adaptive"}, "accuracy must be of AccuracyOptions, got 'adaptive'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TrainingOptions(**options)


def weighted(class_weights, options, data=None, **grid):
    """A trainer of labels whose classes have weights."""
    data = make_data() if data is None else data
    network = Network(RecurrenceOptions(num_features=1, hidden=8), 2)
    mgrit = MGRITOptions(**({"levels": 1} | grid))
    loss = CrossEntropy(class_weights=class_weights)
    return Trainer(NetworkSolver(network, data.num_steps, mgrit, mgrit, loss=loss), data, options)


def test_the_loss_of_training_counts_classes_as_much_as_they_weigh():
    """With nearly no step, the loss of an epoch of batches is the loss of all data."""
    for batch in (50, 7):
        tiny = SGD(learning_rate=1e-30)
        trainer = weighted((0.2, 3.0), TrainingOptions(epochs=1, batch=batch, optimizer=tiny))
        x, y, _ = trainer.data.train(slice(0, 50))
        whole = trainer.exact.loss_and_gradient(x, y)
        assert whole.total_weight == pytest.approx((0.2 * (y == 0) + 3.0 * (y == 1)).sum())
        (row,) = trainer.train().epochs
        assert row["train_loss"] == pytest.approx(whole.loss, rel=1e-5)


def test_batches_without_a_class_that_counts_are_passed_over():
    """Batches of one: batches of the class that is left out change nothing."""
    trainer = weighted((0.0, 1.0), TrainingOptions(epochs=2, batch=1))
    assert trainer.data.y_train[0] == 1 or trainer.data.y_train[1] == 1
    log = trainer.train()
    assert log.finished
    assert len(log.forward_residuals) == 2 * (trainer.data.y_train == 1).sum()
    assert log.epochs[-1]["train_accuracy"] == 1.0  # of what counts


def test_data_of_which_nothing_counts_are_an_error():
    data = dataclasses.replace(make_data(), y_train=np.zeros(50, dtype=np.int64))
    trainer = weighted((0.0, 1.0), TrainingOptions(epochs=1), data)
    with pytest.raises(ValueError, match="no element of slopes has a weight"):
        trainer.train()


def test_adaptive_training_does_without_a_parallel_test_that_diverges():
    """Its batches are stepped exactly; an unknown number is no reason to stop."""
    options = TrainingOptions(epochs=2, batch=25, accuracy=AccuracyOptions(mode="adaptive"))
    grid = {"levels": 2, "coarsening": 4, "max_iterations": 2, "divergence_factor": 1e-30}
    log = make_trainer(options, mgrit=MGRITOptions(**grid)).train()
    assert log.finished
    assert np.isnan([row["parallel_test_accuracy"] for row in log.epochs]).all()
    assert all(row["exact_test_accuracy"] >= 0 for row in log.epochs)


def test_the_ranks_are_those_of_the_solver():
    trainer = make_trainer(TrainingOptions(epochs=1))
    assert Trainer(trainer.solver, trainer.data, trainer.options).comm is trainer.solver.comm
