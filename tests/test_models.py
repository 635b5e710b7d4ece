"""What all models must keep: contract, adjoints, orders, and MGRIT's limit; then each one's own."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize

from pint import (
    MGRIT,
    AdjointSolver,
    MGRITOptions,
    Objective,
    Status,
    Step,
    TimeGrid,
    check_propagator,
    solve,
    value_and_gradient,
)
from pint.models import (
    advection,
    allen_cahn,
    arenstorf,
    bdf2,
    brusselator,
    burgers,
    control,
    dahlquist,
    heat,
    heat2d,
    lorenz,
)
from pint.models.heat import Heat
from pint.models.heat2d import Heat2D
from pint.models.problem import Problem
from tests.model_problems import PROBLEMS

STEPPING = MGRITOptions(levels=1)
EACH = pytest.mark.parametrize("name", PROBLEMS)


def middle(problem):
    """Return a time amid the span, and the solution there."""
    t = 0.43 * problem.span[0] + 0.57 * problem.span[1]
    return t, np.asarray(problem.exact(t))


def short_grid(problem, num_steps, first=0.57):
    """Return a part of the span, of steps as long as the problem's."""
    begin, end = problem.span
    start = begin + first * (end - begin)
    return TimeGrid.uniform(start, start + (end - begin) * num_steps / problem.num_steps, num_steps)


def steps_from(t, dt, model):
    """Return a stack of three steps of uneven length."""
    starts, index = t + dt * np.array([0.0, 1.0, 2.5]), np.arange(1, 4)
    return Step(0, starts, starts + dt * np.array([1.0, 1.5, 0.7]), index, index)


def slope_at_zero(function, h=0.25):
    """Return function'(0) from six central differences, extrapolated: error O(h^12)."""
    rows = [(function(h / 2**k) - function(-h / 2**k)) / (2 * h / 2**k) for k in range(6)]
    for k in range(1, 6):
        rows = [(4**k * b - a) / (4**k - 1) for a, b in pairwise(rows)]
    return rows[0]


# --- All models ----------------------------------------------------------------------------------


@EACH
def test_contract(name):
    problem = PROBLEMS[name]
    t, u = middle(problem)
    dt = (problem.span[1] - problem.span[0]) / problem.num_steps
    times = t + dt * np.array([0.0, 1.0, 2.5, 3.2, 4.0, 5.5, 6.2, 7.0, 8.0, 9.0])
    assert "adjoint_gradient on level 2" in check_propagator(problem.propagator, u, times)


@EACH
def test_adjoint_identity(name):
    """<w, J v> = <J^T w, v>, with J v by differences of order 12."""
    problem, rng = PROBLEMS[name], np.random.default_rng(3)
    t, u = middle(problem)
    dt = (problem.span[1] - problem.span[0]) / problem.num_steps
    step = steps_from(t, dt, problem.propagator)
    u = np.stack([u, 0.99 * u, 1.01 * u])
    w, v = rng.normal(size=(2, *u.shape))
    v *= 0.1
    moved = slope_at_zero(lambda h: problem.propagator.step(u + h * v, step))
    left = math.fsum((w * moved).ravel())
    right = math.fsum((problem.propagator.adjoint_step(w, u, step) * v).ravel())
    assert abs(left - right) <= 1e-12 * np.linalg.norm(w) * np.linalg.norm(moved)


ONE_GRID = [name for name in PROBLEMS if name == "control" or "bdf2" in name]
"""Problems made for one grid; tests of their own look at finer ones."""


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in ONE_GRID])
def test_observed_order(name):
    """Solutions differ by (1 - 2^-p) dt^p: no reference but themselves."""
    problem = PROBLEMS[name]
    model = type(problem.propagator)
    num_steps, span = {
        "dahlquist, rk4": (100, 1.0),
        "heat, crank_nicolson": (64, 1.0),
        "heat, sdirk2": (64, 1.0),
        "advection": (512, 1.0),
        "burgers": (128, 0.25),
        "heat2d": (128, 1.0),
        "allen_cahn": (128, 1.0),
        "brusselator, rk4": (400, 0.5),
        "brusselator, dormand_prince": (300, 0.25),
        "arenstorf, rk4": (400, 0.15),
        "arenstorf, dormand_prince": (100, 0.1),
        "lorenz, rk4": (200, 0.06),
        "lorenz, euler": (1600, 0.06),
    }.get(name, (128, 1.0))
    begin, end = problem.span
    # Arenstorf's orbit from where it is far from the moon: there, uniform steps are right.
    first = begin + 0.25 * (end - begin) * (model is arenstorf.Arenstorf)
    start = np.asarray(problem.exact(first)) if first else problem.initial_value
    stop = first + span * (end - begin)
    states = [
        solve(problem.propagator, TimeGrid.uniform(first, stop, num_steps * 2**k), start, STEPPING)
        for k in range(3)
    ]
    coarse, fine = (np.abs(a.u - b.u[::2]).max() for a, b in pairwise(states))
    assert math.log2(coarse / fine) == pytest.approx(problem.order, abs=0.1)


