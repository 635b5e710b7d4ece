"""Published convergence histories of another code as problems for this one."""

import json
import math
from pathlib import Path

import numpy as np

from pint import MGRIT, AdjointSolver, MGRITOptions, Objective, TimeGrid, value_and_gradient
from pint.models.bdf2 import BDF2
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat, HeatInSpace
from pint.models.heat2d import Heat2D
from pint.models.lorenz import Lorenz
from pint.options import Delta, Refinement, Richardson
from tests.engine_models import Driven, Forced, Plate

PUBLISHED = json.loads((Path(__file__).parent / "data" / "mgrit_histories.json").read_text())
DIGITS = {
    "scalar": ".11g",
    "heat1d": ".8g",
    "heat2d": ".10g",
    "bdf2": ".11g",
    "lorenz": ".9g",
    "richardson": ".11g",
    "refine": ".11g",
    "periodic": ".11g",
    "adjoint": "",
}
"""How many of the 11 digits given are not the rounding of one code or another."""
SKIP = ("bdf2", "adjoint", "refine", "periodic")
"""Kinds of cases that skip the first way down where they do not say."""
CASES = {case["name"]: case for case in PUBLISHED["cases"] if case["name"].split("-")[0] in DIGITS}


def kind_of(case):
    return case["name"].split("-")[0]


def drivers_of(case):
    """Those that can: BDF2 has no kernel, corrected steps have none."""
    can_compile = kind_of(case) != "bdf2" and "delta_correction" not in case["options"]
    return ["loop", "stack", "compiled"] if can_compile else ["loop", "stack"]


def options_of(case, driver):
    """Translate the published options; what they leave out, their set-ups say in words."""
    given = case["options"]
    heat = kind_of(case) == "heat1d"
    relax = given.get("relax", 0 if kind_of(case) == "lorenz" else 1)
    by_relaxation = "coarsest level by relaxation" in case["setup"] or given.get(
        "relax_coarsest", ""
    ).startswith("relaxation only")
    return MGRITOptions(
        levels=given.get("max_levels", 30),
        coarsening=given.get("coarsening", 2),
        min_coarse=given.get("min_coarse", {"heat1d": 3, "richardson": 8}.get(kind_of(case), 2)),
        cycle=given.get("cycle", "V"),
        relax=tuple(relax) if isinstance(relax, list) else relax,
        relax_weight=given.get("relax_weight", 1.0),
        max_iterations=given.get("max_iterations", 30 if heat else 100),
        tolerance=tolerance_of(case),
        skip_first_down=given.get("skip_first_down", kind_of(case) in SKIP),
        coarsest="relaxation" if by_relaxation else "gather",
        delta=Delta(given["delta_correction"]) if given.get("delta_correction") else None,
        periodic=given.get("periodic", False),
        driver=driver,
        richardson=Richardson(1, extrapolate=True) if given.get("richardson") else None,
        refinement=Refinement(7) if given.get("refine") else None,
    )


def tolerance_of(case):
    """None where the published number of iterations is fixed."""
    given = case["options"]
    if kind_of(case) == "heat2d" or "initial_guess" in given:
        return None
    if kind_of(case) == "richardson":
        return 1e-12 / math.sqrt(0.5 / 255)
    if kind_of(case) != "heat1d":
        return given.get("tolerance", {"lorenz": 1e-4, "adjoint": 1e-15}.get(kind_of(case), 1e-6))
    time, space = 2 * math.pi / (given["N"] - 1), math.pi / (given["nspace"] - 1)
    return 1e-7 / (math.sqrt(time) * math.sqrt(space))


class Touched(Dahlquist):
    """Splits steps that touch t = 2.5 and are longer than 1e-3 into 100 parts."""

    def refine(self, new, u, step, error):
        touches = step.start - 1e-5 <= 2.5 <= step.stop + 1e-5
        return 100 if touches and step.dt > 1e-3 else 1


def problem_of(case, driver="auto"):
    """Return model, grid, initial value and guess."""
    return {
        "scalar": scalar_problem,
        "refine": refined_problem,
        "richardson": forced_problem,
        "adjoint": scalar_problem,
        "heat1d": heat_problem,
        "heat2d": plate_problem,
        "bdf2": pair_problem,
        "lorenz": lorenz_problem,
        "periodic": ring_problem,
    }[kind_of(case)](case, driver)


