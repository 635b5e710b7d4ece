"""How much faster the published experiment can be: cell evaluations that follow one another.

The schedule of the solver is walked with a cost of 1 for each gate evaluation of a point, forward
or backward, and free messages; nothing is measured. Gradient errors are from
benchmarks.fidelity (UCI-HAR subset, weights after 12 epochs, one layer).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from benchmarks import _measure
from pint.scaling.costs import Costs, Machine, Table
from pint.scaling.schedule import Schedule
from pint.scaling.simulate import Timing, simulate
from pint.scaling.workload import GRUWorkload

RANKS = (4, 8, 16, 32)
FRAMES, FEATURES, HIDDEN = 128, 1000, 100
FREE = Machine(name="free messages", latency=1e-12, bandwidth=1e30)
WAYS: dict[str, dict[str, Any]] = {
    "stepping": {"levels": 1},
    "implicit, 2+1": {"coarse_step": "implicit", "backward_iterations": 1},
    "midpoint 16, 2+1": {"coarse_step": "midpoint", "substep": 16, "backward_iterations": 1},
    "midpoint 4, 3+2": {"coarse_step": "midpoint", "substep": 4, "forward_iterations": 3},
    "averaged 4, 2+1": {"coarse_step": "averaged", "substep": 4, "backward_iterations": 1},
    "averaged 4, 2+2": {"coarse_step": "averaged", "substep": 4},
}


def main() -> int:
    """Print the table; JSON is the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="4 8 16 32 if left out")
    args = parser.parse_args()
    rows = [_row(name, ranks) for name in WAYS for ranks in args.ranks]
    _measure.print_table("Upper bounds of the speedup over stepping on one rank", rows)
    print(json.dumps({"frames": FRAMES, "features": FEATURES, "hidden": HIDDEN, "rows": rows}))
    return 0


def _row(name: str, ranks: int) -> dict[str, Any]:
    workload = GRUWorkload(
        steps=FRAMES, features=FEATURES, hidden=HIDDEN, relax=(0, 1), coarsest="pipelined",
        **WAYS[name],
    )  # fmt: skip
    schedule = Schedule.of(workload.run(), ranks)
    timing = simulate(schedule, _counting(workload))
    num_inputs = _num_inputs(schedule)
    forward, backward = _spent(timing, "forward"), _spent(timing, "adjoint")
    both = 2 * FRAMES / (forward + backward)
    return {
        "way": name,
        "ranks": ranks,
        "forward": FRAMES / forward,
        "backward": FRAMES / backward,
        "total": both,
        "inputs": num_inputs,
        "with inputs": _with_inputs(both, num_inputs, ranks),
    }


def _counting(workload: GRUWorkload) -> Costs:
    """Return costs that count the evaluations of a step of each level."""
    tables = {}
    one = np.array([1])
    for level, count in enumerate(workload.evaluations()):
        for solve in ("forward", "adjoint"):
            for name in ("sweep", "chain", "residual", "coarse_rhs"):
                tables[solve, name, level] = Table(one, np.array([float(count)]))
        tables["forward", "sweep recorded", level] = tables["forward", "sweep", level]
        # Derivatives of coarse steps take an evaluation each; the finest ones were recorded.
        tables["adjoint", "linearize", level] = Table(one, np.array([float(count * (level > 0))]))
    for name in (
        "restrict_state", "restrict_residual", "measure", "correct", "start", "rest", "bind",
        "head", "turn", "update", "gradient",
    ):  # fmt: skip
        tables["", name, -1] = Table(one, np.zeros(1))
    return Costs(FREE, tables)


def _spent(timing: Timing, solve: str) -> float:
    """Return the evaluations one after another of a solve, on the rank that is done last."""
    last = int(timing.clocks.argmax())
    return float(sum(v[last] for name, v in timing.phases.items() if name.startswith(solve)))


def _num_inputs(schedule: Schedule) -> int:
    """Return the inputs that the rank with the most of them multiplies."""
    return max(
        one.size
        for program in schedule.programs
        for one in program.operations
        if one.name == "bind"
    )


def _with_inputs(bound: float, num_inputs: int, ranks: int) -> float:
    """Return the bound with the products of the inputs.

    Forward, a rank multiplies those that its steps read; for the gradient, its own frames.
    """
    inputs, states = FEATURES / (FEATURES + HIDDEN), HIDDEN / (FEATURES + HIDDEN)
    share = (num_inputs + -(-FRAMES // ranks)) / (2 * FRAMES)
    return 1 / (inputs * share + states / bound)


if __name__ == "__main__":
    sys.exit(main())