@EACH
def test_taylor_remainder_of_an_objective(name):
    """J(x + h d) - J(x) - h <gradient, d> shrinks with h^2, for parameters and initial value."""
    problem, rng = PROBLEMS[name], np.random.default_rng(4)
    model, grid = problem.propagator, short_grid(problem, 12)
    if name == "control":
        grid = problem.grid()
    _, u = middle(problem)
    target = u + 0.1 * rng.normal(size=u.shape)

    def running(u, index, times):
        distance = (u - target).reshape(len(u), -1)
        weight = np.exp(-times) * (index > 0)
        slopes = (weight * (distance**2).T).T.sum(axis=1), (2 * weight * distance.T).T
        return slopes[0], slopes[1].reshape(u.shape)

    objective = Objective(
        running=running,
        terminal=lambda u: (np.sum(u**3), 3 * u**2),
        of_parameters=lambda theta: (np.sum(theta**4), 4 * theta**3),
    )
    solver = AdjointSolver(MGRIT(model, grid, STEPPING))
    kept = model.parameters.copy()
    d_u, d_theta = rng.normal(size=u.shape), kept * rng.normal(size=kept.shape)

    def evaluate(h):
        model.parameters[:] = kept + h * d_theta
        try:
            return value_and_gradient(objective, solver, u + h * d_u)
        finally:
            model.parameters[:] = kept

    at = evaluate(0.0)
    slope = np.sum(at.initial_gradient * d_u) + at.parameter_gradient @ d_theta
    sizes = 0.02 / 2 ** np.arange(1, 6) * (0.05 if "arenstorf" in name else 1)
    remainders = [abs(evaluate(h).value - at.value - h * slope) for h in sizes]
    assert np.polyfit(np.log(sizes), np.log(remainders), 1)[0] == pytest.approx(2, abs=0.1)


@EACH
@pytest.mark.parametrize("driver", ["loop", "auto"])
def test_mgrit_converges_to_stepping(name, driver):
    problem = PROBLEMS[name]
    grid = problem.grid() if name == "control" else short_grid(problem, 61)
    _, u = middle(problem)
    options = MGRITOptions(levels=3, relative_tolerance=1e-13, driver=driver, max_iterations=20)
    result = MGRIT(problem.propagator, grid, options).solve(u)
    stepped = solve(problem.propagator, grid, u, STEPPING).u
    assert result.status is Status.CONVERGED
    assert np.abs(result.u - stepped).max() <= 1e-11 * np.abs(stepped).max()


@pytest.mark.parametrize(
    "module",
    [
        *(dahlquist, heat, heat2d, advection, burgers, brusselator),
        *(arenstorf, allen_cahn, control, lorenz),
    ],
)
def test_error_against_the_known_solution(module):
    """At the problem's own resolution it is small; how it shrinks is tested elsewhere."""
    problem = module.problem()
    result = solve(problem.propagator, problem.grid(), problem.initial_value, STEPPING)
    assert 0 < problem.error(result) < 0.03


@pytest.mark.parametrize(
    ("make", "time_ratio", "order"),
    [
        (lambda k: heat2d.problem(8 * k + 1), 4, 2),
        (lambda k: burgers.problem(64 * k + 1), 4, 2),
        (lambda k: allen_cahn.problem(32 * k), 4, 2),
        (lambda k: advection.problem(128 * k), 2, 1),
    ],
    ids=["heat2d", "burgers", "allen_cahn", "advection"],
)
def test_order_in_space(make, time_ratio, order):
    """Nodes and steps grow so that both errors shrink alike, against the known solution."""
    errors = []
    for k in (1, 2):
        problem = make(k)
        grid = problem.grid(64 * time_ratio ** (k - 1))
        result = solve(problem.propagator, grid, problem.initial_value, STEPPING)
        errors.append(problem.error(result))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_problems_refuse_initial_values_of_another_shape():
    with pytest.raises(ValueError, match=r"initial_value has shape \(2,\), expected \(\)"):
        Problem(
            name="wrong",
            propagator=dahlquist.Dahlquist(),
            initial_value=np.zeros(2),
            span=(0.0, 1.0),
            num_steps=4,
            exact=lambda t: np.zeros(2),
            order=1,
            source="none",
        )