def scalar_problem(case, driver):
    return Dahlquist(-1.0), scalar_grid(case), 1.0, 0.456


def refined_problem(case, driver):
    return Touched(), TimeGrid.uniform(0.0, 5.0, case["options"]["N"]), 1.0, 0.456


def forced_problem(case, driver):
    return Forced(), TimeGrid.uniform(0.0, 0.5, case["options"]["N"]), 1.0, 0.456


def ring_problem(case, driver):
    return Driven(), TimeGrid.uniform(0.0, 2 * np.pi, case["options"]["N"]), 0.0, None


def scalar_grid(case):
    """N steps of 0.5; nonuniform: N/2 steps of 0.25, then N/2 of 0.75."""
    num_steps = case["options"]["N"]
    if "3dt/2" in case["setup"]:
        lengths = np.repeat([0.25, 0.75], num_steps // 2)
        return TimeGrid(np.concatenate([[0.0], np.cumsum(lengths)]))
    return TimeGrid.uniform(0.0, 0.5 * num_steps, num_steps)


def plate_problem(case, driver):
    """The model that users have; it has no kernel, so that another one stands in for it."""
    num_steps, dt = case["options"]["N"], 0.15 * (math.pi / 8) ** 2
    x = np.linspace(0.0, np.pi, 9)
    start, grid = np.outer(np.sin(x), np.sin(x)), TimeGrid.uniform(0.0, num_steps * dt, num_steps)
    if driver == "compiled":
        return Plate(7, dt), grid, start[1:-1, 1:-1], 0.0
    return Heat2D(9, np.pi), grid, start, 0.0


def pair_problem(case, driver):
    num_pairs = case["options"]["N"]
    start = np.array([1.0, math.exp(-0.5)])
    return BDF2(Dahlquist(-1.0), 0.5), TimeGrid.uniform(0.0, num_pairs, num_pairs), start, 0.456


def lorenz_problem(case, driver):
    start = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])
    grid = TimeGrid.uniform(0.0, math.log(10) / 0.9 * 0.5, 256)
    return Lorenz(method="euler"), grid, start, start


def wave(t):
    return math.cos(t) - math.sin(t)


def heat_problem(case, driver):
    num_steps, num_nodes = case["options"]["N"], case["options"]["nspace"]
    x = np.linspace(0.0, np.pi, num_nodes)
    source = {"profile": np.sin(x), "amplitude": wave}
    if "space coarsens" in case["setup"]:
        num_coarsened = int(math.log2(num_nodes)) - 1
        heat = HeatInSpace(num_nodes, np.pi, num_coarsened=num_coarsened, **source)
    else:
        heat = Heat(num_nodes, np.pi, **source)
    grid = TimeGrid.uniform(0.0, 2 * np.pi, num_steps)
    return heat, grid, np.sin(x), heat_guess(grid, num_nodes)


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
    model, grid, start, guess = problem_of(case, driver)
    if "initial_guess" in case["options"]:
        guess = "sequential"
    return MGRIT(model, grid, options_of(case, driver), comm).solve(start, guess)


def value_and_slope(case, driver="auto", comm=None):
    """Return J = sum u_i^2 / 50 and its derivative by lambda, both by the engine; collective."""
    model, grid, start, _ = problem_of(case)
    objective = Objective(running=lambda u, index, times: (u**2 / 50, u / 25))
    solver = AdjointSolver(MGRIT(model, grid, options_of(case, driver), comm))
    found = value_and_gradient(objective, solver, start)
    return found.value, found.parameter_gradient[0]


def same_as_published(case, residuals):
    """Return whether all given digits agree, at most the digits of states of size 1.

    Residuals below 1e-12 agree.
    """
    if case["residuals"] is None:
        return True
    digits = DIGITS[kind_of(case)]
    return len(residuals) == len(case["residuals"]) and all(
        (given is None and (np.isnan(computed) or kind_of(case) == "heat2d"))
        or (given is not None and given < 1e-12 and computed < 1e-12)
        or (given is not None and abs(computed - given) < 1e-16)
        or f"{computed:{digits}}" == f"{given or math.nan:{digits}}"
        for computed, given in zip(residuals, case["residuals"], strict=True)
    )
