"""The adjoint solve: gradients against theory, complex steps, differences and plain loops."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, Linearization, MGRITOptions, Propagator, Status, TimeGrid
from pint.models.dahlquist import Dahlquist
from tests.engine_models import Drift, Swirl, backpropagated, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
GAIN = 0.8
"""With it a loss at the last point still depends on the first one, 0.01 for 97 steps."""
TIGHT = 1e-13


def assert_close(actual, desired, tolerance=1e-12):
    """Compare relative to the largest entry."""
    assert np.shape(actual) == np.shape(desired)
    assert np.abs(np.asarray(actual) - desired).max() < tolerance * np.abs(desired).max()


def targets(num_steps):
    return np.random.default_rng(num_steps).normal(size=(num_steps + 1, 3))


def weights(num_steps):
    """How much the loss at each point counts; that at the last point counts most."""
    return np.append(0.2 + 0.1 * np.cos(np.arange(num_steps)), 1.0)


def loss(states):
    """Return J = sum_i c_i |u_i - d_i|^2 / 2; analytic, so that states may be complex."""
    n = len(states) - 1
    return (weights(n)[:, None] * (states - targets(n)) ** 2).sum() / 2


def d_loss(states):
    """Return dj_i/du_i in row i."""
    n = len(states) - 1
    return weights(n)[:, None] * (states - targets(n))


def loss_at(times, start, parameters):
    """Return J for an initial value and parameters, by a plain loop."""
    propagator = Swirl(GAIN, dtype=np.result_type(start, parameters))
    propagator.parameters = parameters
    return loss(stepped(propagator, times, start))


def solved(propagator, times, forward=None, backward=None, all_points=True):
    """Return forward and adjoint result, for a loss at all points or at the last one."""
    tight = MGRITOptions(levels=3, tolerance=TIGHT)
    solver = MGRIT(propagator, times, forward or tight)
    result = solver.solve(START)
    d_states = d_loss(result.u)
    sources = d_states[::-1] if all_points else None
    return result, AdjointSolver(solver, backward).solve(result, d_states[-1], sources)


def serial_gradients(propagator, times, all_points=True):
    """Return w_0..w_N and the parameter gradient by plain loops."""
    states = stepped(propagator, times, START)
    d_states = d_loss(states)
    if not all_points:
        d_states[:-1] = 0
    return backpropagated(propagator, times, states, d_states)


# --- Exact values --------------------------------------------------------------------------------


def test_gradient_of_the_last_state():
    times = uneven_times(20)
    solver = MGRIT(Dahlquist(-0.7), times, MGRITOptions(tolerance=1e-15))
    gradient = AdjointSolver(solver).solve(solver.solve(2.0), 1.0)
    dt = np.diff(times)
    growth = np.prod(1 / (1 + 0.7 * dt))
    assert gradient.initial_gradient == pytest.approx(growth, rel=1e-13)
    slope = 2.0 * growth * (dt / (1 + 0.7 * dt)).sum()
    assert gradient.parameter_gradient[0] == pytest.approx(slope, rel=1e-13)


# --- Derivatives ---------------------------------------------------------------------------------


def gradient_and_direction(num_steps, all_points=True):
    """Return the solver's gradient by (u_0, theta), and a direction in that space."""
    _, adjoint = solved(Swirl(GAIN), uneven_times(num_steps))
    gradient = np.concatenate([adjoint.initial_gradient, adjoint.parameter_gradient])
    return gradient, np.random.default_rng(1).normal(size=gradient.size)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 24, 29])
def test_gradient_is_the_complex_step_derivative(num_steps):
    """dJ v = Im J(x + i h v) / h, exact to rounding (Squire & Trapp, SIAM Review 40, 1998)."""
    gradient, direction = gradient_and_direction(num_steps)
    moved = np.concatenate([START, Swirl(GAIN).parameters]) + 1e-30j * direction
    derivative = loss_at(uneven_times(num_steps), moved[:3], moved[3:]).imag / 1e-30
    assert gradient @ direction == pytest.approx(derivative, rel=1e-12)


def test_taylor_remainder_has_slope_two():
    times, h = uneven_times(29), 0.5 ** np.arange(8, 16)
    gradient, direction = gradient_and_direction(29)
    at = np.concatenate([START, Swirl(GAIN).parameters])
    moved = [at + step * direction for step in h]
    remainder = [
        abs(loss_at(times, x[:3], x[3:]) - loss_at(times, at[:3], at[3:]) - step * slope)
        for x, step, slope in zip(moved, h, [gradient @ direction] * h.size, strict=True)
    ]
    slope, _ = np.polyfit(np.log(h), np.log(remainder), 1)
    assert slope == pytest.approx(2.0, abs=0.03)


