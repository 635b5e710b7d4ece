"""Lorenz's equations: tangents, fixed points, and bits; see also test_models.py."""

import math

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Step, TimeGrid
from pint.models.lorenz import Lorenz

START = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_the_centres_of_the_wings_are_at_rest(method):
    """At x = y = sqrt(beta (rho - 1)), z = rho - 1 nothing moves."""
    model = Lorenz(8.0, 20.0, 2.0, method)
    rest = np.array([math.sqrt(38), math.sqrt(38), 19.0])
    new = model.step(rest[None], Step(0, np.zeros(1), np.array([0.1]), 1, 1))
    np.testing.assert_allclose(new[0], rest, rtol=1e-13)


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