# --- Dahlquist -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "amplification"),
    [
        ("backward_euler", lambda z: 1 / (1 - z)),
        ("forward_euler", lambda z: 1 + z),
        ("trapezoidal", lambda z: (2 + z) / (2 - z)),
        ("rk4", lambda z: sum(z**k / math.factorial(k) for k in range(5))),
    ],
)
def test_stability_functions(method, amplification):
    grid = np.array([0.0, 0.3, 0.4, 1.0])
    expected = np.cumprod([1, *(amplification(-0.7 * dt) for dt in np.diff(grid))])
    for driver in ("loop", "stack", "compiled"):
        options = MGRITOptions(levels=1, driver=driver)
        result = solve(dahlquist.Dahlquist(-0.7, method), grid, 1.0, options)
        np.testing.assert_allclose(result.u, expected, rtol=1e-14)


def test_sdirk2_is_alexanders_method():
    """Its two stages, written out; and it forgets a fast component at once."""
    gamma, z = 1 - 1 / math.sqrt(2), -0.8
    k1 = z / (1 - gamma * z)
    k2 = z * (1 + (1 - gamma) * k1) / (1 - gamma * z)
    step = Step(0, np.zeros(1), np.ones(1), np.ones(1, int), np.ones(1, int))
    (u,) = dahlquist.Dahlquist(z, "sdirk2").step(np.ones(1), step)
    assert u == pytest.approx(1 + (1 - gamma) * k1 + gamma * k2, rel=1e-14)
    (u,) = dahlquist.Dahlquist(-1e9, "sdirk2").step(np.ones(1), step)
    assert abs(u) < 1e-8


# --- Heat ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "amplification"),
    [
        ("crank_nicolson", lambda z: (2 + z) / (2 - z)),
        ("sdirk2", lambda z: (1 + (math.sqrt(2) - 1) * z) / (1 - (1 - math.sqrt(0.5)) * z) ** 2),
    ],
)
@pytest.mark.parametrize("num_nodes", [3, 4, 9])
def test_sine_modes_shrink_as_the_stability_function_says(method, amplification, num_nodes):
    model = Heat(num_nodes, 2.0, 0.7, method=method)
    dx, times = 2.0 / (num_nodes - 1), np.array([0.0, 0.1, 0.15, 2.0])
    for k in range(1, num_nodes - 1):
        mode = np.sin(k * np.pi * model.nodes / 2.0)
        rate = -0.7 * (2 / dx * np.sin(k * np.pi * dx / 4.0)) ** 2
        shrunk = np.cumprod([1, *(amplification(rate * dt) for dt in np.diff(times))])
        for driver in ("loop", "stack", "compiled"):
            result = solve(model, times, mode, MGRITOptions(levels=1, driver=driver))
            np.testing.assert_allclose(result.u, shrunk[:, None] * mode, rtol=0, atol=1e-14)


# --- Heat in 2D ----------------------------------------------------------------------------------


def test_modes_in_2d_decay_as_the_eigenvalues_say():
    n, kappa, dx = 9, 0.7, 2.0 / 8
    x, times = np.linspace(0, 2.0, n), np.array([0.0, 0.1, 0.15, 2.0])
    for j, k in ((1, 1), (2, 5), (7, 3)):
        mode = np.outer(np.sin(j * np.pi * x / 2), np.sin(k * np.pi * x / 2))
        mu = sum((2 / dx * np.sin(p * np.pi * dx / 4)) ** 2 for p in (j, k))
        shrunk = np.cumprod([1, *(1 / (1 + kappa * mu * np.diff(times)))])
        result = solve(Heat2D(n, 2.0, kappa), times, mode, STEPPING)
        np.testing.assert_allclose(result.u, shrunk[:, None, None] * mode, rtol=0, atol=1e-13)


def test_steps_of_one_length_are_factorised_once():
    problem = heat2d.problem(5)
    grid = TimeGrid.uniform(0.0, 0.3, 1000)  # lengths that rounding makes differ
    assert np.unique(np.diff(grid.times)).size > 5
    solve(problem.propagator, grid, problem.initial_value, STEPPING)
    assert problem.propagator._factorised.cache_info().misses == 1


