"""Costs of a new hierarchy, from the costs of a measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.optimize import nnls

from pint.scaling.costs import Costs, Key, Table
from pint.scaling.schedule import PredictedRun
from pint.scaling.workload import GRUWorkload, Workload, workload_of

_STEPS = ("sweep", "chain", "residual", "coarse_rhs", "linearize")
"""Work that evaluates gates."""

_HIERARCHY = ("levels", "coarsening", "relax", "min_coarse", "coarsest", "truncation")


def fitted(costs: Costs, way: Workload) -> Costs:
    """Return costs for other levels, factors and coarse steps.

    A coarse step of a network takes a time that grows with its gate evaluations in a straight line,
    through what was measured on levels with different numbers of them; in proportion where there
    is one number only. One level is exact stepping, which is measured apart. A step of other models
    takes as long on every level.

    Parameters
    ----------
    costs : Costs
        Measured costs; their `problem` has the levels.
    way : Workload
        With the levels that are wanted.

    Raises
    ------
    ValueError
        If nothing that was measured is like what is wanted.
    """
    if len(way.options.factors(way.steps)) == 0:
        return costs.stepping()
    measured = workload_of(costs.problem)
    if not isinstance(way, GRUWorkload) or not isinstance(measured, GRUWorkload):
        return costs
    before, wanted = measured.evaluations(), way.evaluations()
    if len(before) == 1:
        raise ValueError(
            "the costs are of one level and have no coarse steps: measure them with --levels 3"
        )
    tables: dict[Key, Table] = {
        key: table for key, table in costs.tables.items() if key[2] <= 0 or key[1] not in _STEPS
    }
    for solve, name in product(("forward", "adjoint"), _STEPS):
        known = _by_level(costs, solve, name, len(before))
        samples = [(before[level], table) for level, table in known.items()]
        if not samples:
            continue
        if name == "chain":
            finest = [key for key in costs.exact if key[0] == solve and key[1].startswith(name)]
            samples += [(1, costs.exact[key]) for key in finest]
        for level in range(1, len(wanted)):
            is_known = level in known and before[level] == wanted[level]
            table = known[level] if is_known else _table_of(samples, wanted[level])
            tables[solve, name, level] = table
    return replace(costs, tables=tables)


def _by_level(costs: Costs, solve: str, name: str, num_levels: int) -> dict[int, Table]:
    """Return the tables of some work on coarse levels."""
    keys = sorted(key for key in costs.tables if key[:2] == (solve, name))
    return {level: costs.tables[solve, name, level] for *_, level in keys if 0 < level < num_levels}


def _table_of(samples: Sequence[tuple[int, Table]], evaluations: int) -> Table:
    """Return the seconds of steps with `evaluations` evaluations, from steps with other numbers."""
    counts = np.array([count for count, _ in samples], dtype=float)
    sizes = np.unique(np.concatenate([table.sizes for _, table in samples]))
    columns = [counts] if np.unique(counts).size == 1 else [np.ones(counts.size), counts]
    wanted = np.array([1.0, evaluations])[-len(columns) :]
    seconds = []
    for size in sizes:
        known = np.array([table.at(size) for _, table in samples])
        seconds.append(wanted @ nnls(np.stack(columns, axis=1), known)[0])
    return Table(sizes, np.array(seconds))


def run_of(way: Workload, costs: Costs, groups: int = 1) -> PredictedRun:
    """Return the run of the dry run, each group with the sequences of the largest one.

    Cycles that are replayed are timed as a whole: the costs have them of the measured levels only.

    Parameters
    ----------
    way : Workload
        What is run.
    costs : Costs
        Whose `problem` was measured.
    groups : int, default 1
        Groups of ranks that share the batch; some may be without a sequence.
    """
    if isinstance(way, GRUWorkload) and way.batch % groups:
        rows = -(-way.batch // groups)
        return replace(way.changed(batch=rows).run(), groups=groups)
    run, measured = way.run(groups), workload_of(costs.problem)
    is_measured = way.levels == 1 or all(
        getattr(way, name) == getattr(measured, name) for name in _HIERARCHY
    )
    return replace(run, replays=run.replays and is_measured)


def share_of(way: Workload, groups: int) -> float:
    """Return the part of the batch of the largest group."""
    batch = way.batch if isinstance(way, GRUWorkload) else 1
    return -(-batch // groups) / batch
