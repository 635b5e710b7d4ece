"""Generated sequences: what they hold, how well one can do, and that networks learn them."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pint import MGRITOptions
from pint.data import generated as tasks
from pint.data.generated import BASELINES, TASKS, adding, ideal_accuracy, lorenz, oscillator
from pint.rnn.losses import CrossEntropy, SquaredError
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.learning_rate import LearningRate
from pint.train.optimizers import Adam
from pint.train.trainer import Trainer, TrainingOptions

STEPPING = MGRITOptions(levels=1)


@pytest.mark.parametrize("name", TASKS)
def test_sizes_and_seeds(name):
    make = TASKS[name]
    data, again, other = make(60, 9, 3), make(60, 9, 3), make(60, 9, 4)
    assert data.name == name
    assert data.x_train.shape[:2] == (9, 60)
    assert data.x_test.shape[:2] == (2, 60)
    for field in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(data, field), getattr(again, field))
    assert not np.array_equal(data.x_train, other.x_train)
    assert len(make(60, 1, 0).y_test) == 1


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1, 1, 0), "length must be at least .*, got 1"),
        ((60, 0, 0), "samples must be at least 1, got 0"),
        ((60, 1, -1), "seed must be at least 0, got -1"),
    ],
)
def test_numbers_out_of_range(name, numbers, message):
    with pytest.raises(ValueError, match=message):
        TASKS[name](*numbers)


def test_a_million_steps():
    """One sequence of each, in single precision."""
    for name, make in TASKS.items():
        data = make(1_000_000, 1, 0)
        assert data.x_train.shape[:2] == (1, 1_000_000), name
        assert data.x_train.dtype == np.float32


# --- Adding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2, 7, 100])
def test_adding_marks_one_number_in_each_half(length):
    data = adding(length, 50, seed=1)
    numbers, marks = data.x_train[..., 0], data.x_train[..., 1]
    assert set(np.unique(marks)) <= {0.0, 1.0}
    assert (marks[:, : length // 2].sum(axis=1) == 1).all()
    assert (marks[:, length // 2 :].sum(axis=1) == 1).all()
    np.testing.assert_allclose(data.y_train[:, 0], (numbers * marks).sum(axis=1), rtol=1e-6)
    assert numbers.min() >= 0
    assert numbers.max() <= 1


def test_adding_a_constant_answer_misses_by_a_sixth():
    """The variance of a sum of two uniform numbers; of 10,000 samples within 5 of its errors."""
    data = adding(4, 40_000)
    assert BASELINES["adding"].of(data) == pytest.approx(1 / 6, abs=5 * 0.17 / 100)


# --- Oscillators ---------------------------------------------------------------------------------


def test_noise_has_its_size_and_correlation_at_any_rate():
    """Over 2000 sequences; the correlation between times a distance d apart is exp(-d / tau)."""
    rng = np.random.default_rng(0)
    for length in (100, 300):
        noise = np.array([tasks._noise(length, rng) for _ in range(2000)])
        np.testing.assert_allclose(noise.std(axis=0), tasks.NOISE, rtol=0.1)
        apart = length // 50
        found = (noise[:, apart:] * noise[:, :-apart]).mean() / tasks.NOISE**2
        assert found == pytest.approx(np.exp(-1), abs=0.02)


def test_whitened_noise_is_white():
    rng = np.random.default_rng(1)
    white = tasks._whitened(np.array([tasks._noise(80, rng) for _ in range(4000)]))
    np.testing.assert_allclose(white.T @ white / 4000, np.eye(80), atol=0.1)


def test_signals_are_damped_oscillations(monkeypatch):
    """Without noise every sequence solves u'' + 2 d u' + (d^2 + w^2) u = 0, of its class."""
    monkeypatch.setattr(tasks, "NOISE", 0.0)
    data = oscillator(4000, 8, seed=2)
    step = 1 / 4000
    for x, label in zip(data.x_train[..., 0].astype(np.float64), data.y_train, strict=True):
        f, d = tasks.OSCILLATORS[data.class_names[label]]
        first, second = np.gradient(x, step), np.diff(x, 2) / step**2
        stiffness = d * d + (2 * np.pi * f) ** 2
        rest = second + 2 * d * first[1:-1] + stiffness * x[1:-1]
        # Single precision: 6e-8 / step^2 is 1 in the second derivative.
        assert np.sqrt((rest**2).mean()) < 3e-3 * stiffness