# --- Advection, Burgers, Allen-Cahn --------------------------------------------------------------


def test_an_advection_step_solves_the_upwind_system():
    rng, model = np.random.default_rng(0), advection.Advection(7, 2.0, 1.5)
    u = rng.normal(size=(3, 7))
    step = steps_from(0.0, 0.2, model)
    x, c = model.step(u, step), (1.5 * step.dt * 7 / 2.0)[:, None]
    np.testing.assert_allclose((1 + c) * x - c * np.roll(x, 1, axis=1), u, atol=1e-14)


def test_a_burgers_step_solves_the_nonlinear_system():
    model, rng = burgers.Burgers(6, (0.0, 1.0), 0.1, (0.4, -0.2)), np.random.default_rng(1)
    u, step = rng.normal(size=(3, 6)), steps_from(0.0, 0.05, None)
    x = model.step(u, step)
    assert x[:, [0, -1]].tolist() == [[0.4, -0.2]] * 3
    for row in range(3):
        for i in range(1, 5):
            left, here, right = x[row, i - 1 : i + 2]
            flux = (right**2 / 2 - left**2 / 2) / (2 * 0.2)
            bend = (left - 2 * here + right) / 0.2**2
            assert here + step.dt[row] * (flux - 0.1 * bend) == pytest.approx(u[row, i], abs=1e-13)


def test_where_newton_fails_a_solve_says_so():
    """Far too long a step for a viscosity that the nodes do not resolve."""
    model = burgers.Burgers(9, viscosity=1e-3)
    u = np.random.default_rng(2).normal(size=9)
    with pytest.raises(ValueError, match="step on level 0 returned NaN or inf"):
        solve(model, np.array([0.0, 1.0, 2.0]), u)


def test_allen_cahn_diffuses_cosine_modes():
    """A tiny one shrinks by its eigenvalue, and by the reaction's slope at 0, which is -a."""
    n, eps = 8, 0.05
    model = allen_cahn.AllenCahn(n)
    tiny = 1e-9 * np.outer(np.cos(2 * np.pi * model.centers), np.cos(3 * np.pi * model.centers))
    mu = sum((2 * n * np.sin(k * np.pi / (2 * n))) ** 2 for k in (2, 3))
    step = steps_from(0.0, 0.1, model)
    expected = (1 - 0.25 * step.dt) / (1 + eps**2 * mu * step.dt)
    x = model.step(np.stack([tiny] * 3), step)
    np.testing.assert_allclose(x, expected[:, None, None] * tiny, rtol=0, atol=1e-17)


# --- Brusselator, Arenstorf ----------------------------------------------------------------------


def test_brusselator_rests_where_its_reactions_balance():
    """x = A, y = B / A is its fixed point."""
    model = brusselator.Brusselator(2.0, 3.0)
    u = np.array([[2.0, 1.5]])
    step = Step(0, np.zeros(1), np.ones(1), np.ones(1, int), np.ones(1, int))
    np.testing.assert_allclose(model.step(u, step), u, rtol=1e-15)


def test_arenstorf_orbit_closes_after_the_published_period():
    """The reference solution returns to its begin, which no error of ours could make it do."""
    problem = arenstorf.problem()
    miss = problem.exact(arenstorf.PERIOD) - problem.initial_value
    assert np.abs(miss[:2]).max() < 1e-9
    result = solve(problem.propagator, problem.grid(40_000), problem.initial_value, STEPPING)
    assert np.abs(result.u[-1, :2] - problem.initial_value[:2]).max() < 1e-6


def test_arenstorf_steps_keep_the_jacobi_integral():
    moon = arenstorf.MOON

    def jacobi(u):
        x, y, vx, vy = u
        earth, to_moon = math.hypot(x + moon, y), math.hypot(x - 1 + moon, y)
        return x**2 + y**2 + 2 * (1 - moon) / earth + 2 * moon / to_moon - vx**2 - vy**2

    problem = arenstorf.problem()
    t, u = middle(problem)
    (new,) = problem.propagator.step(
        u[None], Step(0, np.array([t]), np.array([t + 0.01]), np.ones(1, int), np.ones(1, int))
    )
    assert np.abs(new - u).max() > 1e-3
    assert jacobi(new) == pytest.approx(jacobi(u), abs=1e-11)


