"""Published convergence histories of another code, to all digits given."""

import math

import numpy as np
import pytest

from pint import Status
from tests.engine_models import Forced
from tests.histories import (
    CASES,
    drivers_of,
    same_as_published,
    scalar_grid,
    solve,
    value_and_slope,
)

SCALAR = [name for name in CASES if name.startswith("scalar-")]


def test_all_cases_of_these_kinds_are_here():
    assert len(CASES) == 24


@pytest.mark.parametrize(
    ("name", "driver"),
    [(name, driver) for name, case in CASES.items() for driver in drivers_of(case)],
)
def test_published_numbers(name, driver):
    case = CASES[name]
    result = solve(case, driver)
    assert same_as_published(case, result.residuals), result.residuals
    assert result.grid_steps.tolist() == case.get("steps", result.grid_steps.tolist())
    if "levels" in case["options"]:
        assert len(result.coarsening) + 1 == case["options"]["levels"]
    if "without_richardson" in case:
        plain = {key: x for key, x in case["options"].items() if key != "richardson"}
        other = solve(case | {"options": plain}, driver)
        published = case | {"residuals": case["without_richardson"]}
        assert same_as_published(published, other.residuals), other.residuals
        for name, one in (("without", other), ("with_richardson", result)):
            error = abs(one.u[-1] - Forced.exact(0.5))
            assert f"{error:.9g}" == f"{case['error_at_T'][name]:.9g}"
    elif "error_at_T" in case:
        dx = np.pi / (case["options"]["nspace"] - 1)
        difference = result.u[-1] - np.sin(np.linspace(0.0, np.pi, len(result.u[-1])))
        error = math.sqrt(dx * np.sum(difference**2))
        assert f"{error:.5g}" == f"{case['error_at_T']:.5g}"
    if "dJ_dlambda" in case:
        published = (case["J"], case["dJ_dlambda"])
        assert value_and_slope(case, driver) == pytest.approx(published, rel=1e-13)


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
