"""The heat equation against its discrete eigenmodes, a dense solve, and its exact solutions."""

import math

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Status, Step, TimeGrid, check_propagator, solve
from pint.models.heat import Heat, HeatInSpace, problem

LENGTH, KAPPA = 2.0, 0.7


def stack_of(starts, stops):
    index = np.arange(1, len(starts) + 1)
    return Step(0, np.array(starts), np.array(stops), index, index)


def wave(t):
    return math.cos(t) - math.sin(t)


def driven(num_nodes):
    """u_t = u_xx + sin(x) (cos t - sin t) on [0, pi], whose solution is sin(x) cos(t)."""
    x = np.linspace(0.0, np.pi, num_nodes)
    return Heat(num_nodes, np.pi, profile=np.sin(x), amplitude=wave)


def square(t):
    return t * t


@pytest.mark.parametrize("num_nodes", [3, 4, 5, 8, 33])
def test_sine_modes_decay_as_the_eigenvalues_say(num_nodes):
    """A mode sin(k pi x / L) shrinks by 1 / (1 + 4 c sin^2(k pi dx / (2 L))) in each step."""
    heat = Heat(num_nodes, LENGTH, KAPPA)
    dx, times = LENGTH / (num_nodes - 1), np.array([0.0, 0.1, 0.15, 2.0])
    for k in range(1, num_nodes - 1):
        mode = np.sin(k * np.pi * heat.nodes / LENGTH)
        c = KAPPA * np.diff(times) / dx**2
        shrunk = 1 / (1 + 4 * c * np.sin(k * np.pi * dx / (2 * LENGTH)) ** 2)
        expected = np.cumprod([1, *shrunk])[:, None] * mode
        for driver in ("loop", "stack", "compiled"):
            result = solve(heat, times, mode, MGRITOptions(levels=1, driver=driver))
            np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("num_nodes", [3, 4, 5, 6, 17, 18])