# --- BDF2 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "steps"),
    [(dahlquist.problem(), 100), (heat.problem(18), 100), (burgers.problem(34), 50)],
    ids=["dahlquist", "heat", "burgers"],
)
def test_order_of_bdf2(problem, steps):
    """First values of the pairs, on grids twice and four times as fine."""
    made = [bdf2.pairs(problem, steps * 2**k) for k in range(3)]
    states = [solve(p.propagator, p.grid(), p.initial_value, STEPPING).u[:, 0] for p in made]
    coarse, fine = (np.abs(a - b[::2]).max() for a, b in pairwise(states))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.1)


def test_bdf2_is_exact_for_parabolas():
    """u' = f(t) with u quadratic, on steps of any length: the formula differentiates it exactly."""
    # At the one inner node, u_xx = -8 u there; a source makes up for it.
    model = Heat(3, profile=np.ones(3), amplitude=lambda t: 2 * t + 8 * t * t)
    grid = np.array([1.0, 1.5, 2.7, 3.1])
    start = np.array([[0.0, t * t, 0.0] for t in (1.0, 1.3)])
    result = solve(bdf2.BDF2(model, 0.3), grid, start, STEPPING)
    np.testing.assert_allclose(result.u[:, 0, 1], grid**2, rtol=1e-13)
    np.testing.assert_allclose(result.u[:, 1, 1], (grid + 0.3) ** 2, rtol=1e-13)


def test_bdf2_refuses_what_it_cannot_step():
    with pytest.raises(ValueError, match="needs a model that steps by backward Euler"):
        bdf2.BDF2(brusselator.Brusselator(), 0.1)
    with pytest.raises(ValueError, match="needs a model that steps by backward Euler"):
        bdf2.BDF2(dahlquist.Dahlquist(-1.0, "rk4"), 0.1)
    with pytest.raises(ValueError, match=r"distance must be a positive number, got 0\.0"):
        bdf2.BDF2(dahlquist.Dahlquist(), 0.0)
    with pytest.raises(ValueError, match=r"longer than distance 0\.5, got 0\.25"):
        solve(bdf2.BDF2(dahlquist.Dahlquist(), 0.5), np.linspace(0, 1, 5), np.ones(2), STEPPING)


# --- Control -------------------------------------------------------------------------------------


def dense_optimum(num_steps, rate, price):
    """Solve the discrete control problem as one linear least-squares problem."""
    dt = 1 / num_steps
    growth = 1 / (1 - rate * dt)
    lag = np.subtract.outer(np.arange(num_steps), np.arange(num_steps))
    L = np.where(lag >= 0, dt * growth ** (lag + 1.0), 0.0)  # u = L c + free
    free = growth ** np.arange(1.0, num_steps + 1)
    return np.linalg.solve(L.T @ L + price * np.eye(num_steps), -L.T @ free)


def optimised(num_steps, levels):
    model = control.Controlled(num_steps)
    grid = TimeGrid.uniform(0, 1, num_steps)
    options = MGRITOptions(levels=levels, tolerance=1e-12, skip_first_down=False)
    solver, objective = AdjointSolver(MGRIT(model, grid, options)), control.objective(grid)
    evaluations = []

    def function(c):
        model.parameters[:] = c
        previous = evaluations[-1] if evaluations else None
        evaluations.append(value_and_gradient(objective, solver, 1.0, previous))
        return evaluations[-1].value, evaluations[-1].parameter_gradient

    return scipy.optimize.minimize(
        function,
        np.zeros(num_steps),
        jac=True,
        options={"ftol": 1e-16, "gtol": 1e-9},
        method="L-BFGS-B",
    )


@pytest.mark.parametrize("levels", [1, 3])
def test_l_bfgs_b_finds_the_discrete_optimum(levels):
    found = optimised(64, levels)
    np.testing.assert_allclose(found.x, dense_optimum(64, 1.0, 0.1), atol=1e-5)


def test_the_discrete_optimum_tends_to_that_of_pontryagin():
    _, of_time, least = control.optimum()
    errors, values = [], []
    for n in (64, 128):
        c = dense_optimum(n, 1.0, 0.1)
        errors.append(np.abs(c - of_time(np.arange(1, n + 1) / n)).max())
        model = control.Controlled(n)
        model.parameters[:] = c
        solver = AdjointSolver(MGRIT(model, TimeGrid.uniform(0, 1, n), STEPPING))
        found = value_and_gradient(control.objective(solver.forward.grid), solver, 1.0)
        assert np.abs(found.parameter_gradient).max() < 1e-12
        values.append(abs(found.value - least))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)
    assert math.log2(values[0] / values[1]) == pytest.approx(1, abs=0.1)
