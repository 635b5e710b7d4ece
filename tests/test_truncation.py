"""Truncated coarse grids, and algorithms that are MGRIT under another name."""

from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, LocalGrids, MGRITOptions, Status, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.options import coarsest_of
from pint.theory import convergence_factors
from tests.engine_models import CompiledSwirl, Drift, Swirl, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
DRIVERS = ["loop", "stack", "compiled"]


def model_for(driver, gain=1.0):
    return CompiledSwirl(gain, batched=driver == "stack", coarsening=(2, 2))


@pytest.mark.parametrize("driver", DRIVERS)
def test_parareal(driver):
    """U_n^k = F(U_{n-1}^{k-1}) + G(U_{n-1}^k) - G(U_{n-1}^{k-1}), written down once more."""
    m, num_coarse, times = 4, 9, uneven_times(36)
    model, fine = CompiledSwirl(0.9, coarsening=(4,)), TimeGrid(times)
    coarse = fine.coarsen(m)

    def propagate(u, n):
        for i in range((n - 1) * m + 1, n * m + 1):
            u = model.step(u, fine.steps(i))
        return u

    def predict(u, n):
        return model.step(u, coarse.steps(n))

    U = [START]
    for n in range(1, num_coarse + 1):
        U.append(predict(U[-1], n))
    for k in range(4):
        options = replace(MGRITOptions.parareal(m), max_iterations=k + 1, driver=driver)
        batched = CompiledSwirl(0.9, batched=driver == "stack", coarsening=(4,))
        result = MGRIT(batched, times, options).solve(START)
        np.testing.assert_allclose(result.u[::m], U, rtol=0, atol=1e-13)
        new = [START]
        for n in range(1, num_coarse + 1):
            new.append(propagate(U[n - 1], n) + predict(new[-1], n) - predict(U[n - 1], n))
        U = new


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("ways", [{}, {"cycle": "F", "relax": (0, 1)}, {"skip_first_down": True}])
def test_as_many_points_as_there_are_is_mgrit_to_the_last_bit(ways, driver):
    times = uneven_times(43)  # 11 points on the coarsest level
    options = MGRITOptions(
        **{"levels": 3, "skip_first_down": False, "max_iterations": 4} | ways, driver=driver
    )
    guess = None if options.skip_first_down else 0.2  # which whole solves would not read
    whole = MGRIT(model_for(driver), times, options).solve(START, guess)
    for length in (11, 12, 50):
        local = replace(options, coarsest=LocalGrids(length))
        result = MGRIT(model_for(driver), times, local).solve(START, guess)
        assert np.array_equal(result.u, whole.u)
        assert np.array_equal(result.residuals, whole.residuals, equal_nan=True)
    shorter = replace(options, coarsest=LocalGrids(5))
    result = MGRIT(model_for(driver), times, shorter).solve(START, guess)
    assert not np.array_equal(result.u[-1], whole.u[-1])


@pytest.mark.parametrize("driver", DRIVERS)
def test_each_point_ends_a_solve_of_its_own(driver):
    """One two-level cycle, with the coarse solves written down point by point."""
    length, m, times = 3, 2, uneven_times(21)
    model, fine = CompiledSwirl(0.9), TimeGrid(times)
    coarse = fine.coarsen(m)
    u = np.full((22, 3), 0.2)
    u[0] = START

    def f_relax():
        for i in range(1, 22, m):
            u[i] = model.step(u[i - 1], fine.steps(i))

    f_relax()
    v = u[::m].copy()
    g = [None] + [
        model.step(u[m * c - 1], fine.steps(m * c)) - model.step(v[c - 1], coarse.steps(c))
        for c in range(1, len(v))
    ]
    for c in range(1, len(v)):
        begin = max(c - length + 1, 0)
        u[m * c] = v[begin]
        for q in range(begin + 1, c + 1):
            u[m * c] = model.step(u[m * c], coarse.steps(q)) + g[q]
    f_relax()
    options = MGRITOptions.at_mgrit(length, coarsening=m, relax=0)
    options = replace(options, max_iterations=1, driver=driver)
    batched = CompiledSwirl(0.9, batched=driver == "stack")
    result = MGRIT(batched, times, options).solve(START, 0.2)
    np.testing.assert_allclose(result.u, u, rtol=0, atol=1e-13)


@pytest.mark.parametrize("model", [Drift(), Swirl(0.3)])
def test_converges_where_the_past_is_forgotten(model):
    start = np.linspace(0, 1, 15) if isinstance(model, Drift) else START
    options = replace(MGRITOptions.at_mgrit(6, levels=3), tolerance=1e-11)
    result = MGRIT(model, uneven_times(80), options).solve(start)
    assert result.status is Status.CONVERGED
    exact = stepped(model, uneven_times(80), start)
    np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-9)


def test_adjoint_and_points_left_alone():
    times = uneven_times(60)
    options = replace(MGRITOptions.at_mgrit(4, levels=3), tolerance=1e-13)
    forward = MGRIT(Swirl(0.5), times, options)
    exact = MGRIT(Swirl(0.5), times, MGRITOptions(levels=1))
    w = np.array([1.0, -2.0, 0.5])
    gradient = AdjointSolver(forward).solve(forward.solve(START), w)
    expected = AdjointSolver(exact).solve(exact.solve(START), w)
    np.testing.assert_allclose(
        gradient.parameter_gradient, expected.parameter_gradient, rtol=1e-9, atol=1e-11
    )
    options = replace(options, tolerance=None, local_tolerance=1e-12)
    result = MGRIT(Dahlquist(-1.0), times, options).solve(1.0, 0.3)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.u, stepped(Dahlquist(-1.0), times, 1.0), atol=1e-10)


def test_bad_options():
    with pytest.raises(ValueError, match="points must be at least 2, got 1"):
        LocalGrids(1)
    with pytest.raises(ValueError, match="periodic and LocalGrids do not go together"):
        MGRITOptions(coarsest=LocalGrids(4), periodic=True)
    with pytest.raises(ValueError, match="go together"):
        coarsest_of("truncated", None)


def test_the_theory_has_no_truncated_grids():
    with pytest.raises(ValueError, match="leave LocalGrids out"):
        convergence_factors([0.5, 0.25], MGRITOptions.at_mgrit(4), 20)
