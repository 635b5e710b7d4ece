"""Published convergence histories of another code, to all digits given."""

import json
from pathlib import Path

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Status, TimeGrid
from pint.models.dahlquist import Dahlquist

PUBLISHED = json.loads((Path(__file__).parent / "data" / "mgrit_histories.json").read_text())
CASES = {
    case["name"]: case
    for case in PUBLISHED["cases"]
    if case["name"].startswith("scalar-") and case["options"].get("cycle", "V") == "V"
}


def options_of(case, driver):
    """Translate the published options; what is left out is FCF, factor 2, tolerance 1e-6."""
    given = case["options"]
    relax = given.get("relax", 1)
    by_relaxation = given.get("relax_coarsest", "").startswith("relaxation only")
    return MGRITOptions(
        levels=given["max_levels"],
        coarsening=given.get("coarsening", 2),
        min_coarse=2,
        relax=tuple(relax) if isinstance(relax, list) else relax,
        max_iterations=given.get("max_iterations", 100),
        tolerance=1e-6,
        skip_first_down=given["skip_first_down"],
        coarsest="relaxation" if by_relaxation else "gather",
        driver=driver,
    )


def grid_of(case):
    """N steps of 0.5; nonuniform: N/2 steps of 0.25, then N/2 of 0.75."""
    num_steps = case["options"]["N"]
    if "3dt/2" in case["setup"]:
        lengths = np.repeat([0.25, 0.75], num_steps // 2)
        return TimeGrid(np.concatenate([[0.0], np.cumsum(lengths)]))
    return TimeGrid.uniform(0.0, 0.5 * num_steps, num_steps)


def solve(case, driver="auto"):
    return MGRIT(Dahlquist(-1.0), grid_of(case), options_of(case, driver)).solve(1.0, guess=0.456)


def test_nine_cases_need_no_more_than_v_cycles():
    assert len(CASES) == 9


@pytest.mark.parametrize("driver", ["compiled", "stack", "loop"])
@pytest.mark.parametrize("name", CASES)
def test_residuals(name, driver):
    case = CASES[name]
    result = solve(case, driver)
    published = case["residuals"]
    assert result.num_iterations == len(published)
    for computed, given in zip(result.residuals, published, strict=True):
        if given is None:
            assert np.isnan(computed)
        elif given < 1e-12:  # what is left of it is the other code's rounding
            assert computed < 1e-12
        else:
            assert f"{computed:.11g}" == f"{given:.11g}"
    unconverged = "max_iterations" in case["options"]
    assert result.status is (Status.MAX_ITERATIONS if unconverged else Status.CONVERGED)


def test_number_of_levels():
    case = CASES["scalar-100-V"]
    assert len(solve(case).coarsening) + 1 == case["options"]["levels"]


@pytest.mark.parametrize("name", CASES)
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


@pytest.mark.parametrize("name", [name for name in CASES if name != "scalar-24-two-iterations"])
def test_solutions_have_the_error_that_the_tolerance_promises(name):
    """The residual bounds the error: each step shrinks states, by 1 / (1 + dt)."""
    case = CASES[name]
    grid = grid_of(case)
    exact = np.cumprod(np.concatenate([[1.0], 1 / (1 + np.diff(grid.times))]))
    assert np.abs(solve(case).u - exact).max() < 1e-6
