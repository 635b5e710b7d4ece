"""The costs of a workload: what was measured at several lengths, and on several ranks, as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pint.parallel.comm import as_communicator
from pint.scaling.costs import Costs, Key, Table
from pint.scaling.workload import GRUWorkload, Workload

Track = Callable[[Sequence[int]], Iterable[int]]


def measured(
    workload: Workload, lengths: Sequence[int], repeats: int, track: Track = lambda lengths: lengths
) -> Costs:
    """Return the costs of cycles and of exact stepping; not collective, on one process.

    Parameters
    ----------
    workload : Workload
        What is solved.
    lengths : sequence of int
        Of the problems.
    repeats : int
        Of which medians are taken.
    track : callable, optional
        Shows how far it is.
    """
    exact = exactly(workload)
    cycles, steps = [], []
    for length in track(sorted(lengths)):
        steps.append(exact.measure([length], repeats))
        cycles.append(workload.measure([length], repeats))
    stepping = joined(steps)
    return replace(
        joined(cycles),
        exact=stepping.tables,
        alone=_alone(exact, stepping, max(lengths), repeats),
        problem=workload.described(),
    )


def exactly(workload: Workload) -> Any:
    """Return the workload with exact stepping."""
    changes = {"levels": 1, "coarsest": "gather", "truncation": 0, "forward_iterations": 1}
    if isinstance(workload, GRUWorkload):
        changes["backward_iterations"] = 1
    return workload.changed(**changes)


def _alone(exact: Workload, costs: Costs, length: int, repeats: int) -> float:
    """Return the part of a chain's time that does not depend on the batch."""
    if not isinstance(exact, GRUWorkload) or exact.batch == 1:
        return 1.0
    single = exact.changed(batch=1).measure([length], repeats)
    one, whole = (
        sum(table.at(length) for key, table in found.tables.items() if key[1].startswith("chain"))
        for found in (single, costs)
    )
    return float(np.clip((one / whole - 1 / exact.batch) / (1 - 1 / exact.batch), 0.0, 1.0))


def joined(parts: Sequence[Costs]) -> Costs:
    """Return the costs that were measured at different lengths as one.

    Where several have the same size, as of work that does not depend on the length, it is the
    median of them.
    """
    found: dict[Key, dict[int, list[float]]] = {}
    for part in parts:
        for key, table in part.tables.items():
            for size, seconds in zip(table.sizes.tolist(), table.seconds.tolist(), strict=True):
                found.setdefault(key, {}).setdefault(size, []).append(seconds)
    tables = {}
    for key, by_size in found.items():
        sizes = sorted(by_size)
        medians = [float(np.median(by_size[size])) for size in sizes]
        tables[key] = Table(np.array(sizes, dtype=np.int64), np.array(medians))
    return Costs(parts[-1].machine, tables, float(np.median([part.call for part in parts])))


def mean_costs(costs: Costs, comm: Any) -> Costs:
    """Return the mean of the measurements of all ranks, equal on every rank; collective.

    Parameters
    ----------
    costs : Costs
        The costs of this rank, with tables of equal keys on every rank.
    comm : mpi4py communicator or Communicator
        The ranks.
    """
    ranks = as_communicator(comm)

    def mean(tables: dict[Key, Table]) -> dict[Key, Table]:
        return {
            key: Table(tables[key].sizes, ranks.sum(tables[key].seconds) / ranks.size)
            for key in sorted(tables)
        }

    names = sorted(costs.baselines)
    values = [costs.call, costs.alone, *(costs.baselines[name] for name in names)]
    call, alone, *others = (ranks.sum(np.array(values)) / ranks.size).tolist()
    return replace(
        costs,
        tables=mean(costs.tables),
        exact=mean(costs.exact),
        call=call,
        alone=alone,
        baselines={name: others[names.index(name)] for name in costs.baselines},
    )
