"""Published convergence histories of another code, to all digits given."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Status, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat

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


# --- Heat ----------------------------------------------------------------------------------------

HEAT = {
    case["name"]: case
    for case in PUBLISHED["cases"]
    if case["name"] in ("heat1d-64", "heat1d-256-V", "heat1d-sequential-guess")
}


def wave(t):
    return math.cos(t) - math.sin(t)


def heat_guess(grid, num_nodes):
    """The published random numbers at the C-points t > 0; nothing reads the F-points."""
    states, n = {}, 1
    for t in grid.times[2::2].tolist():
        state = np.empty(num_nodes)
        for k in range(num_nodes):
            n = (n * 1103515245 + 12345) % 2**64
            state[k] = ((n >> 16) & 32767) / 32768
        states[t] = state
    return lambda t: states.get(t, 0.0)


def solve_heat(case, driver):
    given = case["options"]
    num_steps, num_nodes = given["N"], given["nspace"]
    x = np.linspace(0.0, np.pi, num_nodes)
    heat = Heat(num_nodes, np.pi, profile=np.sin(x), amplitude=wave)
    grid = TimeGrid.uniform(0.0, 2 * np.pi, num_steps)
    cell = math.sqrt(2 * math.pi / (num_steps - 1)) * math.sqrt(math.pi / (num_nodes - 1))
    sequential = "initial_guess" in given
    options = MGRITOptions(
        levels=given["max_levels"],
        min_coarse=3,
        tolerance=None if sequential else 1e-7 / cell,
        max_iterations=given.get("max_iterations", 30),
        skip_first_down=False,
        driver=driver,
    )
    guess = heat_guess(grid, num_nodes)
    if sequential:
        stepping = MGRITOptions(levels=1, driver=driver)
        states = MGRIT(heat, grid, stepping).solve(np.sin(x)).u
        guess = dict(zip(grid.times.tolist(), states, strict=True)).__getitem__
    return MGRIT(heat, grid, options).solve(np.sin(x), guess)


@pytest.mark.parametrize("driver", ["compiled", "stack"])
@pytest.mark.parametrize("name", HEAT)
def test_residuals_of_the_heat_equation(name, driver):
    case = HEAT[name]
    result = solve_heat(case, driver)
    published = case["residuals"]
    assert result.num_iterations == len(published)
    for computed, given in zip(result.residuals, published, strict=True):
        if given < 1e-12:
            assert computed < 1e-12
        else:
            assert f"{computed:.8g}" == f"{given:.8g}"
    if "error_at_T" in case:
        num_nodes = case["options"]["nspace"]
        difference = result.u[-1] - np.sin(np.linspace(0.0, np.pi, num_nodes))
        error = math.sqrt(np.pi / (num_nodes - 1) * np.sum(difference**2))
        assert f"{error:.5g}" == f"{case['error_at_T']:.5g}"


def test_number_of_levels_of_the_heat_equation():
    case = HEAT["heat1d-256-V"]
    assert len(solve_heat(case, "compiled").coarsening) + 1 == case["options"]["levels"]
