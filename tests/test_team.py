"""Threads that share sequences and points: the numbers of one thread, to the last bit."""

import threading

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid
from pint.parallel.thread_team import ThreadTeam
from pint.rnn.network import Network
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver

T, B = 24, 37


def test_every_item_is_worked_on_once():
    for size in (1, 2, 3, 7):
        for count in (0, 1, 5, 6, 7, 100):
            seen = np.zeros(count, dtype=int)

            def work(own, seen=seen):
                seen[own] += 1

            ThreadTeam(size).split(count, work)
            assert np.all(seen == 1)


def test_threads_work_side_by_side():
    """Each waits for all others, so that fewer threads would wait for ever."""
    barrier = threading.Barrier(3, timeout=20)
    ThreadTeam(3).split(6, lambda own: barrier.wait())
    assert not barrier.broken


def test_too_few_items_are_not_shared():
    slices = []
    ThreadTeam(4).split(20, slices.append, least=8)
    assert sorted((s.start, s.stop) for s in slices) == [(0, 10), (10, 20)]


@pytest.mark.parametrize("fails", [0, 1])
def test_an_error_of_any_thread_is_told(fails):
    def work(own):
        if own.start == fails:
            raise FloatingPointError(f"item {fails}")

    with pytest.raises(FloatingPointError, match=f"item {fails}"):
        ThreadTeam(2).split(2, work)


def test_a_team_has_a_thread():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        ThreadTeam(0)


def solved(cell, levels, threads, dtype=np.float32):
    """States and gradients of a stack of two layers."""
    options = RecurrenceOptions(num_features=3, hidden=20, layers=2, cell=cell, dtype=dtype)
    model = Recurrence(options, seed=1)
    model.team = ThreadTeam(threads)
    mgrit = MGRITOptions(levels=levels, coarsening=4, max_iterations=2)
    solver = MGRIT(model, TimeGrid.uniform(0.0, float(T), T), mgrit)
    adjoint = AdjointSolver(solver)
    rng = np.random.default_rng(0)
    model.set_inputs(
        rng.standard_normal((B, T, 3)).astype(dtype), windows_of(model, solver, adjoint)
    )
    result = solver.solve(np.zeros(model.state_shape, dtype))
    back = adjoint.solve(result, np.ones(model.state_shape, dtype))
    return result.u, back.initial_gradient, back.parameter_gradient


def windows_of(model, solver, adjoint):
    stacks = solver.hierarchy.own_steps() + adjoint.own_steps()
    return np.concatenate([model.input_windows(stack) for stack in stacks if np.size(stack.last)])


@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
@pytest.mark.parametrize("levels", [1, 3])
def test_same_bits_for_any_number_of_threads(cell, levels):
    alone = solved(cell, levels, 1)
    for threads in (2, 3):
        for one, other in zip(alone, solved(cell, levels, threads), strict=True):
            np.testing.assert_array_equal(one, other)


def test_threads_of_the_options_reach_the_layers():
    network = Network(RecurrenceOptions(num_features=2, hidden=4), 3)
    options = MGRITOptions(levels=1, threads=3)
    assert NetworkSolver(network, T, options, options).layer_solvers[0].model.team.size == 3
