"""Points at the left end that are left alone."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Status
from pint.models.dahlquist import Dahlquist
from tests.engine_models import CompiledSwirl, Drift, Swirl, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(61)
WAYS = [
    {"coarsening": (4, 2)},
    {"coarsening": 2, "levels": 4, "cycle": "F"},
    {"coarsening": 3, "relax_weight": 1.1, "coarsest": "relaxation"},
    {"coarsening": ((0, 1, 2, 9, 12, 20, 31, 40, 55), 2), "residual_points": "all_points"},
    {"coarsening": 4, "coarsest": "pipelined", "time_norm": np.inf},
]


def options_of(**changes):
    return MGRITOptions(
        **{"levels": 3, "relax": 1, "max_iterations": 60, "skip_first_down": False} | changes
    )


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_all_points_end_below_the_local_tolerance(ways, driver):
    if driver == "compiled":
        model, start = Dahlquist(-1.0), 1.0
    else:
        model, start = Swirl(0.9, batched=driver == "stack"), START
    options = options_of(local_tolerance=1e-11, driver=driver, **ways)
    result = MGRIT(model, TIMES, options).solve(start, 0.3)
    assert result.status is Status.CONVERGED
    exact = stepped(model, TIMES, start)
    np.testing.assert_allclose(result.u.ravel(), exact.ravel(), rtol=0, atol=1e-9)


def test_points_that_are_left_alone_take_no_steps():
    """What F-relaxation makes exact from the left drops out, interval by interval."""
    taken = []

    class Noting(Swirl):
        def step(self, u, step):
            if step.level == 0:
                taken.append(step.first)
            return super().step(u, step)

    firsts = []
    options = options_of(
        levels=2, coarsening=4, relax=1, local_tolerance=1e-13, driver="loop", max_iterations=5
    )

    def on_iteration(iteration, norm):
        firsts.append(min(taken))
        taken.clear()

    solver = MGRIT(Noting(1.0), TIMES, options)
    result = solver.solve(START, 0.1, on_iteration=on_iteration)
    # Cycle k makes k + 1 pairs of intervals exact before it measures: residuals up to there are 0.
    assert firsts == [1, 5, 13, 21, 29]
    plain = MGRIT(Swirl(1.0), TIMES, options_of(levels=2, coarsening=4, max_iterations=5))
    assert np.array_equal(result.u[:9], plain.solve(START, 0.1).u[:9])
    assert result.status is Status.MAX_ITERATIONS


@pytest.mark.parametrize("batched", [False, True])
def test_levels_that_differ_in_space(batched):
    times, start = np.linspace(0, 0.2, 38), np.random.default_rng(4).normal(size=15)
    options = options_of(local_tolerance=1e-11)
    result = MGRIT(Drift(batched=batched), times, options).solve(start)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.u, stepped(Drift(), times, start), rtol=0, atol=1e-9)


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
def test_the_next_solve_begins_with_all_points(driver):
    model = CompiledSwirl(0.9, batched=driver == "stack", coarsening=(4, 4))
    options = options_of(coarsening=4, local_tolerance=1e-10, driver=driver)
    solver = MGRIT(model, TIMES, options)
    first, second = solver.solve(START, 0.1), solver.solve(START, 0.1)
    assert np.array_equal(first.u, second.u)
    assert np.array_equal(first.residuals, second.residuals)
    assert first.num_steps == second.num_steps


def test_sources_and_adjoint():
    options = options_of(coarsening=4, levels=2, local_tolerance=1e-13)
    sources = np.random.default_rng(2).normal(size=(62, 3))
    forward = MGRIT(Swirl(0.5), TIMES, options)
    result = forward.solve(START, 0.1, sources)
    np.testing.assert_allclose(result.u, stepped(Swirl(0.5), TIMES, START, sources), atol=1e-12)
    exact = MGRIT(Swirl(0.5), TIMES, MGRITOptions(levels=1))
    expected = AdjointSolver(exact).solve(exact.solve(START), START)
    gradient = AdjointSolver(forward).solve(forward.solve(START), START)
    for name in ("initial_gradient", "parameter_gradient"):
        np.testing.assert_allclose(getattr(gradient, name), getattr(expected, name), atol=1e-11)