def test_steps_solve_the_linear_system(num_nodes):
    """Each step of a stack has a length of its own, from short to long."""
    rng = np.random.default_rng(num_nodes)
    profile = rng.normal(size=num_nodes)
    heat = Heat(num_nodes, LENGTH, KAPPA, (0.3, -0.2), profile, math.sin)
    u, step = rng.normal(size=(4, num_nodes)), stack_of([0.0, 0.1, 1, 2], [1e-6, 0.2, 5, 1e4])
    new = heat.step(u, step)
    for row in range(4):
        c = KAPPA * step.dt[row] / (LENGTH / (num_nodes - 1)) ** 2
        A = np.diag(np.full(num_nodes, 1 + 2 * c))
        A += np.diag(np.full(num_nodes - 1, -c), 1) + np.diag(np.full(num_nodes - 1, -c), -1)
        A[[0, -1]] = np.eye(num_nodes)[[0, -1]]
        b = u[row] + step.dt[row] * profile * math.sin(step.stop[row])
        b[[0, -1]] = 0.3, -0.2
        np.testing.assert_allclose(new[row], np.linalg.solve(A, b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_nodes", [3, 4, 5, 6, 17, 18])
def test_kernel_and_stack_give_the_same_bits(num_nodes):
    rng = np.random.default_rng(num_nodes)
    heat = Heat(num_nodes, LENGTH, KAPPA, (0.3, -0.2), rng.normal(size=num_nodes), square)
    u, step = rng.normal(size=(5, num_nodes)), stack_of([0, 1, 2, 3, 4], [0.1, 2, 9, 3.1, 5])
    params, out = heat.kernel_params(), np.empty(num_nodes)
    stack = heat.step(u, step)
    for row in (0, 1, 1, 3, 2, 4):  # factors of another step length must not be reused
        heat.kernel(u[row], step.start[row], step.stop[row], 0, params, out)
        assert out.tolist() == stack[row].tolist()


def test_step_into_adds_the_right_hand_side():
    rng = np.random.default_rng(0)
    u, g, out = rng.normal(size=(3, 6, 9))
    heat, step = Heat(9), stack_of(range(6), range(1, 7))
    heat.step_into(u, step, g, out)
    np.testing.assert_allclose(out, heat.step(u, step) + g, rtol=1e-15)


@pytest.mark.parametrize("num_nodes", [5, 6])
def test_contract(num_nodes):
    check_propagator(Heat(num_nodes, LENGTH, KAPPA, (0.3, -0.2)))
    check_propagator(driven(num_nodes))


def error_of(num_nodes, num_steps):
    """Greatest error at time 1 of the driven equation."""
    heat = driven(num_nodes)
    result = solve(heat, TimeGrid.uniform(0, 1, num_steps), np.sin(heat.nodes))
    return np.abs(result.u[-1] - np.sin(heat.nodes) * math.cos(1.0)).max()


def order_of(sizes, errors):
    return -np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def test_first_order_in_time():
    steps = [16, 32, 64, 128]
    errors = [error_of(257, n) for n in steps]
    assert order_of(steps, errors) == pytest.approx(1, abs=0.05)


def test_second_order_in_space():
    """The step is that short that what is left is the error in space."""
    intervals = [4, 8, 16, 32]
    errors = [error_of(n + 1, 100_000) for n in intervals]
    assert order_of(intervals, errors) == pytest.approx(2, abs=0.05)


def test_adjoint_of_the_diffusivity_against_central_differences():
    start, options = np.sin(np.linspace(0, np.pi, 17)) ** 3, MGRITOptions(tolerance=1e-13)
    weight = np.random.default_rng(0).normal(size=17)

    def objective(kappa):
        heat = Heat(17, np.pi, kappa)
        return weight @ solve(heat, TimeGrid.uniform(0, 1, 32), start, options).u[-1]

    forward = MGRIT(Heat(17, np.pi, KAPPA), TimeGrid.uniform(0, 1, 32), options)
    gradient = AdjointSolver(forward).solve(forward.solve(start), weight).parameter_gradient
    h = 1e-5
    difference = (objective(KAPPA + h) - objective(KAPPA - h)) / (2 * h)
    assert gradient.tolist() == [pytest.approx(difference, rel=1e-8)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2,), "num_nodes must be at least 3, got 2"),
        ((5, 0.0), r"length must be a positive number, got 0\.0"),
        ((5, 1.0, -1.0), r"diffusivity must be a positive number, got -1\.0"),
        ((5, 1.0, 1.0, (0, 0), np.ones(5)), "needs both a profile and an amplitude"),
        ((5, 1.0, 1.0, (0, 0), np.ones(4), abs), r"profile has shape \(4,\), expected \(5,\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Heat(*arguments)


@pytest.mark.parametrize("method", ["backward_euler", "sdirk2"])
def test_levels_with_fewer_nodes_converge_to_the_sequential_solution(method):
    """Three coarse levels, of 33, 17 and 17 nodes under 65."""
    coarse = problem(65, method, num_coarsened=2)
    options = MGRITOptions(levels=4, coarsening=2, max_iterations=40, tolerance=1e-11)
    result = MGRIT(coarse.propagator, coarse.grid(128), options).solve(coarse.initial_value)
    assert result.status is Status.CONVERGED
    plain = problem(65, method)
    stepped = MGRIT(plain.propagator, plain.grid(128), MGRITOptions(levels=1))
    expected = stepped.solve(plain.initial_value).u
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("num_nodes", "num_coarsened"), [(64, 1), (9, 3), (35, 2)])
def test_intervals_that_cannot_be_halved(num_nodes, num_coarsened):
    with pytest.raises(ValueError, match=f"{num_nodes} nodes cannot be halved {num_coarsened} t"):
        HeatInSpace(num_nodes, num_coarsened=num_coarsened)
