"""Accuracy control: what is measured is true, and the iterations follow from it."""

import numpy as np
import pytest

from pint import MGRITOptions
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train import accuracy
from pint.train.accuracy import EXACT, AccuracyControl, AccuracyOptions, Iterations, exact_solver

STEPPING = MGRITOptions(levels=1)


def make(forward=2, backward=2, coarse_step="averaged", divergence_factor=1e8, **options):
    """A control, and batches of smooth sequences, of 64 steps on three levels."""
    cell = RecurrenceOptions(
        num_features=2, hidden=5, layers=1, dtype=np.float64, coarse_step=coarse_step
    )
    network = Network(cell, 3, seed=2)
    network.parameters *= 2
    grid = {"levels": 3, "coarsening": 4, "relax": (0, 1), "divergence_factor": divergence_factor}
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


def patient(monkeypatch):
    """Let nothing depend on how long cycles take."""
    monkeypatch.setattr(AccuracyControl, "_takes_longer_than_stepping", lambda *_: False)


def relative_error(got, exact):
    a, b = got.gradient.astype(np.float64), exact.gradient.astype(np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_no_gradient_with_an_estimate_above_the_bound_is_returned(monkeypatch):
    patient(monkeypatch)
    control = make(mode="adaptive", bound=0.01, check_every=50)
    run(control, 1)
    used = control.iterations
    known = control._compared[used]
    known.ratios[0] *= 1e6  # as if the first batch had been a poor one
    (got,) = run(control, 1)
    assert control.log.forward_iterations[-1] == used.forward
    assert control.log.measured_error[-1] < 0.01  # it was compared, and found near
    expected = exact_solver(control.solver.network, 64).loss_and_gradient(*next(batches(1)))
    assert relative_error(got, expected) == pytest.approx(control.log.measured_error[-1])


def noise_now_and_then(count, num_steps, smooth, rough):
    """Smooth sequences, and every fourth batch noise, on which cycles are much less accurate."""
    rng = np.random.default_rng(0)
    for index in range(count):
        shift = rng.standard_normal((4, 1, 2))
        x = smooth * np.sin(np.arange(num_steps)[:, None] / 8 + shift)
        if index % 4 == 3:
            x = rough * rng.standard_normal(x.shape)
        yield x, rng.integers(0, 3, 4)


def test_batches_of_another_kind_are_noticed(monkeypatch):
    """An estimate that rests on smooth batches alone is five times too small for noise."""
    patient(monkeypatch)
    control = make(mode="adaptive", check_every=50)
    control.solver.network.parameters *= 1.3
    exact, errors = exact_solver(control.solver.network, 64), []
    for x, y in noise_now_and_then(24, 64, 2.0, 3.0):
        got = control.loss_and_gradient(x, y)
        errors.append(relative_error(got, exact.loss_and_gradient(x, y)))
    assert max(errors) < 1.5 * 0.05
    assert np.isnan(control.log.measured_error).sum() > 12  # most are not compared
    worst = np.nanmax(control.log.measured_error)
    assert worst > 0.05


def test_an_adjoint_that_blows_up_is_noticed(monkeypatch):
    """Cycles whose residual grows as fast as the solution: the ratio shows nothing."""
    patient(monkeypatch)
    cell = RecurrenceOptions(num_features=2, hidden=16, cell="lstm")
    network = Network(cell, 3, seed=1)
    network.parameters *= 5
    network.weights["bias_ih_l0"][16:32] += 3  # remember for long
    options = MGRITOptions(levels=3, coarsening=4, relax=(0, 1), max_iterations=3)
    solver = NetworkSolver(network, 512, options, options)
    control = AccuracyControl(solver, AccuracyOptions(mode="adaptive", check_every=50))
    exact = exact_solver(network, 512)
    for x, y in noise_now_and_then(8, 512, 0.3, 3.0):
        got = control.loss_and_gradient(x.astype(np.float32), y)
        expected = exact.loss_and_gradient(x.astype(np.float32), y)
        assert relative_error(got, expected) < 0.05
    assert np.nanmax(control.log.measured_error) > 10


def test_exact_gradients_where_a_solve_diverges(monkeypatch):
    patient(monkeypatch)
    control = make(mode="adaptive", divergence_factor=1e-30)
    x, y = next(batches(1))
    got = control.loss_and_gradient(x, y)
    expected = exact_solver(control.solver.network, 64).loss_and_gradient(x, y)
    np.testing.assert_array_equal(got.gradient, expected.gradient)
    log = control.log
    assert (log.forward_iterations, log.backward_iterations) == ([2], [2])
    assert log.measured_error == log.estimated_error == [np.inf]
    assert control.iterations > Iterations(2, 2)
    with pytest.raises(FloatingPointError, match="diverged"):
        make(divergence_factor=1e-30).loss_and_gradient(x, y)


@pytest.mark.parametrize("mode", ["fixed", "adaptive"])
def test_initial_states_and_gradients_of_inputs(mode):
    control, (x, y) = make(mode=mode), next(batches(1))
    start = np.full((1, 4, 5), 0.3)
    got = control.loss_and_gradient(x, y, start=start, inputs=True)
    expected = make().solver.loss_and_gradient(x, y, start=start, inputs=True)
    for name in ("gradient", "start_gradient", "input_gradient"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert got.loss != make().solver.loss_and_gradient(x, y).loss


@pytest.mark.parametrize("bound", [0.3, 1e-2, 1e-4])
def test_adaptive_keeps_compared_gradients_within_the_bound(bound, monkeypatch):
    patient(monkeypatch)
    control = make(mode="adaptive", bound=bound, check_every=1, coarse_step="midpoint")
    got = run(control, 12)
    exact = exact_solver(control.solver.network, 64)
    for (x, y), one in zip(batches(12), got, strict=True):
        b = exact.loss_and_gradient(x, y).gradient
        assert np.linalg.norm(one.gradient - b) <= bound * np.linalg.norm(b)


def test_a_tighter_bound_takes_more_iterations(monkeypatch):
    patient(monkeypatch)
    used = []
    for bound in (0.5, 1e-3, 1e-9):
        control = make(mode="adaptive", bound=bound, check_every=5)
        run(control, 12)
        used.append(control.iterations)
    assert used[0] == Iterations(2, 1)
    assert used[0] < used[1]
    assert used[1].forward <= 6
    assert used[2] == EXACT or used[2] > used[1]


def test_fewer_iterations_are_tried_far_below_the_bound(monkeypatch):
    patient(monkeypatch)
    control = make(mode="adaptive", bound=0.9, check_every=50)
    control.current = 3
    run(control, accuracy.BATCHES_FAR_BELOW)
    assert control.current == 2


def test_falls_back_to_stepping_where_iterations_take_longer():
    control = make(mode="adaptive", bound=0.9)
    control.warm_up(*next(batches(1)))
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
    assert control.log.forward_iterations[3:] == [2, 0]  # one batch shows that they take longer


def test_first_calls_are_not_timed_unless_all_is_compiled():
    """Kernels that are compiled meanwhile would make cycles look hopeless for good."""
    cold, warm = make(mode="adaptive", bound=0.9), make(mode="adaptive", bound=0.9)
    warm.warm_up(*next(batches(1)))
    for control in (cold, warm):
        run(control, 1)
    assert set(cold._seconds) == set()
    assert set(warm._seconds) == {(2, 2), EXACT}


def test_an_epoch_begins_with_the_given_iterations_if_only_exact_ones_would_do():
    control = make(6, 6, mode="adaptive", bound=1e-300)
    run(control, 1)
    assert control.iterations == EXACT
    control.start_epoch()
    assert control.iterations == Iterations(6, 6)


@pytest.mark.parametrize(
    ("given", "first"),
    [((2, 1), (2, 1)), ((3, 2), (3, 2)), ((2, 3), (3, 3)), ((9, 1), (9, 6)), ((20, 20), (20, 20))],
)
def test_adaptive_begins_with_the_iterations_that_are_given(given, first):
    """Or the next that are tried, which grow in turn up to six, or those that are given."""
    control = make(*given, mode="adaptive")
    assert control.iterations == first
    assert control.settings == [*sorted(control.settings[:-1]), EXACT]


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


def test_cycles_that_solve_are_not_compared_again_and_again(monkeypatch):
    """Two intervals: two cycles leave nothing but rounding."""
    patient(monkeypatch)
    network = Network(RecurrenceOptions(num_features=2, hidden=5, dtype=np.float64), 3)
    options = MGRITOptions(levels=2, coarsening=32, max_iterations=2)
    control = AccuracyControl(
        NetworkSolver(network, 64, options, options), AccuracyOptions(mode="adaptive")
    )
    run(control, 4)
    assert control.iterations == Iterations(2, 2)
    assert max(control.log.estimated_error) < 1e-12
    assert np.isnan(control.log.measured_error[1:]).all()
    assert control.log.measured_error[0] < 1e-12
