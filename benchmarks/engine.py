"""The engine's speed: scalar and heat equations, by every driver, and what grows with the grid."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._cases import CASES, Case, scalar
from benchmarks._measure import extra_megabytes, in_new_process, medians, save
from pint import MGRIT, MGRITOptions, Propagator, Result, Step, TimeGrid

DRIVERS = ("sequential", "loop", "stack", "compiled")
SIZES = (10**4, 10**5, 10**6, 10**7)


def main() -> int:
    """Measure, print a table and, as the last line, JSON; write all to benchmarks/results."""
    args = _parse()
    if args.memory:
        print(json.dumps(_memory(*args.memory)))
        return 0
    rows = [row for name in CASES for row in _rows(name, args.rounds, args.fast)]
    growth = _growth()
    ratios = _ratios(rows, growth)
    if not args.json:
        _print_table(rows, growth)
    result = {"command": "python -m benchmarks.engine", "ratios": ratios}
    save("engine", {**result, "rows": rows, "growth": growth})
    print(json.dumps(ratios))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="no table")
    parser.add_argument(
        "--rounds", type=int, default=7, help="of the quick ways, in turn; %(default)s if left out"
    )
    parser.add_argument("--fast", action="store_true", help="leave out the loop driver")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "DRIVER"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _rows(name: str, rounds: int, fast: bool) -> list[dict[str, Any]]:
    """Measure a case by every driver: the quick ones in turn, the loop driver once."""
    case = CASES[name]()
    solvers = {driver: case.solver(driver) for driver in DRIVERS if not (fast and driver == "loop")}
    results: dict[str, Result] = {}
    actions = {driver: partial(_solve, case, solvers, results, driver) for driver in solvers}
    quick = {driver: actions.pop(driver) for driver in ("sequential", "compiled")}
    for action in quick.values():
        action()  # notes the cycle down
    seconds = medians(quick, rounds)
    for driver, action in actions.items():
        seconds |= medians({driver: action}, 1 if driver == "loop" else 3)
    rows = []
    for driver in solvers:
        result, num_fine = results[driver], case.grid.num_steps
        steps = sum(result.num_steps.values())
        rows.append(
            {
                "case": name,
                "driver": driver,
                "seconds": seconds[driver],
                "levels": len(result.coarsening) + 1,
                "iterations": result.num_iterations,
                "residuals": [None if np.isnan(r) else r for r in result.residuals],
                "ns_per_fine_step_and_iteration": (
                    1e9 * seconds[driver] / num_fine / result.num_iterations
                ),
                "ns_per_step_taken": 1e9 * seconds[driver] / steps,
                "compile_or_load_seconds": result.compile_seconds,
                **in_new_process("benchmarks.engine", "--memory", name, driver),
            }
        )
        print(f"{name} {driver}: {seconds[driver]:.4g} s", file=sys.stderr, flush=True)
    return rows


def _solve(case: Case, solvers: dict[str, MGRIT], results: dict[str, Result], driver: str) -> None:
    results[driver] = solvers[driver].solve(case.initial_value, 0.456)


def _memory(name: str, driver: str) -> dict[str, float]:
    """Return MB above an interpreter with all modules and machine code loaded."""
    small = CASES[name](num_steps=512)
    small.solver(driver).solve(small.initial_value, 0.456)

    def solve() -> None:
        case = CASES[name]()
        # The loop driver is slow; two iterations hold what all of them hold.
        changes = {"max_iterations": 2, "tolerance": None} if driver == "loop" else {}
        case.solver(driver, **changes).solve(case.initial_value, 0.456)

    return {"extra_MB": extra_megabytes(solve)}


def _growth() -> list[dict[str, float]]:
    """Return seconds per cycle for grids of more and more points, coarsening 4, FCF."""
    rows = []
    for num_steps in SIZES:
        case = scalar(4, 30, num_steps, tolerance=None, max_iterations=12)
        begin = time.perf_counter()
        solver = case.solver()
        setup = time.perf_counter() - begin - solver.compile_seconds
        stamps: list[float] = []
        for _ in range(3):
            times: list[float] = []
            solver.solve(1.0, on_iteration=lambda i, r, t=times: t.append(time.perf_counter()))
            stamps += np.diff(times)[2:].tolist()  # from when the cycle is noted down
        rows.append(
            {
                "points": num_steps,
                "setup_seconds": setup,
                "seconds_per_cycle": float(np.median(stamps)),
            }
        )
    return rows


class _Plain(Propagator):
    """A step of NumPy that costs next to nothing."""

    state_shape = (16,)
    dtype = np.dtype(np.float64)

    def step(self, u: Any, step: Step) -> Any:
        return u / (1 + step.dt)


def _loop_overhead() -> float:
    """Return the microseconds per step of the loop driver, without the step itself."""
    model, grid = _Plain(), TimeGrid.uniform(0, 10, 20_000)
    solver = MGRIT(model, grid, MGRITOptions(levels=4, coarsening=4, max_iterations=3))
    u, step = np.ones(16), Step(0, 0.0, 0.1, 1, 1)
    num_steps = sum(solver.solve(u).num_steps.values())

    def steps_alone() -> None:
        for _ in range(num_steps):
            model.step(u, step)

    seconds = medians({"solve": lambda: solver.solve(u), "steps": steps_alone}, 5)
    return 1e6 * (seconds["solve"] - seconds["steps"]) / num_steps


def _ratios(rows: list[dict[str, Any]], growth: list[dict[str, float]]) -> dict[str, float]:
    """Return what the last line prints."""
    compiled = {row["case"]: row for row in rows if row["driver"] == "compiled"}
    points = np.log([row["points"] for row in growth])
    seconds = np.log([row["seconds_per_cycle"] for row in growth])
    return {
        "scalar_m4_seconds": compiled["scalar_m4"]["seconds"],
        "scalar_m2_seconds": compiled["scalar_m2"]["seconds"],
        "scalar_m16_seconds": compiled["scalar_m16"]["seconds"],
        "scalar_m4_extra_MB": compiled["scalar_m4"]["extra_MB"],
        "heat129_seconds": compiled["heat129"]["seconds"],
        "heat1025_seconds": compiled["heat1025"]["seconds"],
        "loop_overhead_us": _loop_overhead(),
        "growth_slope": float(np.polyfit(points, seconds, 1)[0]),
    }


def _print_table(rows: list[dict[str, Any]], growth: list[dict[str, float]]) -> None:
    table = Table(title="Whole solves; memory above an interpreter with all code loaded")
    columns = {
        "seconds": "s",
        "iterations": "iterations",
        "ns_per_fine_step_and_iteration": "ns per fine step and iteration",
        "ns_per_step_taken": "ns per step taken",
        "extra_MB": "MB",
    }
    for heading in ("case", "driver", *columns.values()):
        table.add_column(heading)
    for row in rows:
        table.add_row(row["case"], row["driver"], *(f"{row[name]:.4g}" for name in columns))
    Console(width=110).print(table)
    for row in growth:
        per_point = 1e9 * row["seconds_per_cycle"] / row["points"]
        print(
            f"{row['points']:.0e} points: setup {row['setup_seconds']:.3g} s, "
            f"{per_point:.3g} ns per point and cycle"
        )


if __name__ == "__main__":
    sys.exit(main())
