"""Costs that can be worked out by hand: only gate evaluations take time."""

import numpy as np

from pint.scaling.costs import Costs, Machine, Table

FREE = Machine(latency=1e-15, bandwidth=1e30)
STEPS = ("sweep", "chain", "residual", "coarse_rhs")
NOTHING = (
    "restrict_state", "restrict_residual", "measure", "correct", "start", "rest", "linearize",
    "gradient", "turn", "bind", "head", "update",
)  # fmt: skip
SIZES = np.array([1, 1000])


def made_up(workload, second=1e-6, stacked=1.0, machine=FREE):
    """Return costs of a second for each evaluation of one interval, and less of each in a stack."""
    free = {("forward", name, -1): Table(SIZES, np.zeros(2)) for name in NOTHING}
    stack = second * np.array([1.0, 1 + 999 * stacked])
    chain = second * np.array([1.0, 1000.0])
    tables = dict(free)
    for level, evaluations in enumerate(workload.evaluations()):
        for solve in ("forward", "adjoint"):
            for name in STEPS:
                seconds = chain if name == "chain" else stack
                tables[solve, name, level] = Table(SIZES, evaluations * seconds)
    exact = {(solve, "chain", 0): Table(SIZES, chain) for solve in ("forward", "adjoint")}
    baselines = {"serial stepping": 2 * second}
    return Costs(machine, tables, 0.0, baselines, workload.described(), {**free, **exact})
