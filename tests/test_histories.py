"""Published convergence histories of another code, to all digits given."""

import math

import numpy as np
import pytest

from pint import Status
from tests.histories import CASES, same_as_published, scalar_grid, solve

SCALAR = [name for name in CASES if name.startswith("scalar-")]


def test_all_cases_of_these_kinds_are_here():
    assert len(CASES) == 18


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        (name, driver)
        for name, case in CASES.items()
        for driver in ("compiled", "stack", "loop")
        if driver != "stack" or not case["name"].startswith(("heat2d", "heat1d-128"))
    ],
)
def test_residuals(name, driver):
    case = CASES[name]
    result = solve(case, driver)
    assert same_as_published(case, result.residuals), result.residuals
    if "levels" in case["options"]:
        assert len(result.coarsening) + 1 == case["options"]["levels"]
    if "error_at_T" in case:
        dx = np.pi / (case["options"]["nspace"] - 1)
        difference = result.u[-1] - np.sin(np.linspace(0.0, np.pi, len(result.u[-1])))
        error = math.sqrt(dx * np.sum(difference**2))
        assert f"{error:.5g}" == f"{case['error_at_T']:.5g}"


@pytest.mark.parametrize("name", CASES)
def test_status(name):
    """Two of the runs with a fixed number of iterations stop before their tolerance."""
    unconverged = name in ("scalar-24-two-iterations", "heat1d-16-weighted-C-relaxation")
    fixed = name in ("heat1d-sequential-guess", "heat2d-16")
    expected = Status.MAX_ITERATIONS if unconverged else Status.CONVERGED
    assert solve(CASES[name]).status is (Status.COMPLETED if fixed else expected)


@pytest.mark.parametrize("name", SCALAR)
def test_all_drivers_give_the_same_bits(name):
    """A division and a multiplication round alike in a stack, alone and in a kernel."""
    loop = solve(CASES[name], "loop")
    for driver in ("stack", "compiled"):
        other = solve(CASES[name], driver)
        assert np.array_equal(other.u, loop.u)
        assert np.array_equal(other.residuals, loop.residuals, equal_nan=True)


def test_solution_of_scalar_10():
    result = solve(CASES["scalar-10"])
    np.testing.assert_allclose(result.u, (2 / 3) ** np.arange(11), rtol=1e-14)


@pytest.mark.parametrize("name", [name for name in SCALAR if name != "scalar-24-two-iterations"])
def test_solutions_have_the_error_that_the_tolerance_promises(name):
    """The residual bounds the error: each step shrinks states, by 1 / (1 + dt)."""
    case = CASES[name]
    exact = np.cumprod(np.concatenate([[1.0], 1 / (1 + np.diff(scalar_grid(case).times))]))
    assert np.abs(solve(case).u - exact).max() < 1e-6
