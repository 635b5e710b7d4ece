"""Gradients of an objective for every model: by MGRIT, started warm, and without new setups."""

from collections import Counter

import numpy as np
import pytest

import pint.mgrit.solver
from pint import MGRIT, AdjointSolver, MGRITOptions, Objective, TimeGrid, value_and_gradient
from pint.grid.hierarchy import Hierarchy
from pint.grid.layout import Layout
from tests.model_problems import PROBLEMS

EACH = pytest.mark.parametrize("name", PROBLEMS)
TOLERANCE = 1e-10


def running(u, index, times):
    """Twice (every other time) the sum of squares."""
    weight = 2.0 * (index % 2)
    rows = u.reshape(len(u), -1)
    return weight * (rows**2).sum(axis=1), ((2 * weight)[:, None] * rows).reshape(u.shape)


OBJECTIVE = Objective(running=running, terminal=lambda u: (np.sum(u**3), 3 * u**2))


def grid_of(name):
    """The begin of the span; all of it where parameters belong to its steps."""
    problem = PROBLEMS[name]
    if name == "control":
        return problem.grid()
    begin, end = problem.span
    return TimeGrid.uniform(begin, begin + (end - begin) * 40 / problem.num_steps, 40)


def adjoint_solver(name, **options):
    settings = {"levels": 2, "skip_first_down": False, "max_iterations": 60} | options
    return AdjointSolver(MGRIT(PROBLEMS[name].propagator, grid_of(name), MGRITOptions(**settings)))


def evaluate(solver, name, change=0.0, previous=None):
    """Return value and gradients for parameters and an initial value that are changed a little."""
    problem, model = PROBLEMS[name], PROBLEMS[name].propagator
    kept = model.parameters.copy()
    model.parameters *= 1 + change
    model.refresh()
    try:
        start = np.asarray(problem.initial_value) * (1 + change)
        return value_and_gradient(OBJECTIVE, solver, start, previous)
    finally:
        model.parameters[:] = kept
        model.refresh()


def cycles(found):
    return found.forward.num_iterations, found.backward.residuals.size


def assert_same(found, expected, tolerance):
    assert found.value == pytest.approx(expected.value, rel=tolerance)
    for gradient in ("initial_gradient", "parameter_gradient"):
        one, other = getattr(found, gradient), getattr(expected, gradient)
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


@EACH
def test_warm_starts(name):
    """At the solution one cycle finds that nothing is left; near it fewer cycles do."""
    size = np.abs(PROBLEMS[name].initial_value).max()
    solver = adjoint_solver(name, tolerance=TOLERANCE * size)
    first = evaluate(solver, name)
    assert_same(first, evaluate(adjoint_solver(name, levels=1), name), 1e-6)
    again = evaluate(solver, name, previous=first)
    assert cycles(again) == (1, 1)
    assert_same(again, first, 1e-6)
    near, cold = (evaluate(solver, name, 1e-7, previous) for previous in (first, None))
    assert sum(cycles(near)) < sum(cycles(cold))
    assert_same(near, cold, 1e-6)


@EACH
def test_a_second_use_costs_no_setup(name, monkeypatch):
    """No levels, layouts, grids or drivers are made, nothing is checked again, and arrays stay."""
    calls = Counter()
    for owner, method in (
        (Hierarchy, "build"),
        (Layout, "balanced"),
        (Layout, "coarsen"),
        (TimeGrid, "coarsen"),
        (TimeGrid, "reversed"),
        (pint.mgrit.solver, "make_corrected_driver"),
        (MGRIT, "_check_same_problem"),
        (pint.mgrit.solver, "_check_state"),
    ):
        monkeypatch.setattr(owner, method, counted(getattr(owner, method), method, calls))
    solver = adjoint_solver(name, max_iterations=2)
    assert calls["build"] == calls["make_corrected_driver"] == 2  # forward and backward
    first = evaluate(solver, name)
    assert calls["_check_state"] > 0
    calls.clear()
    levels = [*solver.forward.hierarchy.levels[1:], *solver.solver.hierarchy.levels[1:]]
    arrays = [id(array) for level in levels for array in (level.u, level.g)]
    evaluate(solver, name, 0.01, first)
    assert not calls
    assert arrays == [id(array) for level in levels for array in (level.u, level.g)]


def counted(function, name, calls):
    def wrapper(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return wrapper
