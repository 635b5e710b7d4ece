"""Problems whose first point follows from the last."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, Delta, MGRITOptions, Random, Status, TimeGrid, open_run
from pint.results import write_result
from pint.theory import convergence_factors
from tests.engine_models import CompiledSwirl, Driven, Swirl, uneven_times

START = np.array([0.5, -0.3, 0.8])
WAYS = [
    {"coarsening": 2, "levels": 5},
    {"coarsening": 3, "coarsest": "relaxation", "cycle": "F"},
    {"coarsening": (1, 4), "levels": 3, "coarsest": "pipelined"},
    {"coarsening": ((0, 1, 2, 7, 13, 30, 44, 61), 2), "cycle": "W"},
    {"coarsening": 60, "levels": 2, "min_coarse": 1},
    {"coarsening": 2, "levels": 9, "min_coarse": 1, "relax": (0, 2)},
    {
        "coarsening": 4,
        "relax_weight": 0.9,
        "residual_points": "all_points",
        "skip_first_down": False,
    },
]


def ring_of(rate, times):
    """Solve (1 + rate dt_i) u_i - u_{i-1} = dt_i cos(t_i), u_0 = u_N, as a linear system."""
    dt = np.diff(times)
    matrix = np.diag(1 + rate * dt) - np.roll(np.eye(dt.size), -1, axis=1)
    u = np.linalg.solve(matrix, dt * np.cos(times[1:]))
    return np.concatenate([u[-1:], u])


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_solves_the_ring(ways, driver):
    times = uneven_times(61)
    options = MGRITOptions(**{"levels": 3} | ways, periodic=True, tolerance=1e-12, driver=driver)
    result = MGRIT(Driven(0.7), times, options).solve(0.0)
    assert result.status is Status.CONVERGED
    assert result.num_iterations < 20
    np.testing.assert_allclose(result.gather(), ring_of(0.7, times), rtol=0, atol=1e-11)
    assert result.u[0] == result.u[-1]
    assert (result.first, result.u.shape) == (0, (62,))


@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_nonlinear_ring_is_where_stepping_settles(driver):
    """A contraction, stepped around until nothing changes."""
    times, model = uneven_times(48), CompiledSwirl(0.8, coarsening=(2, 2, 2))
    u = START
    grid = TimeGrid(times)
    for _ in range(20):
        for i in range(1, 49):
            u = model.step(u, grid.steps(i))
    options = MGRITOptions(levels=4, periodic=True, tolerance=1e-12, driver=driver)
    result = MGRIT(model, times, options).solve(START)
    np.testing.assert_allclose(result.final_state(), u, rtol=0, atol=1e-11)


def test_singular_ring_keeps_its_mean_from_the_guess():
    """u' = cos(t) leaves the constant free: a shifted guess is a shifted solution."""
    times = np.arange(65) * (2 * np.pi / 64)
    options = MGRITOptions(levels=30, periodic=True, tolerance=1e-13)
    solver = MGRIT(Driven(), times, options)
    low, high = solver.solve(0.0), solver.solve(2.5)
    np.testing.assert_allclose(high.u - low.u, 2.5, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        low.u - low.u[0],
        np.concatenate([[0], np.cumsum(np.diff(times) * np.cos(times[1:]))]),
        rtol=0,
        atol=1e-13,
    )


def test_warm_start_and_states_as_guess():
    times = uneven_times(40)
    options = MGRITOptions(levels=3, periodic=True, tolerance=1e-10, skip_first_down=False, relax=0)
    solver = MGRIT(Driven(0.7), times, options)
    first = solver.solve(0.0, Random(seed=1))
    for guess in (first, first.u):
        again = solver.solve(0.0, guess)
        assert again.num_iterations == 1
        np.testing.assert_allclose(again.u, first.u, rtol=0, atol=1e-10)


def test_sources():
    """g_i = dt_i c / (1 + rate dt_i) adds c to the right-hand side, and c / rate to u."""
    times, rate = uneven_times(40), 0.7
    dt = np.diff(times, prepend=times[0])
    options = MGRITOptions(levels=3, periodic=True, tolerance=1e-12)
    result = MGRIT(Driven(rate), times, options).solve(0.0, sources=3 * dt / (1 + rate * dt))
    np.testing.assert_allclose(result.u, ring_of(rate, times) + 3 / rate, rtol=0, atol=1e-11)


def test_levels_of_a_ring_count_their_points():
    options = MGRITOptions(levels=30, periodic=True)
    assert options.factors(64) == (2, 2, 2, 2)  # 64, 32, 16, 8 and 4 points
    assert options.factors(7) == ((0, 2, 4, 6, 7),)


def test_result_as_a_file(tmp_path):
    options = MGRITOptions(periodic=True, tolerance=1e-10)
    result = MGRIT(Driven(1.0), uneven_times(20), options).solve(0.0)
    write_result(tmp_path / "run.h5", result, options)
    assert np.array_equal(open_run(tmp_path / "run.h5").solution[:], result.u)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"local_tolerance": 1e-3}, "no left end"),
        ({"delta": Delta(1)}, "leave delta out"),
        ({"levels": 1}, "cannot be stepped"),
        ({"periodic": 1}, "True or False"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        MGRITOptions(**{"periodic": True} | options)


def test_what_a_ring_has_not():
    with pytest.raises(ValueError, match="needs a coarser level"):
        MGRIT(Swirl(), uneven_times(20), MGRITOptions(periodic=True, coarsening=20))
    with pytest.raises(ValueError, match="leave periodic out"):
        convergence_factors([0.5, 0.25], MGRITOptions(periodic=True), 20)
    with pytest.raises(ValueError, match="must end with 20"):
        MGRIT(Swirl(), uneven_times(20), MGRITOptions(periodic=True, coarsening=((0, 4, 9),)))
    options = MGRITOptions(periodic=True, skip_first_down=False)
    solver = MGRIT(Swirl(), uneven_times(20), options)
    with pytest.raises(ValueError, match="a periodic problem has none"):
        solver.solve(START, "sequential")
    with pytest.raises(ValueError, match="a periodic problem has none"):
        AdjointSolver(solver)
