"""Published histories and options of the cycle on many processes: the bits of one process."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Random
from pint.comm import world
from pint.models.dahlquist import Dahlquist
from tests.engine_models import CompiledSwirl, Swirl, uneven_times
from tests.histories import CASES, same_as_published, solve

COMM = world()


@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize("name", CASES)
def test_histories_do_not_depend_on_the_number_of_ranks(name, driver):
    parallel, serial = solve(CASES[name], driver, COMM), solve(CASES[name], driver)
    assert same_as_published(CASES[name], parallel.residuals)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)
    assert parallel.status is serial.status


@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize(
    "ways",
    [
        {"coarsening": ((0, 1, 2, 7, 10, 13, 14, 20, 26), 2)},
        {"coarsening": (2, (0, 4, 5, 6, 11, 14)), "cycle": "W", "coarsest": "relaxation"},
        {"coarsening": (1, 2), "cycle": "F", "coarsest": "in_turn"},
        {"norm": 1, "residual": "all_points", "coarsening": 3},
        {"norm": np.inf, "residual": "all_points", "tolerance": 1e-3, "max_iterations": 9},
        {"residual": "none"},
        {"relax_weight": 0.9, "coarsest": "relaxation", "skip_first_down": True},
    ],
    ids=str,
)
def test_any_coarse_points_and_cycles(ways, driver):
    model = CompiledSwirl(1.0, coarsening=(2, 2))
    if driver == "loop":
        model = Weighted(1.0)
    elif "coarsening" in ways:
        model = Dahlquist(-2.0)  # the other kernel knows even coarse steps only
    start = np.array([0.5, -0.3, 0.8]) if isinstance(model, Swirl) else 1.0
    settings = {"levels": 3, "max_iterations": 3, "skip_first_down": False} | ways
    options, times = MGRITOptions(driver=driver, **settings), uneven_times(29)
    guess = None if options.skip_first_down else Random(seed=3)
    parallel = MGRIT(model, times, options, COMM).solve(start, guess)
    serial = MGRIT(model, times, options).solve(start, guess)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)


class Weighted(Swirl):
    """Measures in a norm of its own."""

    def norm(self, u):
        return np.sqrt(u @ np.diag([2.0, 1.0, 3.0]) @ u)


def test_guesses_do_not_depend_on_the_number_of_ranks():
    times, start = uneven_times(40), np.array([0.5, -0.3, 0.8])
    options = MGRITOptions(levels=3, max_iterations=1, skip_first_down=False)

    def solve_twice(comm):
        coarse = MGRIT(Swirl(), times[::3], MGRITOptions(levels=1), comm).solve(start)
        nested = MGRIT(Swirl(), times, options, comm).solve(start, coarse)
        again = MGRIT(Swirl(), times, options, comm).solve(start, nested)
        exact = MGRIT(Swirl(), times, options, comm).solve(start, "sequential")
        return nested, again, exact

    for parallel, serial in zip(solve_twice(COMM), solve_twice(None), strict=True):
        assert np.array_equal(parallel.residuals, serial.residuals)
        assert np.array_equal(parallel.gather(), serial.u)