def test_ideal_classifier_by_plain_likelihoods():
    """Against Gaussian densities with the noise's covariance matrix, summed over phases."""
    data = oscillator(60, 160, seed=3)
    t = np.arange(60) / 60
    distance = np.abs(t[:, None] - t)
    inverse = np.linalg.inv(tasks.NOISE**2 * np.exp(-distance / tasks.CORRELATION))
    right = 0
    for x, label in zip(data.x_test[..., 0], data.y_test, strict=True):
        likelihoods = []
        for f, d in tasks.OSCILLATORS.values():
            phases = np.linspace(0, 2 * np.pi, 200, endpoint=False)[:, None]
            rest = x - np.exp(-d * t) * np.cos(2 * np.pi * f * t + phases)
            likelihoods.append(np.exp(-0.5 * np.einsum("pi,ij,pj->p", rest, inverse, rest)).sum())
        right += int(np.argmax(likelihoods) == label)
    assert ideal_accuracy(data) == right / 40


def test_ideal_accuracy_does_not_depend_on_the_length():
    """It is 0.957; of 1000 test sequences within 4 of its errors, 0.0064."""
    for length in (100, 1000):
        assert ideal_accuracy(oscillator(length, 4000)) == pytest.approx(0.957, abs=0.026)


# --- Lorenz --------------------------------------------------------------------------------------


def test_lorenz_targets_follow_the_model(monkeypatch):
    """From each noiseless input, SciPy arrives at the target, 0.1 units of time later."""
    monkeypatch.setattr(tasks, "MEASUREMENT_ERROR", 0.0)
    seen = {}
    trajectory = tasks._trajectory

    def keep(start, num_steps):
        seen["states"] = trajectory(start, num_steps)
        return seen["states"]

    monkeypatch.setattr(tasks, "_trajectory", keep)
    data = lorenz(40, 8, seed=5)
    train = seen["states"][tasks.SPIN_UP + 1 :][: 8 * 50]
    mean, deviation = train.mean(axis=0), train.std(axis=0)

    def slope(t, u):
        x, y, z = u
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    for sample, step in ((0, 0), (3, 17), (7, 39)):
        start = data.x_train[sample, step] * deviation + mean
        end = solve_ivp(slope, (0, 0.1), start, rtol=1e-9, atol=1e-9).y[:, -1]
        expected = (end - mean) / deviation
        np.testing.assert_allclose(data.y_train[sample, step], expected, atol=2e-4)


def test_lorenz_is_standardised_and_noisy():
    data = lorenz(100, 100)
    np.testing.assert_allclose(data.y_train.mean(axis=(0, 1)), 0, atol=0.05)
    np.testing.assert_allclose(data.y_train.std(axis=(0, 1)), 1, atol=0.05)
    error = data.x_train[:, tasks.AHEAD :] - data.y_train[:, : -tasks.AHEAD]
    assert error.std() == pytest.approx(tasks.MEASUREMENT_ERROR, rel=0.05)


# --- Learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "length", "samples", "epochs", "good"),
    [("adding", 20, 600, 25, 0.2), ("oscillator", 50, 600, 20, 0.6), ("lorenz", 40, 400, 15, 0.2)],
)
def test_a_small_network_learns(name, length, samples, epochs, good):
    """Errors far below the baseline; an accuracy far above chance, and not above what can be."""
    data = TASKS[name](length, samples, 0)
    cell = RecurrenceOptions(num_features=data.num_features, hidden=16)
    network = Network(cell, data.num_outputs, pooling="every" if data.is_per_step else "last")
    loss = CrossEntropy() if data.is_classification else SquaredError()
    solver = NetworkSolver(network, length, STEPPING, STEPPING, loss=loss)
    options = TrainingOptions(
        epochs=epochs,
        batch=25,
        optimizer=Adam(learning_rate=1e-2),
        schedule=LearningRate(kind="cosine"),
        clip=1.0,
    )
    row, baseline = Trainer(solver, data, options).train().epochs[-1], BASELINES[name].of(data)
    if data.is_classification:
        assert good < row["exact_test_accuracy"] <= baseline + 0.03
    else:
        assert row["exact_test_error"] < good * baseline