def test_every_component_by_central_differences():
    times, h = uneven_times(24), 1e-5
    gradient, _ = gradient_and_direction(24)
    at = np.concatenate([START, Swirl(GAIN).parameters])
    differences = []
    for unit in np.eye(at.size):
        ahead, behind = at + h * unit, at - h * unit
        change = loss_at(times, ahead[:3], ahead[3:]) - loss_at(times, behind[:3], behind[3:])
        differences.append(change / (2 * h))
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("num_steps", [24, 29])
def test_adjoint_identity_of_the_whole_solve(num_steps):
    """<w, J v> = <J^T w, v> for J = du_N/du_0, with J v from a complex step."""
    times = uneven_times(num_steps)
    rng = np.random.default_rng(2)
    w, v = rng.normal(size=(2, 3))
    tangent = stepped(Swirl(GAIN, dtype=complex), times, START + 1e-30j * v)[-1].imag / 1e-30
    solver = MGRIT(Swirl(GAIN), times, MGRITOptions(levels=3, tolerance=TIGHT))
    transposed = AdjointSolver(solver).solve(solver.solve(START), w).initial_gradient
    assert transposed @ v == pytest.approx(w @ tangent, rel=1e-12)


# --- Plain loops ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_steps", "batched"),
    [*((N, batched) for N in (1, 2, 5, 24, 29) for batched in (False, True)), (97, True)],
)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("relax", [0, 1])
def test_gradients_are_those_of_serial_backpropagation(num_steps, m, levels, relax, batched):
    times = uneven_times(num_steps)
    coarsest = "gather" if batched else "pipelined"
    options = MGRITOptions(
        levels=levels, coarsening=m, relax=relax, tolerance=TIGHT, coarsest=coarsest
    )
    for all_points in (True, False):
        w, d_parameters = serial_gradients(Swirl(GAIN), times, all_points)
        _, adjoint = solved(Swirl(GAIN, batched), times, options, all_points=all_points)
        assert adjoint.status in (Status.CONVERGED, Status.STEPPED)
        assert_close(adjoint.w, w[::-1])
        assert np.array_equal(adjoint.initial_gradient, adjoint.w[-1])
        assert_close(adjoint.parameter_gradient, d_parameters)
        assert adjoint.last == num_steps


def test_float32_gradients():
    times = uneven_times(97)
    options = MGRITOptions(levels=3, coarsening=4, max_iterations=14)
    w, d_parameters = serial_gradients(Swirl(GAIN), times)
    for batched in (False, True):
        _, adjoint = solved(Swirl(GAIN, batched, np.float32), times, options)
        assert adjoint.initial_gradient.dtype == np.float32
        assert adjoint.parameter_gradient.dtype == np.float32
        assert_close(adjoint.initial_gradient, w[0], 1e-5)
        assert_close(adjoint.parameter_gradient, d_parameters, 1e-5)


