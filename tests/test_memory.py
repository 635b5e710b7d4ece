"""Warm starts: cycles begin with the states that the same sequences had before."""

import numpy as np
import pytest

from pint import MGRITOptions
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver

STEPPING = MGRITOptions(levels=1)


def make(warm_start_sequences=6, cycles=1, bidirectional=False, coarse_step="matched"):
    cell = RecurrenceOptions(
        num_features=2, hidden=4, layers=2, dtype=np.float64, coarse_step=coarse_step
    )
    network = Network(cell, 3, seed=1, bidirectional=bidirectional)
    network.parameters *= 2
    options = MGRITOptions(levels=2, coarsening=4, relax=0, max_iterations=cycles)
    solver = NetworkSolver(network, 34, options, options, warm_start_sequences=warm_start_sequences)
    exact = NetworkSolver(network, 34, STEPPING, STEPPING)
    rng = np.random.default_rng(0)
    return solver, exact, rng.standard_normal((6, 34, 2)), rng.integers(0, 3, 6)


def error(got, exact):
    return np.linalg.norm(got.gradient - exact.gradient) / np.linalg.norm(exact.gradient)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_calls_go_on_where_the_last_one_stopped(bidirectional):
    """N / m cycles are exact, in one call or in calls of one cycle each."""
    solver, exact, x, y = make(bidirectional=bidirectional)
    forward, backward = (s.loss_and_gradient(x, y) for s in (solver, exact))
    assert abs(forward.loss - backward.loss) > 1e-4
    for _ in range(18 if bidirectional else 9):  # layer after layer
        got = solver.loss_and_gradient(x, y, sequence_ids=np.arange(6))
    assert got.loss == pytest.approx(exact.loss_and_gradient(x, y).loss, rel=1e-12)


def test_first_call_is_a_cold_start():
    solver, _, x, y = make()
    cold = make(warm_start_sequences=0)[0].loss_and_gradient(x, y)
    warm = solver.loss_and_gradient(x, y, sequence_ids=np.arange(6))
    np.testing.assert_array_equal(warm.gradient, cold.gradient)


def test_a_batch_with_one_unknown_sequence_is_a_cold_start():
    solver, _, x, y = make()
    solver.loss_and_gradient(x[:5], y[:5], sequence_ids=np.arange(5))
    cold = make(warm_start_sequences=0)[0].loss_and_gradient(x, y)
    warm = solver.loss_and_gradient(x, y, sequence_ids=np.arange(6))
    np.testing.assert_array_equal(warm.gradient, cold.gradient)


def test_sequences_are_known_by_number_in_any_order():
    solver, exact, x, y = make(cycles=9)
    solver.loss_and_gradient(x, y, sequence_ids=np.arange(6))  # exact states are remembered
    solver.iterate(1, 9)
    order = np.array([4, 0, 5, 1])
    warm = solver.loss_and_gradient(x[order], y[order], sequence_ids=order)
    assert error(warm, exact.loss_and_gradient(x[order], y[order])) < 1e-12
    wrong = solver.loss_and_gradient(x[order], y[order], sequence_ids=order[::-1].copy())
    assert error(wrong, exact.loss_and_gradient(x[order], y[order])) > 1e-6


def test_prediction_neither_uses_nor_changes_what_is_remembered():
    solver, _, x, _ = make()
    cold = make(warm_start_sequences=0)[0]
    solver.loss_and_gradient(x, np.zeros(6, dtype=int), sequence_ids=np.arange(6))
    np.testing.assert_array_equal(solver.predict(x)[0], cold.predict(x)[0])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0, 1, 2], r"sequence_ids must be 6 integers, got \(3,\) int64"),
        (
            [0, 1, 2, 3, 4, 6],
            "sequence_ids must be below warm_start_sequences, 6, and at least 0, got 0..6",
        ),
        ([-1, 1, 2, 3, 4, 5], "got -1..5"),
    ],
)
def test_wrong_numbers_are_told(numbers, message):
    solver, _, x, y = make()
    with pytest.raises(ValueError, match=message):
        solver.loss_and_gradient(x, y, sequence_ids=np.array(numbers))


def test_nothing_is_remembered_unless_asked_for():
    solver, _, x, y = make(warm_start_sequences=0)
    with pytest.raises(ValueError, match="sequence_ids must be below warm_start_sequences, 0"):
        solver.loss_and_gradient(x, y, sequence_ids=np.arange(6))


def test_stepping_keeps_no_states():
    """It needs no guess; sequences may still have numbers."""
    network = make()[0].network
    solver = NetworkSolver(network, 34, STEPPING, STEPPING, warm_start_sequences=6)
    assert solver.layer_solvers[0].warm_start is None
    x, y = np.ones((6, 34, 2)), np.zeros(6, dtype=np.int64)
    assert np.isfinite(solver.loss_and_gradient(x, y, sequence_ids=np.arange(6)).loss)
