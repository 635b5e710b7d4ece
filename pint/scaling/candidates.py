"""Candidate options for training on a number of ranks, with their predicted times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from pint.scaling.costs import Costs
from pint.scaling.fit import fitted, run_of, share_of
from pint.scaling.measurement import exactly
from pint.scaling.predict import predict
from pint.scaling.workload import GRUWorkload

CYCLES = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 4))
"""Forward and backward iterations that are tried."""

COARSE_STEPS: tuple[tuple[str, int], ...] = (
    ("implicit", 1), ("midpoint", 4), ("midpoint", 8), ("midpoint", 16),
    ("averaged", 2), ("averaged", 4), ("averaged", 8),
)  # fmt: skip
"""What a coarse step does, and the most finest steps of its parts."""

KEPT = 20
"""Hierarchies and splits of ranks, the fastest, whose coarse steps and cycles are varied."""

TRUNCATIONS = (0, 4, 8)
"""Points of local coarse grids; 0 is the whole coarsest level."""


@dataclass(eq=False)
class Candidate:
    """A way to train.

    Attributes
    ----------
    workload : GRUWorkload
        With its options.
    groups : int
        Groups of ranks that share the batch.
    seconds : float
        Of a step, predicted.
    error : float
        Greatest relative error of a gradient, measured; NaN if it was not.
    """

    workload: GRUWorkload
    groups: int
    seconds: float
    error: float = field(default=float("nan"))

    @property
    def label(self) -> str:
        """What it does, in a few words."""
        w = self.workload
        idle = f" (on {w.batch} of {self.groups})" if self.groups > w.batch else ""
        if w.levels == 1:
            return f"exact stepping, {self.groups} x batch{idle}"
        coarsest = f" truncated to {w.truncation}" if w.truncation else ""
        parts = "" if w.coarse_step == "implicit" else f" {w.substep}"
        return (
            f"levels {w.levels}, m {w.coarsening}, relax {w.relax}, {w.coarse_step}{parts}, "
            f"{w.forward_iterations}+{w.backward_iterations} cycles{coarsest}, "
            f"{self.groups} x batch"
        )

    def options(self, ranks: int) -> dict[str, Any]:
        """Return the options of ``apps.train`` for a number of ranks."""
        w, has_parts = self.workload, self.workload.coarse_step in ("averaged", "midpoint")
        return {
            "hidden": w.hidden,
            "layers": w.layers,
            "cell": w.cell,
            "batch": w.batch,
            "levels": w.levels,
            "coarsening": w.coarsening,
            "relax": w.relax,
            "coarse-step": w.coarse_step,
            **({"substep": w.substep} if has_parts else {}),
            "coarsest": w.coarsest,
            **({"truncation": w.truncation} if w.truncation else {}),
            "forward-iterations": w.forward_iterations,
            "backward-iterations": w.backward_iterations,
            "time-ranks": ranks // self.groups,
        }


def candidates(
    workload: GRUWorkload,
    costs: Costs,
    ranks: int,
    note: Callable[[float], None] = lambda _: None,
) -> list[Candidate]:
    """Return candidates for a number of ranks with their predicted times, the fastest first.

    Exact stepping has no error, so that the last one is its fastest split of the ranks, and ways
    that are slower are left out. Coarse steps and cycles are varied for the `KEPT` fastest
    hierarchies.

    Parameters
    ----------
    workload : GRUWorkload
        The network and its batch.
    costs : Costs
        Of such a network, measured with at least two levels.
    ranks : int
        All ranks.
    note : callable, optional
        Called with the part that is done.

    Raises
    ------
    ValueError
        If the costs lack exact stepping, or coarse steps.
    """
    splits = [groups for groups in range(1, ranks + 1) if ranks % groups == 0]
    found = [_exact(workload, costs, ranks, groups) for groups in splits]
    last = min(found, key=lambda one: one.seconds)
    plans = [
        (way, groups)
        for groups in splits
        if groups <= workload.batch
        for way in hierarchies(workload, ranks // groups)
    ]
    times = []
    for index, (way, groups) in enumerate(plans):
        times.append(_predicted(_cycled(way, CYCLES[0]), costs, ranks, groups))
        note((index + 1) / (len(plans) + KEPT))
    order = [index for index in np.argsort(times)[:KEPT].tolist() if times[index] < last.seconds]
    faster: list[Candidate] = []
    for count, index in enumerate(order):
        way, groups = plans[index]
        faster += _faster(way, costs, ranks, groups, last.seconds)
        note((len(plans) + count + 1) / (len(plans) + KEPT))
    return [*sorted(faster, key=lambda one: one.seconds), last]


def _exact(workload: GRUWorkload, costs: Costs, ranks: int, groups: int) -> Candidate:
    way = exactly(workload)
    return Candidate(way, groups, _predicted(way, costs, ranks, groups))


def hierarchies(workload: GRUWorkload, size: int) -> Iterator[GRUWorkload]:
    """Yield levels, factors, relaxation and the coarsest solve for ranks along time.

    Their coarse steps are averaged ones of parts of 4 finest steps.
    """
    steps = workload.steps
    if size == 1:
        return  # what one rank could do along time, exact stepping does sooner
    for coarsening, truncation in product(_coarsenings(steps, size), TRUNCATIONS):
        num_coarse = steps
        for m in coarsening:
            num_coarse //= m
        if truncation and num_coarse <= 2 * truncation:
            continue
        for relax in (0, (0, 1)) if len(coarsening) > 1 else (0, 1):
            yield workload.changed(
                levels=len(coarsening) + 1,
                coarsening=coarsening,
                relax=relax,
                min_coarse=1,
                coarse_step="averaged",
                substep=min(4, coarsening[0]),
                coarsest="truncated" if truncation else "gather",
                truncation=truncation,
            )


def _coarsenings(steps: int, size: int) -> Iterator[tuple[int, ...]]:
    """Yield factors, level by level: coarsest levels have 4 steps or more, but with two levels."""
    one_each = -(-(steps + 1) // size)
    for first in sorted({m for m in (4, 16, 64, one_each) if 2 <= m <= steps // 2}):
        yield (first,)
        for second in (2, 4, 8):
            if steps // (first * second) >= 4:
                yield first, second
        factors: tuple[int, ...] = (first, 4, 4)
        num_coarse = steps // (16 * first)
        while num_coarse >= 4 and len(factors) < 6:
            yield factors
            factors, num_coarse = (*factors, 4), num_coarse // 4


def _faster(
    way: GRUWorkload, costs: Costs, ranks: int, groups: int, bound: float
) -> Iterator[Candidate]:
    """Yield what is faster than a bound: of each coarse step, numbers of cycles."""
    for coarse_step, substep in COARSE_STEPS:
        if coarse_step == "implicit" and way.cell != "implicit":
            continue
        if coarse_step != "implicit" and substep > way.first_factor:
            continue
        tried = way.changed(coarse_step=coarse_step, substep=substep)
        for cycles, seconds in _by_cycles(tried, costs, ranks, groups):
            if seconds < bound:
                yield Candidate(_cycled(tried, cycles), groups, seconds)


def _cycled(way: GRUWorkload, cycles: tuple[int, int]) -> GRUWorkload:
    return way.changed(forward_iterations=cycles[0], backward_iterations=cycles[1])


def _by_cycles(
    way: GRUWorkload, costs: Costs, ranks: int, groups: int
) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield predicted seconds of each number of cycles: every further one takes as long."""
    first, second, third = (
        _predicted(_cycled(way, cycles), costs, ranks, groups)
        for cycles in ((1, 1), (2, 1), (2, 2))
    )
    for cycles in CYCLES:
        further = (cycles[0] - 1) * (second - first) + (cycles[1] - 1) * (third - second)
        yield cycles, first + further


def _predicted(way: GRUWorkload, costs: Costs, ranks: int, groups: int) -> float:
    run, share = run_of(way, costs, groups), share_of(way, groups)
    return predict(run, fitted(costs, way), ranks, share).seconds