@pytest.mark.parametrize("relax", [0, 1])
@pytest.mark.parametrize("num_steps", [24, 29])
def test_adjoint_is_exact_after_the_same_iterations_and_no_earlier(num_steps, relax):
    """The adjoint problem is an ordinary one: F-relaxation needs N/m iterations, FCF N/(2m)."""
    m, times = 4, uneven_times(num_steps)
    w, _ = serial_gradients(Swirl(GAIN), times)
    enough = -(-(num_steps // m) // (relax + 1))
    for iterations in range(1, enough + 1):
        backward = MGRITOptions(
            levels=3,
            coarsening=m,
            relax=relax,
            max_iterations=iterations,
            skip_first_down=False,
            min_coarse=1,
        )
        _, adjoint = solved(Swirl(GAIN), times, backward=backward)
        error = np.abs(adjoint.w - w[::-1]).max(axis=1)
        first_wrong = m * (iterations * (relax + 1) + 1)
        assert error[:first_wrong].max() < 1e-12
        if iterations < enough:
            assert error[first_wrong] > 1e-7


def test_backward_options_are_its_own():
    backward = MGRITOptions(levels=2, max_iterations=3, skip_first_down=False)
    result, adjoint = solved(Swirl(), uneven_times(24), backward=backward)
    assert result.status is Status.CONVERGED
    assert adjoint.status is Status.COMPLETED
    assert adjoint.residuals.shape == (3,)
    assert adjoint.seconds > 0
    _, like_forward = solved(Swirl(), uneven_times(24))
    assert like_forward.status is Status.CONVERGED


def test_solving_again_is_linear_and_leaves_results_alone():
    times = uneven_times(24)
    solver = MGRIT(Swirl(GAIN, batched=True), times, MGRITOptions(tolerance=TIGHT))
    adjoint_solver = AdjointSolver(solver)
    result = solver.solve(START)
    first = adjoint_solver.solve(result, np.array([1.0, 0.0, 0.0]))
    kept = first.w.copy(), first.initial_gradient.copy(), first.parameter_gradient.copy()
    twice = adjoint_solver.solve(result, np.array([2.0, 0.0, 0.0]))
    assert_close(twice.w, 2 * first.w)
    np.testing.assert_allclose(twice.parameter_gradient, 2 * first.parameter_gradient, rtol=1e-12)
    # At another forward solution the derivative is another one.
    elsewhere = adjoint_solver.solve(solver.solve(-START), np.array([1.0, 0.0, 0.0]))
    assert not np.allclose(elsewhere.w, first.w, atol=1e-3)
    still = first.w, first.initial_gradient, first.parameter_gradient
    assert all(np.array_equal(*pair) for pair in zip(still, kept, strict=True))
    states = stepped(Swirl(GAIN), times, -START)
    d_states = np.zeros_like(states)
    d_states[-1, 0] = 1.0
    w, _ = backpropagated(Swirl(GAIN), times, states, d_states)
    assert_close(elsewhere.initial_gradient, w[0])


def test_source_of_the_last_point_is_ignored():
    times = uneven_times(11)
    solver = MGRIT(Swirl(), times, MGRITOptions(tolerance=TIGHT))
    result = solver.solve(START)
    sources = d_loss(result.u)[::-1].copy()
    first = AdjointSolver(solver).solve(result, sources[0].copy(), sources)
    sources[0] = 1e6
    second = AdjointSolver(solver).solve(result, first.w[0], sources)
    assert np.array_equal(first.w, second.w)


def test_grids_whose_reversed_points_rounding_joins():
    """Backward steps take their times from the forward grid, and so are not of length zero."""
    times = np.array([0.0, 1e-20, 0.3, 0.7, 1.0, 1.5, 1.6])
    w, d_parameters = serial_gradients(Swirl(GAIN), times)
    _, adjoint = solved(Swirl(GAIN), times)
    assert_close(adjoint.initial_gradient, w[0])
    assert_close(adjoint.parameter_gradient, d_parameters)


# --- Levels that differ in space -----------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True], ids=["loop", "stack"])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
def test_levels_that_differ_in_space(batched, coarsest):
    """The gradient of <w, u_N> by u_0 is the transpose of the product of all steps, times w."""
    times = np.linspace(0, 0.05, 38)
    start, w = np.random.default_rng(3).normal(size=(2, 15))
    options = MGRITOptions(levels=3, relax=1, tolerance=1e-13, coarsest=coarsest)
    solver = MGRIT(Drift(batched=batched), times, options)
    result = solver.solve(start)
    adjoint = AdjointSolver(solver).solve(result, w)
    assert adjoint.status is Status.CONVERGED
    columns = np.array([stepped(Drift(), times, unit)[-1] for unit in np.eye(15)]).T
    assert np.abs(columns - columns.T).max() > 0.1 * columns.max()
    assert_close(result.u[-1], columns @ start)
    assert_close(adjoint.initial_gradient, columns.T @ w)
    assert adjoint.parameter_gradient.shape == (0,)


def test_coarse_steps_are_transposed_at_restricted_states():
    times = np.linspace(0, 0.05, 29)  # a multiple of both factors: equal C-points
    start, w = np.random.default_rng(3).normal(size=(2, 15))
    asked = {}

    class Noting(Drift):
        def adjoint_step(self, w, u, step):
            asked[step.level, step.first - 1] = u
            return super().adjoint_step(w, u, step)

    solver = MGRIT(Noting(), times, MGRITOptions(levels=3, max_iterations=3))
    result = solver.solve(start)
    AdjointSolver(solver).solve(result, w)
    assert {level for level, _ in asked} == {0, 1, 2}
    for (level, point), u in asked.items():
        assert np.array_equal(u, result.u[point, 2**level - 1 :: 2**level])


# --- The contract --------------------------------------------------------------------------------


def test_a_model_may_share_work_between_applications_of_its_derivative():
    class Taped(Swirl):
        made = 0

        def linearize(self, u, step):
            type(self).made += 1
            return Tape(self, u, step)

        def adjoint_step(self, w, u, step):
            raise AssertionError("the tape stands in for this")

    class Tape(Linearization):
        def __init__(self, propagator, u, step):
            super().__init__(propagator, u, step)
            Q, W = propagator.matrices(step)
            bend = propagator.bend(u, step)
            self.jacobian = Q + 0.4 * GAIN * (1 - bend**2)[:, :, None] * W

        def adjoint(self, w, rows):
            return (w[:, None] @ self.jacobian[rows])[:, 0]

    times = uneven_times(29)
    w, d_parameters = serial_gradients(Swirl(GAIN), times)
    _, adjoint = solved(Taped(GAIN, batched=True), times)
    assert_close(adjoint.initial_gradient, w[0])
    assert_close(adjoint.parameter_gradient, d_parameters)
    assert Taped.made == 3  # once for each level


def test_steps_to_transpose_are_known_beforehand():
    forward = MGRIT(Swirl(), uneven_times(7), MGRITOptions(levels=1))
    stacks = AdjointSolver(forward, MGRITOptions(coarsening=3)).own_steps()
    assert [step.level for step in stacks] == [0, 1]
    covered = [list(zip(s.first.tolist(), s.last.tolist(), strict=True)) for s in stacks]
    assert covered == [[(i, i) for i in range(7, 0, -1)], [(5, 7), (2, 4)]]
    assert stacks[1].start.tolist() == forward.grid.times[[4, 1]].tolist()
    assert stacks[1].stop.tolist() == forward.grid.times[[7, 4]].tolist()


def test_coarse_adjoint_steps_are_the_transposes_at_the_forward_states():
    """Steps, states and times that the model is asked for, on both levels of N = 7, m = 3."""

    class Noting(Swirl):
        calls = []  # noqa: RUF012

        def adjoint_step(self, w, u, step):
            self.calls.append((step, u.copy()))
            return super().adjoint_step(w, u, step)

    times = uneven_times(7)
    forward = MGRITOptions(levels=1)
    backward = MGRITOptions(coarsening=3, max_iterations=2)
    result, _ = solved(Noting(GAIN), times, forward, backward)
    asked = {(step.level, step.first): (step, u) for step, u in Noting.calls}
    # Reversed C-points 0, 3, 6 are the forward points 7, 4, 1.
    expected = {(0, i): (i, i) for i in range(1, 8)} | {(1, 5): (5, 7), (1, 2): (2, 4)}
    assert {(key): (s.first, s.last) for key, (s, _) in asked.items()} == expected
    for step, u in asked.values():
        assert (step.start, step.stop) == (times[step.first - 1], times[step.last])
        assert np.array_equal(u, result.u[step.first - 1])
        assert type(step.start) is float


def test_models_without_a_derivative_are_told_what_to_write():
    class NoAdjoint(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return u / 2

    class NoGradient(NoAdjoint):
        parameters = np.ones(1)

        def adjoint_step(self, w, u, step):
            return w / 2

    for model, message in (
        (NoAdjoint(), "NoAdjoint has no adjoint_step: write it to solve the adjoint problem"),
        (NoGradient(), "NoGradient has parameters but no adjoint_gradient: write it"),
    ):
        solver = MGRIT(model, np.arange(9.0))
        result = solver.solve(1.0)
        with pytest.raises(NotImplementedError, match=message):
            AdjointSolver(solver).solve(result, 1.0)


def test_gradients_of_the_wrong_shape_are_refused():
    solver = MGRIT(Swirl(), np.arange(9.0))
    result = solver.solve(START)
    adjoint = AdjointSolver(solver)
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(3,\)"):
        adjoint.solve(result, np.ones(2))
    with pytest.raises(ValueError, match=r"sources have shape \(8, 3\) on rank 0, expected \(9"):
        adjoint.solve(result, np.ones(3), np.zeros((8, 3)))


def test_objects_of_another_class_are_refused():
    forward = MGRIT(Dahlquist(), TimeGrid.uniform(0, 1, 16), MGRITOptions(tolerance=1e-9))
    with pytest.raises(TypeError, match=r"forward must be of MGRIT, got"):
        AdjointSolver(Dahlquist())
    with pytest.raises(TypeError, match=r"result must be of Result, got array"):
        AdjointSolver(forward).solve(forward.solve(1.0).u, 1.0)


def test_a_result_of_another_solver_is_refused():
    grids = [TimeGrid.uniform(0, length, 16) for length in (1, 2)]
    first, second = (MGRIT(Dahlquist(), grid, MGRITOptions(tolerance=1e-9)) for grid in grids)
    with pytest.raises(ValueError, match="not one of the forward solver"):
        AdjointSolver(first).solve(second.solve(1.0), 1.0)
