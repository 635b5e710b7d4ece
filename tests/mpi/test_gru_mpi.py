"""A recurrent network over the ranks: the states and gradients of one process, on any number."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Status, TimeGrid
from pint.comm import world
from pint.rnn.recurrence import Recurrence, RecurrenceOptions

COMM = world()
SERIAL = MGRITOptions(levels=1)


def cases():
    """Length, factor, levels, coarsest: all pairs of the first two, whatever the number of ranks.

    What the last two are depends on that number too: on 1, 2 and 3 ranks together every length
    meets every factor on every number of levels.
    """
    for i, num_steps in enumerate((24, 97, 128)):
        for j, coarsening in enumerate((2, 4, 8)):
            levels = 2 + (i + j + COMM.size) % 3
            coarsest = ("gather", "in_turn")[(3 * i + j + COMM.size) % 2]
            yield num_steps, coarsening, levels, coarsest


def make(dtype=np.float64, layers=2, num_features=2, hidden=3):
    """A model with gates nearly shut, so that gradients reach back over some hundred points."""
    gru = Recurrence(
        RecurrenceOptions(num_features=num_features, hidden=hidden, layers=layers, dtype=dtype)
    )
    gru.parameters *= 2
    for layer in range(layers):
        gru.weights[f"bias_ih_l{layer}"][hidden : 2 * hidden] += 4
    return gru


def problem(gru, num_steps, batch=2):
    """Smooth sequences, u_0 and dJ/du_N, the same on every rank."""
    options, rng = gru.options, np.random.default_rng(num_steps)
    phases = rng.standard_normal((batch, 1, options.num_features))
    x = 2 * np.sin(2 * np.pi * np.arange(num_steps)[:, None] / 32 + phases)
    u, w = rng.standard_normal((2, options.layers, batch, options.hidden))
    return x, u, w


def own_inputs(gru, solver, adjoint_solver):
    """The finest steps whose inputs this rank reads, forwards or backwards, on any level."""
    stacks = solver.hierarchy.own_steps() + adjoint_solver.own_steps()
    read = [gru.input_windows(stack) for stack in stacks if stack.last.size]
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *read]))


def solve(gru, num_steps, forward, backward=None, comm=COMM, batch=2):
    """Forward and adjoint result; each rank binds the inputs that it reads, and no others."""
    x, u, w = problem(gru, num_steps, batch)
    solver = MGRIT(gru, TimeGrid.uniform(0, num_steps, num_steps), forward, comm)
    adjoint_solver = AdjointSolver(solver, backward)
    gru.set_inputs(x, own_inputs(gru, solver, adjoint_solver))
    result = solver.solve(u)
    return result, adjoint_solver.solve(result, w)


def in_parallel(levels, coarsening, coarsest="gather", **options):
    return MGRITOptions(
        levels=levels, coarsening=coarsening, coarsest=coarsest, relax=(0, 1), **options
    )


def assert_near(actual, expected, rtol):
    """Relative to the greatest entry."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = np.abs(expected).max()
    assert scale > 1e-3  # a gradient of zero would prove nothing
    assert np.abs(actual - expected).max() < rtol * scale


def assert_same_solution(actual, expected, rtol):
    """States, and both gradients, of a solve on all ranks and of one on one process."""
    (result, adjoint), (serial, exact) = actual, expected
    assert_near(result.gather(), serial.u, rtol)
    assert_near(adjoint.initial_gradient, exact.initial_gradient, rtol)
    assert_near(adjoint.parameter_gradient, exact.parameter_gradient, rtol)


@pytest.mark.parametrize(("num_steps", "coarsening", "levels", "coarsest"), list(cases()))
def test_enough_iterations_equal_backpropagation(num_steps, coarsening, levels, coarsest):
    gru = make()
    expected = solve(gru, num_steps, SERIAL, comm=None)
    options = in_parallel(levels, coarsening, coarsest, tolerance=1e-13)
    result, adjoint = solve(gru, num_steps, options)
    assert result.status is adjoint.status is Status.CONVERGED
    assert_same_solution((result, adjoint), expected, 1e-12)


@pytest.mark.parametrize(("num_steps", "coarsest"), [(24, "gather"), (97, "in_turn")])
def test_enough_iterations_in_single_precision(num_steps, coarsest):
    gru = make(np.float32)
    expected = solve(gru, num_steps, SERIAL, comm=None)
    options = in_parallel(2, 8, coarsest, max_iterations=1 + num_steps // 8)
    assert_same_solution(solve(gru, num_steps, options), expected, 1e-5)


@pytest.mark.parametrize("coarsest", ["gather", "in_turn"])
@pytest.mark.parametrize(("num_steps", "levels", "coarsening"), [(97, 3, (4, 2)), (128, 4, 2)])
def test_few_iterations_equal_those_of_one_process(num_steps, levels, coarsening, coarsest):
    """Every iterate is that of one process, so each coarse step reads what it would there."""
    gru = make(layers=3)
    forward = in_parallel(levels, coarsening, coarsest, max_iterations=3)
    backward = in_parallel(levels, coarsening, coarsest, max_iterations=2)
    expected = solve(gru, num_steps, forward, backward, comm=None)
    actual = solve(gru, num_steps, forward, backward)
    assert_same_solution(actual, expected, 1e-12)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one.residuals, other.residuals, rtol=1e-9)


def test_time_stepping_from_rank_to_rank():
    gru = make()
    assert_same_solution(solve(gru, 24, SERIAL), solve(gru, 24, SERIAL, comm=None), 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("coarsest", ["gather", "in_turn"])
def test_one_point_at_a_time_gives_the_bits_of_one_process(coarsest, dtype):
    gru = make(dtype, num_features=9, hidden=20)
    options = in_parallel(3, 4, coarsest, max_iterations=2, driver="loop")
    serial, _ = solve(gru, 64, options, comm=None, batch=25)
    result, _ = solve(gru, 64, options, batch=25)
    np.testing.assert_array_equal(result.gather(), serial.u)
    np.testing.assert_array_equal(result.residuals, serial.residuals)


def test_a_rank_holds_the_inputs_of_its_part():
    gru = make()
    x, _, _ = problem(gru, 128)
    solver = MGRIT(gru, TimeGrid.uniform(0, 128, 128), in_parallel(3, 4, "in_turn"), COMM)
    points = own_inputs(gru, solver, AdjointSolver(solver))
    gru.set_inputs(x, points)
    own = solver.block
    assert {*own} - {0} <= {*points.tolist()}
    assert gru.inputs.shape[0] == points.size <= len(own) + 2 * 16  # steps that reach into it
    total = COMM.sum(np.array([points.size]))[0]
    assert 128 <= total <= 128 + 32 * (COMM.size - 1)
