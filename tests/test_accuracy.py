"""Accuracy control: what is measured is true, and the iterations follow from it."""

import numpy as np
import pytest

from pint import MGRITOptions
from pint.rnn.network import Network
from pint.rnn.recurrence import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train import accuracy
from pint.train.accuracy import EXACT, AccuracyControl, AccuracyOptions, Iterations, exact_solver

STEPPING = MGRITOptions(levels=1)


def make(forward=2, backward=2, coarse_step="averaged", **options):
    """A control, and batches of smooth sequences, of 64 steps on three levels."""
    cell = RecurrenceOptions(
        num_features=2, hidden=5, layers=1, dtype=np.float64, coarse_step=coarse_step
    )
    network = Network(cell, 3, seed=2)
    network.parameters *= 2
    grid = {"levels": 3, "coarsening": 4, "relax": (0, 1)}
    solver = NetworkSolver(
        network,
        64,
        MGRITOptions(max_iterations=forward, **grid),
        MGRITOptions(max_iterations=backward, **grid),
    )
    return AccuracyControl(solver, AccuracyOptions(**options))


def batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        shift = rng.standard_normal((4, 1, 2))
        yield 2 * np.sin(np.arange(64)[:, None] / 5 + shift), rng.integers(0, 3, 4)


def run(control, count):
    return [control.loss_and_gradient(x, y) for x, y in batches(count)]


def test_fixed_without_comparisons_is_the_solver_alone():
    control = make()
    got = run(control, 3)
    for (x, y), one in zip(batches(3), got, strict=True):
        expected = make().solver.loss_and_gradient(x, y)
        np.testing.assert_array_equal(one.gradient, expected.gradient)
    assert control.log.forward_iterations == [2, 2, 2]
    assert np.isnan(control.log.measured_error).all()
    assert np.isnan(control.log.estimated_error).all()


def test_comparisons_are_what_one_computes_by_hand():
    control = make(check_every=2)
    run(control, 5)
    measured, cosine = control.log.measured_error, control.log.cosine
    assert np.isnan(measured).tolist() == [False, True, False, True, False]
    for index, (x, y) in enumerate(batches(5)):
        a = make().solver.loss_and_gradient(x, y).gradient
        b = exact_solver(control.solver.network, 64).loss_and_gradient(x, y).gradient
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert 1e-8 < error < 1
        if not np.isnan(measured[index]):
            assert measured[index] == pytest.approx(error, rel=1e-9)
            angle = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert cosine[index] == pytest.approx(angle, rel=1e-12)


def test_without_a_residual_comparisons_are_as_rare():
    """One cycle of both solves measures none, so that no factor is ever known."""
    control = make(1, 1, check_every=3)
    run(control, 7)
    compared = ~np.isnan(control.log.measured_error)
    assert compared.tolist() == [True, False, False, True, False, False, True]
    assert np.isnan(control.log.estimated_error).all()


def test_a_comparison_does_not_change_fixed_training():
    plain, compared = run(make(), 4), run(make(check_every=1), 4)
    for a, b in zip(plain, compared, strict=True):
        np.testing.assert_array_equal(a.gradient, b.gradient)


def test_estimate_follows_the_residuals():
    control = make(check_every=4)
    got = run(control, 4)
    log = control.log
    factor = log.measured_error[0] / (got[0].forward_relative + got[0].backward_relative)
    expected = [factor * (g.forward_relative + g.backward_relative) for g in got[1:]]
    np.testing.assert_allclose(log.estimated_error[1:], expected, rtol=1e-12)


@pytest.mark.parametrize("bound", [0.3, 1e-2, 1e-4])
def test_adaptive_keeps_compared_gradients_within_the_bound(bound, monkeypatch):
    monkeypatch.setattr(AccuracyControl, "_takes_longer_than_stepping", lambda *_: False)
    control = make(mode="adaptive", bound=bound, check_every=1, coarse_step="midpoint")
    got = run(control, 12)
    exact = exact_solver(control.solver.network, 64)
    for (x, y), one in zip(batches(12), got, strict=True):
        b = exact.loss_and_gradient(x, y).gradient
        assert np.linalg.norm(one.gradient - b) <= bound * np.linalg.norm(b)


def test_a_tighter_bound_takes_more_iterations(monkeypatch):
    monkeypatch.setattr(AccuracyControl, "_takes_longer_than_stepping", lambda *_: False)
    used = []
    for bound in (0.5, 1e-3, 1e-9):
        control = make(mode="adaptive", bound=bound, check_every=5)
        run(control, 12)
        used.append(control.iterations)
    assert used[0] == Iterations(2, 1)
    assert used[0] < used[1]
    assert used[1].forward <= 6
    assert used[2] == EXACT or used[2] > used[1]


def test_fewer_iterations_are_tried_after_calm(monkeypatch):
    monkeypatch.setattr(AccuracyControl, "_takes_longer_than_stepping", lambda *_: False)
    control = make(mode="adaptive", bound=0.9, check_every=50)
    control.rung = 3
    run(control, accuracy.CALM_BATCHES)
    assert control.rung == 2


def test_falls_back_to_stepping_where_iterations_take_longer():
    control = make(mode="adaptive", bound=0.9)
    control._seconds[EXACT] = 1e-9  # faster than anything
    got = run(control, 3)
    assert control.log.forward_iterations == [2, 0, 0]
    for (x, y), one in list(zip(batches(3), got, strict=True))[1:]:
        expected = exact_solver(control.solver.network, 64).loss_and_gradient(x, y)
        np.testing.assert_array_equal(one.gradient, expected.gradient)
    assert control.log.estimated_error[1:] == [0.0, 0.0]
    control.start_epoch()
    assert control.iterations == Iterations(2, 2)
    run(control, 2)
    assert control.log.forward_iterations[3:] == [2, 0]  # one batch tells that they take longer


def test_an_epoch_begins_with_the_given_iterations_if_only_exact_ones_would_do():
    control = make(6, 6, mode="adaptive", bound=1e-300)
    run(control, 1)
    assert control.iterations == EXACT
    control.start_epoch()
    assert control.iterations == Iterations(6, 6)


@pytest.mark.parametrize(
    ("given", "first"), [((2, 1), (2, 1)), ((3, 2), (3, 2)), ((2, 3), (3, 3)), ((9, 1), (6, 6))]
)
def test_adaptive_begins_with_the_iterations_that_are_given(given, first):
    """Or the next that are tried, which grow in turn up to six."""
    assert make(*given, mode="adaptive").iterations == first


def test_exact_solver_needs_no_control():
    control = make(mode="adaptive")
    serial = NetworkSolver(control.solver.network, 64, STEPPING, STEPPING)
    control = AccuracyControl(serial, AccuracyOptions(mode="adaptive", check_every=1))
    run(control, 2)
    assert control.log.estimated_error == [0.0, 0.0]
    assert np.isnan(control.log.measured_error).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "exact"}, "mode must be one of fixed, adaptive, got 'exact'"),
        ({"bound": 0.0}, "bound must be a positive number"),
        ({"check_every": -1}, "check_every must be at least 0, got -1"),
        ({"most_iterations": 1}, "most_iterations must be at least 2, got 1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AccuracyOptions(**options)
