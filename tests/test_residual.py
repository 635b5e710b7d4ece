"""How the residual is measured."""

import math

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Propagator, Status
from pint.models.dahlquist import Dahlquist
from tests.engine_models import CompiledSwirl, Swirl, naive_mgrit, uneven_times

START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(41)
MASS = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])


def solve(model, times=TIMES, start=START, **changes):
    settings = {"levels": 3, "max_iterations": 3, "skip_first_down": False} | changes
    return MGRIT(model, times, MGRITOptions(**settings)).solve(start, 0.1)


def naive_residuals(**changes):
    settings = {"levels": 3, "max_iterations": 3, "skip_first_down": False} | changes
    guess = np.full((42, 3), 0.1)
    guess[0] = START
    return naive_mgrit(Swirl(), TIMES, MGRITOptions(**settings), guess)[1]


@pytest.mark.parametrize("residual", ["c_points", "all_points"])
@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_norms_over_the_points(norm, driver, residual):
    model = CompiledSwirl(coarsening=(2, 2))
    result = solve(model, time_norm=norm, driver=driver, residual_points=residual)
    each = [np.linalg.norm(r, axis=1) for r in naive_residuals()]
    expected = [np.linalg.norm(sizes, norm) for sizes in each]
    np.testing.assert_allclose(result.residuals, expected, rtol=1e-12)


class Weighted(CompiledSwirl):
    """Measures in the norm of a mass matrix."""

    def norm(self, u):
        assert u.shape == (3,)
        return math.sqrt(u @ MASS @ u)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("driver", ["loop", "compiled", "stack"])
def test_the_norm_of_a_mass_matrix(driver, batched):
    if driver == "stack" and not batched:
        return
    result = solve(Weighted(batched=batched, coarsening=(2, 2)), driver=driver)
    expected = [math.sqrt(np.einsum("ij,jk,ik", r, MASS, r)) for r in naive_residuals()]
    np.testing.assert_allclose(result.residuals, expected, rtol=1e-12)


class Inexact(Propagator):
    """Every evaluation has another error, as in an iterative solver."""

    state_shape, dtype = (), np.dtype(float)

    def __init__(self):
        self.calls = 0

    def step(self, u, step):
        self.calls += 1
        return u / (1 + step.dt) + 1e-6 * (self.calls % 7)


def test_f_points_count_where_steps_are_inexact():
    settings = {"coarsening": 8, "levels": 2, "max_iterations": 8}
    some, all_points = (
        solve(
            Inexact(),
            np.arange(42.0),
            1.0,
            residual_points=residual,
            time_norm=math.inf,
            **settings,
        )
        for residual in ("c_points", "all_points")
    )
    assert some.residuals[-1] < 1e-5
    assert 1e-6 < all_points.residuals[-1] < 1e-5
    assert all_points.num_steps[0] == some.num_steps[0] + 8 * (41 - 5)
    assert np.array_equal(
        solve(Swirl(), residual_points="all_points").residuals, solve(Swirl()).residuals
    )


@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_no_residual(driver):
    model = CompiledSwirl(coarsening=(2, 2))
    plain, bare = (
        solve(model, driver=driver, residual_points=kind) for kind in ("c_points", "none")
    )
    assert np.isnan(bare.residuals).all()
    assert np.array_equal(bare.u, plain.u)
    assert bare.status is Status.COMPLETED


def test_relative_tolerance_in_another_norm():
    result = solve(Dahlquist(), np.arange(65.0), 1.0, time_norm=1, relative_tolerance=1e-8)
    assert result.status is not Status.DIVERGED
    fine = solve(
        Dahlquist(), np.arange(65.0), 1.0, time_norm=1, relative_tolerance=1e-8, max_iterations=50
    )
    assert fine.status is Status.CONVERGED
    assert fine.residuals[-1] < 1e-8 * fine.residuals[0] < fine.residuals[-2]
