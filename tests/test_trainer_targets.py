"""Training for numbers, at every step, and with missing elements: against torch and by hand."""

import io

import numpy as np
import pytest
from rich.console import Console

from pint import MGRITOptions
from pint.rnn.losses import CrossEntropy, SquaredError
from pint.rnn.network import Network
from pint.rnn.parameters import views
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.accuracy import AccuracyOptions, tally
from pint.train.log import COLUMNS, ERROR_COLUMNS
from pint.train.optimizers import SGD, Adam
from pint.train.progress import ConsoleProgress
from pint.train.trainer import Trainer, TrainingOptions
from tests.training_data import KINDS, loss_of, make, pooling_of

STEPPING = MGRITOptions(levels=1)
FEW = MGRITOptions(levels=2, coarsening=3, max_iterations=2)
ONE_STEP = TrainingOptions(epochs=1, batch=9, optimizer=SGD(learning_rate=0.5, momentum=0.0))


def make_solver(data, mgrit=STEPPING, loss=None, num_outputs=3, pooling=None, **arguments):
    options = RecurrenceOptions(num_features=2, hidden=4, cell="classic", dtype=np.float64)
    network = Network(options, num_outputs, pooling=pooling or pooling_of(data), seed=1)
    loss = loss_of(data) if loss is None else loss
    return NetworkSolver(network, data.num_steps, mgrit, mgrit, loss=loss, **arguments)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_of_one_batch_is_torchs_gradient_step(kind, masked):
    """And the test part gives the loss, or the accuracy, of torch's scores."""
    torch = pytest.importorskip("torch")
    from tests.network_reference import evaluate

    data = make(kind, masked)
    solver, of = make_solver(data), torch.nn.functional
    network = solver.network
    loss = of.cross_entropy if data.is_classification else of.mse_loss
    x, y, mask = zeros_for_nan(data.train(slice(None)))
    expected = evaluate(network.architecture, network.weights, x, y, loss=loss, mask=mask)
    after = {name: value - 0.5 * expected.gradient[name] for name, value in network.weights.items()}
    (row,) = Trainer(solver, data, ONE_STEP).train().epochs
    assert row["train_loss"] == pytest.approx(expected.loss, rel=1e-10)
    for name, value in views(network.parameters, network.architecture.shapes).items():
        np.testing.assert_allclose(value, after[name], rtol=1e-9, atol=1e-12, err_msg=name)
    x, y, mask = zeros_for_nan(data.test(slice(None)))
    tested = evaluate(network.architecture, after, x, y, loss=loss, mask=mask)
    if data.is_classification:
        counts = mask if masked and data.is_per_step else np.ones(y.shape, bool)
        accuracy = (tested.scores.argmax(axis=-1) == y)[counts].mean()
        assert row["exact_test_accuracy"] == row["parallel_test_accuracy"] == accuracy
    else:
        assert row["exact_test_error"] == pytest.approx(tested.loss, rel=1e-10)
        assert row["parallel_test_error"] == row["exact_test_error"]


def zeros_for_nan(samples):
    """In double precision, as torch is to see them."""
    x, y, mask = samples
    y = np.nan_to_num(y.astype(np.float64)) if y.dtype == np.float32 else y
    return np.nan_to_num(x.astype(np.float64)), y, mask


@pytest.mark.parametrize("kind", KINDS)
def test_columns_say_accuracy_or_error(kind):
    data = make(kind)
    options = TrainingOptions(epochs=3, batch=4, optimizer=Adam(learning_rate=0.03))
    log = Trainer(make_solver(data, FEW), data, options).train()
    names = COLUMNS if data.is_classification else ERROR_COLUMNS
    assert all(tuple(row) == names for row in log.epochs)
    columns = log.columns()
    assert tuple(columns) == names
    assert columns["epoch"].tolist() == [1, 2, 3]
    assert columns["train_loss"][2] < columns["train_loss"][0]


def test_an_epochs_loss_is_that_of_its_elements_not_of_its_batches():
    """Without updates, batches of few and of many elements give the loss of all at once."""
    data = make("numbers per step")
    solver = make_solver(data)
    whole = solver.loss_and_gradient(*data.train(slice(None))).loss
    options = TrainingOptions(epochs=1, batch=2, optimizer=SGD(learning_rate=1e-300))
    (row,) = Trainer(solver, data, options).train().epochs
    assert row["train_loss"] == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("kind", ["labels per step", "numbers"])
def test_accuracy_control_compares_masked_gradients(kind):
    """What it says of the first batch is what both solvers give by hand."""
    data = make(kind, num_steps=48)
    accuracy = AccuracyOptions(mode="adaptive", check_every=1)
    trainer = Trainer(
        make_solver(data, FEW, warm_start_sequences=9),
        data,
        TrainingOptions(epochs=2, batch=9, accuracy=accuracy),
    )
    order = np.random.default_rng([0, 1]).permutation(9)
    solved = make_solver(data, FEW).loss_and_gradient(*data.train(order)).gradient
    exact = make_solver(data).loss_and_gradient(*data.train(order)).gradient
    log = trainer.train().accuracy
    error = np.linalg.norm(solved - exact) / np.linalg.norm(exact)
    assert 1e-10 < error < 1
    assert log.measured_error[0] == pytest.approx(error, rel=1e-6)


def test_tally_counts_elements_that_there_are():
    scores = np.zeros((2, 3, 2))
    scores[0, :, 1] = 1
    y = np.array([[1, 0, 1], [0, 0, 1]])
    mask = np.array([[True, True, False], [True, False, True]])
    assert tally(CrossEntropy(), scores, y, mask).tolist() == [2, 4]
    y = np.full((2, 3, 2), np.nan)
    y[mask] = [2.0, 0.0]
    squares = [(4 + 1) / 2, (4 + 1) / 2, (4 + 0) / 2, (4 + 0) / 2]
    assert tally(SquaredError(), scores, y, mask).tolist() == [sum(squares), 4]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_errors(terminal):
    data, shown = make("numbers"), io.StringIO()
    console = Console(force_terminal=terminal, record=True, width=120, file=shown)
    with ConsoleProgress(1, console) as progress:
        log = Trainer(make_solver(data), data, ONE_STEP, progress=progress).train()
        text = console.export_text()
    error = log.epochs[0]["exact_test_error"]
    assert f"test {error:.4g} parallel {error:.4g} exact" in text
    assert "accuracy" not in text


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("numbers", {"loss": CrossEntropy()}, "waves has numbers: give NetworkSolver loss=Squared"),
        ("labels", {"loss": SquaredError()}, "waves has labels: give NetworkSolver loss=CrossEnt"),
        ("numbers", {"num_outputs": 2}, "the network predicts 2 numbers, waves has 3"),
        ("labels", {"pooling": "every"}, "one target for a sequence: pooling must be 'last' or"),
        ("labels per step", {"pooling": "last"}, "target at every step: pooling must be 'every'"),
    ],
)
def test_data_must_fit_pooling_and_loss(kind, changes, message):
    data = make(kind)
    with pytest.raises(ValueError, match=message):
        Trainer(make_solver(data, **changes), data, TrainingOptions())
