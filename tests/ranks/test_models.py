"""All models on many processes; see test_engine_mpi.py."""

import numpy as np
import pytest

from pint import (
    MGRIT,
    AdjointSolver,
    MGRITOptions,
    Objective,
    Status,
    TimeGrid,
    solve,
    value_and_gradient,
)
from pint.parallel.comm import world
from tests.model_problems import PROBLEMS
from tests.rank_choices import paired

DRIVERS = {
    name: ["loop"] if problem.propagator.kernel is None else ["loop", "compiled"]
    for name, problem in PROBLEMS.items()
}
METHODS = {
    model: [name for name in PROBLEMS if name.split(",")[0] == model]
    for model in dict.fromkeys(name.split(",")[0] for name in PROBLEMS)
}
EACH = pytest.mark.parametrize("name", [name for _, name in paired(METHODS)])


def grid_of(name):
    """The begin of the span, at the problem's own step length; all of it where steps are few."""
    problem = PROBLEMS[name]
    num_steps = problem.num_steps if name == "control" else 37
    begin, end = problem.span
    stop = begin + (end - begin) * num_steps / problem.num_steps
    return TimeGrid.uniform(begin, stop, num_steps)


@EACH
def test_mgrit_converges_to_stepping(name):
    problem, grid = PROBLEMS[name], grid_of(name)
    options = MGRITOptions(levels=3, relative_tolerance=1e-13, max_iterations=20)
    result = MGRIT(problem.propagator, grid, options, world()).solve(problem.initial_value)
    stepped = solve(problem.propagator, grid, problem.initial_value, MGRITOptions(levels=1)).u
    assert result.status is Status.CONVERGED
    assert np.abs(result.gather() - stepped).max() <= 1e-11 * np.abs(stepped).max()
    assert problem.error(result) == np.max(
        world().allgather_blocks(np.array([problem.error(result)]))
    )


@pytest.mark.parametrize(("name", "driver"), paired(DRIVERS))
def test_the_bits_of_one_process(name, driver):
    problem, grid = PROBLEMS[name], grid_of(name)
    options = MGRITOptions(levels=3, max_iterations=2, driver=driver)
    serial = MGRIT(problem.propagator, grid, options).solve(problem.initial_value)
    result = MGRIT(problem.propagator, grid, options, world()).solve(problem.initial_value)
    assert np.array_equal(result.gather(), serial.u)
    assert np.array_equal(result.residuals, serial.residuals, equal_nan=True)


@EACH
def test_objective_and_gradient_of_one_process(name):
    """By MGRIT on all ranks, also warm-started, against serial stepping."""
    problem, grid = PROBLEMS[name], grid_of(name)

    def running(u, index, times):
        axes = tuple(range(1, u.ndim))
        return np.sum(u**3, axis=axes) * (index % 3), (3 * (index % 3) * (u**2).T).T

    objective = Objective(running=running, terminal=lambda u: (np.sum(u**2), 2 * u))
    stepping = AdjointSolver(MGRIT(problem.propagator, grid, MGRITOptions(levels=1)))
    expected = value_and_gradient(objective, stepping, problem.initial_value)
    options = MGRITOptions(
        levels=2, relative_tolerance=1e-13, skip_first_down=False, max_iterations=30
    )
    solver = AdjointSolver(MGRIT(problem.propagator, grid, options, world()))
    first = value_and_gradient(objective, solver, problem.initial_value)
    found = value_and_gradient(objective, solver, problem.initial_value, first)
    for one, other in (
        (found.value, expected.value),
        (found.initial_gradient, expected.initial_gradient),
        (found.parameter_gradient, expected.parameter_gradient),
    ):
        scale = np.abs(other).max()
        assert np.abs(one - other).max() <= 1e-9 * scale


def test_sums_do_not_depend_on_the_number_of_ranks():
    problem = PROBLEMS["brusselator, rk4"]
    objective = Objective(
        running=lambda u, index, times: (np.sin(1e3 * u[:, 0]), np.zeros_like(u)),
    )
    options = MGRITOptions(max_iterations=2, driver="loop")
    values = [
        value_and_gradient(
            objective,
            AdjointSolver(MGRIT(problem.propagator, problem.grid(97), options, comm)),
            problem.initial_value,
        ).value
        for comm in (None, world())
    ]
    assert values[0] == values[1]
