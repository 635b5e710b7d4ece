"""Kernels and sweeps one by one: python -m pytest benchmarks/_kernels.py."""

import numpy as np
import pytest

from benchmarks._cases import heat, scalar
from pint.drivers import operations as sweeps
from pint.grid.slots import shifted
from pint.parallel import exact_sum as norms

NUM = 4096


@pytest.fixture(params=["scalar", "heat129"])
def solver(request):
    """A solver whose arrays are in the cache, ready for single operations."""
    case = scalar(4, 2, 64 * NUM) if request.param == "scalar" else heat(129, 1024)
    solver = case.solver("compiled")
    solver.solve(case.initial_value)
    state = np.asarray(case.initial_value, dtype=float)
    solver.hierarchy.allocate(state, solver.driver.restrict, with_sources=False)
    solver.driver.attach(solver.hierarchy)
    solver.hierarchy.levels[0].u[...] = case.initial_value
    return solver


def operations(solver):
    """Return what a cycle does on the finest level, as calls without arguments."""
    driver, (level, coarse) = solver.driver, solver.hierarchy.levels[:2]
    return {
        "chain": lambda: driver.chain(level, 1, level.num_slots - 2),
        "f_relax": lambda: driver.sweep(level, *level.intervals[0]),
        "c_relax": lambda: driver.sweep(level, shifted(level.c_steps, -1), 1),
        "residual": lambda: driver.residual(level, level.c_steps, 2),
        "coarse_rhs": lambda: driver.coarse_rhs(coarse),
        "correct": lambda: driver.correct(level, coarse),
    }


@pytest.mark.parametrize(
    "name", ["chain", "f_relax", "c_relax", "residual", "coarse_rhs", "correct"]
)
def test_operation(benchmark, solver, name):
    benchmark(operations(solver)[name])


@pytest.mark.parametrize(
    "digits_of", [norms.integer_digits, sweeps.integer_digits], ids=["numpy", "compiled"]
)
def test_exact_sum(benchmark, digits_of):
    values = np.random.default_rng(0).random(NUM) ** 8
    benchmark(digits_of, values)
