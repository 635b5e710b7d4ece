"""Lorenz's equations: orders, derivatives, fixed points, and bits."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from pint import MGRIT, AdjointSolver, MGRITOptions, Step, TimeGrid, check_propagator, solve
from pint.models.lorenz import Lorenz

START = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_observed_order(method, order):
    def rate(t, u):
        x, y, z = u
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    exact = solve_ivp(rate, (0, 0.5), START, "DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    steps = [400, 800, 1600] if order == 4 else [3200, 6400, 12800]
    options, model = MGRITOptions(levels=1), Lorenz(method=method)
    grids = [TimeGrid.uniform(0, 0.5, n) for n in steps]
    errors = [np.abs(solve(model, grid, START, options).u[-1] - exact).max() for grid in grids]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_the_centres_of_the_wings_are_at_rest(method):
    """At x = y = sqrt(beta (rho - 1)), z = rho - 1 nothing moves."""
    model = Lorenz(8.0, 20.0, 2.0, method)
    rest = np.array([math.sqrt(38), math.sqrt(38), 19.0])
    new = model.step(rest[None], Step(0, np.zeros(1), np.array([0.1]), 1, 1))
    np.testing.assert_allclose(new[0], rest, rtol=1e-13)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_contract(method):
    done = check_propagator(Lorenz(method=method), TimeGrid.uniform(0, 0.5, 16), START)
    assert {"tangent_step on level 0", "adjoint_gradient on level 2"} <= set(done)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_tangent_and_adjoint_are_transposes(method):
    rng = np.random.default_rng(0)
    u, v, w = 10 * rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    step = TimeGrid.uniform(0, 1, 20).steps(slice(1, 6, 1))
    model = Lorenz(method=method)
    left = np.sum(w * model.tangent_step(v, u, step))
    assert left == pytest.approx(np.sum(model.adjoint_step(w, u, step) * v), rel=1e-12)


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_all_drivers_give_the_same_bits(method):
    grid = TimeGrid.uniform(0, 0.5, 200)
    options = {"levels": 3, "max_iterations": 4, "skip_first_down": False}
    loop, stack, compiled = (
        MGRIT(Lorenz(method=method), grid, MGRITOptions(driver=driver, **options)).solve(START)
        for driver in ("loop", "stack", "compiled")
    )
    assert np.array_equal(loop.u, stack.u)
    assert np.array_equal(loop.u, compiled.u)
    assert np.isfinite(loop.u).all()


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_taylor_remainders_of_a_solve_have_slope_two(method):
    """J = |u_N|^2 / 2 as a function of the initial value and the parameters, at once."""
    grid, options = TimeGrid.uniform(0, 0.4, 64), MGRITOptions(tolerance=1e-12)
    rng = np.random.default_rng(1)
    d_start, d_parameters = rng.normal(size=3), rng.normal(size=3)

    def objective(h):
        model = Lorenz(*(np.array([10.0, 28.0, 8 / 3]) + h * d_parameters), method=method)
        return (solve(model, grid, START + h * d_start).u[-1] ** 2).sum() / 2

    forward = MGRIT(Lorenz(method=method), grid, options)
    result = forward.solve(START)
    gradient = AdjointSolver(forward).solve(result, result.final_state())
    slope = gradient.initial_gradient @ d_start + gradient.parameter_gradient @ d_parameters
    sizes = np.geomspace(1e-4, 1e-2, 5)
    remainders = [abs(objective(h) - objective(0) - h * slope) for h in sizes]
    assert np.polyfit(np.log(sizes), np.log(remainders), 1)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": math.inf}, "rho must be finite, got inf"),
        ({"method": "heun"}, "method must be one of euler, rk4, got 'heun'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Lorenz(**arguments)
