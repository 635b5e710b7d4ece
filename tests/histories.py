"""Published convergence histories of another code as problems for this one."""

import json
import math
from pathlib import Path

import numpy as np

from pint import MGRIT, MGRITOptions, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat
from tests.engine_models import Driven, Plate, Rod

PUBLISHED = json.loads((Path(__file__).parent / "data" / "mgrit_histories.json").read_text())
KINDS = ("scalar-", "heat1d-", "heat2d-", "periodic-")
CASES = {case["name"]: case for case in PUBLISHED["cases"] if case["name"].startswith(KINDS)}
DIGITS = {"scalar": ".11g", "heat1d": ".8g", "heat2d": ".11g", "periodic": ".11g"}


def kind_of(case):
    return case["name"].split("-")[0]


def options_of(case, driver):
    """Translate the published options; what they leave out, their set-ups say in words."""
    given = case["options"]
    heat = kind_of(case) == "heat1d"
    relax = given.get("relax", 1)
    by_relaxation = "coarsest level by relaxation" in case["setup"] or given.get(
        "relax_coarsest", ""
    ).startswith("relaxation only")
    return MGRITOptions(
        levels=given.get("max_levels", 30),
        coarsening=given.get("coarsening", 2),
        min_coarse=given.get("min_coarse", 3 if heat else 2),
        cycle=given.get("cycle", "V"),
        relax=tuple(relax) if isinstance(relax, list) else relax,
        relax_weight=given.get("relax_weight", 1.0),
        max_iterations=given.get("max_iterations", 30 if heat else 100),
        tolerance=tolerance_of(case),
        skip_first_down=given.get("skip_first_down", "skip_first_down true" in case["setup"]),
        coarsest="relaxation" if by_relaxation else "gather",
        periodic=given.get("periodic", False),
        driver=driver,
    )


def tolerance_of(case):
    """None where the published number of iterations is fixed."""
    given = case["options"]
    if kind_of(case) == "heat2d" or "initial_guess" in given:
        return None
    if kind_of(case) in ("scalar", "periodic"):
        return 1e-6
    time, space = 2 * math.pi / (given["N"] - 1), math.pi / (given["nspace"] - 1)
    return 1e-7 / (math.sqrt(time) * math.sqrt(space))


def wave(t):
    return math.cos(t) - math.sin(t)


def problem_of(case):
    """Return model, grid, initial value and guess."""
    given, num_steps = case["options"], case["options"]["N"]
    if kind_of(case) == "scalar":
        return Dahlquist(-1.0), scalar_grid(case), 1.0, 0.456
    if kind_of(case) == "periodic":
        return Driven(), TimeGrid.uniform(0.0, 2 * np.pi, num_steps), 0.0, None
    if kind_of(case) == "heat2d":
        dt = 0.15 * (math.pi / 8) ** 2
        x = np.linspace(0.0, np.pi, 9)[1:-1]
        start = np.outer(np.sin(x), np.sin(x))
        return Plate(7, dt), TimeGrid.uniform(0.0, num_steps * dt, num_steps), start, 0.0
    num_nodes = given["nspace"]
    x = np.linspace(0.0, np.pi, num_nodes)
    if "space coarsens" in case["setup"]:
        heat = Rod(num_nodes)
    else:
        heat = Heat(num_nodes, np.pi, profile=np.sin(x), amplitude=wave)
    grid = TimeGrid.uniform(0.0, 2 * np.pi, num_steps)
    return heat, grid, np.sin(x), heat_guess(grid, num_nodes)


def scalar_grid(case):
    """N steps of 0.5; nonuniform: N/2 steps of 0.25, then N/2 of 0.75."""
    num_steps = case["options"]["N"]
    if "3dt/2" in case["setup"]:
        lengths = np.repeat([0.25, 0.75], num_steps // 2)
        return TimeGrid(np.concatenate([[0.0], np.cumsum(lengths)]))
    return TimeGrid.uniform(0.0, 0.5 * num_steps, num_steps)


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


def solve(case, driver="auto", comm=None):
    """Solve as published; collective."""
    model, grid, start, guess = problem_of(case)
    if "initial_guess" in case["options"]:
        guess = "sequential"
    return MGRIT(model, grid, options_of(case, driver), comm).solve(start, guess)


def same_as_published(case, residuals):
    """Tell whether all digits agree that were given; below 1e-12 is agreement enough."""
    digits = DIGITS[kind_of(case)]
    return len(residuals) == len(case["residuals"]) and all(
        (given is None and (np.isnan(computed) or kind_of(case) == "heat2d"))
        or (given is not None and given < 1e-12 and computed < 1e-12)
        or f"{computed:{digits}}" == f"{given or math.nan:{digits}}"
        for computed, given in zip(residuals, case["residuals"], strict=True)
    )
