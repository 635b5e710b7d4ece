"""Refinement while a solve iterates: more points in time, finer states in space.

After a cycle the model, or the estimated errors, say which steps of the finest level shall be
split. The solve goes on with a new hierarchy: the old points keep their states, new ones are
stepped from the old point before them, and blocks are even again. `docs/refinement.md` says more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy
from pint.grid.layout import Layout
from pint.grid.level import Level
from pint.grid.timegrid import TimeGrid
from pint.mgrit.corrections import make_corrected_driver
from pint.mgrit.relaxation import f_relax
from pint.mgrit.richardson import add_richardson
from pint.options import MGRITOptions, at_least
from pint.propagator import Propagator, RefinesSpace, RefinesTime, State, Step, declared, has

Ends = NDArray[np.float64]
Parts: TypeAlias = int | Ends
"""What a step is split into: equal parts, or parts with these ends."""


@dataclass(eq=False)
class RefinementLoop:
    """Refines the levels of a solve as often as the options allow.

    Parameters
    ----------
    options : MGRITOptions
        Limits, and the tolerance of estimated errors.

    Attributes
    ----------
    num_done : int
        Refinements so far.
    limit : str
        What a limit has prevented; empty if nothing.
    """

    options: MGRITOptions
    num_done: int = 0
    limit: str = ""

    def refined(
        self, hierarchy: Hierarchy, driver: Driver, estimates: NDArray[np.float64] | None
    ) -> tuple[Hierarchy, Driver] | None:
        """Return refined levels and their driver, None without any refinement; collective.

        Parameters
        ----------
        hierarchy : Hierarchy
            All levels of the solve; the states of the finest are moved to the new one.
        driver : Driver
            Takes the steps on these levels.
        estimates : ndarray of float64, shape (N,), or None
            Estimated error of each step of the finest level.

        Raises
        ------
        TypeError, ValueError
            If the model gives no valid refinement, on every rank.
        """
        given = self.options.refinement
        if given is None or self.num_done >= given.max_refinements:
            return None
        level = hierarchy.levels[0]
        f_relax(level, driver)
        parts, finer = self._wanted(level, driver.propagator, estimates)
        places = _places(level, parts)
        num_new = int(places[-1]) - level.grid.num_steps
        if num_new == 0 and finer is None:
            return None
        limit = given.max_points
        if num_new and limit is not None and places[-1] >= limit:
            self.limit = f"{places[-1] + 1} points would be more than max_points"
            return None
        self.num_done += 1
        return _moved(hierarchy, driver, _grid_of(level, parts), places, finer)

    def _wanted(
        self, level: Level, model: Propagator, estimates: NDArray[np.float64] | None
    ) -> tuple[list[Parts], Propagator | None]:
        """Return what each own step is split into, and the model in a finer space; collective."""
        with level.comm.collective():
            parts = list(self._parts(level, model, estimates))
            finer = model.refined_model(self.num_done) if has(model, RefinesSpace) else None
        if np.unique(level.comm.allgather_blocks(np.array([finer is None]))).size > 1:
            raise ValueError(
                "refined_model returned None on some ranks only: let it not depend on them"
            )
        return parts, finer

    def _parts(
        self, level: Level, model: Propagator, estimates: NDArray[np.float64] | None
    ) -> Iterator[Parts]:
        """Yield what each own step is split into."""
        if not has(model, RefinesTime):
            first = level.block.start + level.targets.start - 2
            own = slice(first, level.block.stop - 1)
            yield from self._factors(level.grid, estimates)[own].tolist()
            return
        slots = range(level.targets.start, level.num_slots)
        for slot, step in zip(slots, level.single_steps(slots), strict=True):
            point = level.block.start + slot - 1
            error = np.nan if estimates is None else float(estimates[point - 1])
            given = model.refine(level.u[slot, ...], level.u[slot - 1, ...], step, error)
            yield _checked(given, step, point)

    def _factors(self, grid: TimeGrid, estimates: NDArray[np.float64] | None) -> NDArray[np.int64]:
        """Return into how many parts errors of order dt^(order + 1) want each step to be split."""
        factors = np.ones(grid.num_steps, dtype=np.int64)
        given, richardson = self.options.refinement, self.options.richardson
        tolerance = None if given is None else given.error_tolerance
        if given and richardson and tolerance is not None and estimates is not None:
            order = richardson.integrator_order
            large = estimates > tolerance
            wanted = np.ceil((estimates[large] / tolerance) ** (1 / (order + 1)))
            factors[large] = np.clip(wanted, 2, given.factor)
        return factors


def check_refinement(propagator: Propagator, options: MGRITOptions) -> None:
    """Raise ValueError unless either the model or an error estimate selects steps."""
    if options.refinement is None:
        return
    name, by_errors = type(propagator).__name__, options.refinement.error_tolerance is not None
    if not (by_errors or has(propagator, RefinesTime) or has(propagator, RefinesSpace)):
        raise ValueError(
            f"refinement needs a criterion: set richardson and error_tolerance, or give {name} a "
            "method refine or refined_model"
        )
    if by_errors and has(propagator, RefinesTime):
        raise ValueError(
            f"{name} refines by its own method and error_tolerance asks for another: leave one out"
        )


def _even(step: Step, factor: int) -> Ends:
    """Return the ends of `factor` equal parts of a step."""
    ends: Ends = step.start + np.arange(1, factor + 1) / factor * step.dt
    ends[-1] = step.stop
    return ends


def _checked(given: Any, step: Step, point: int) -> Parts:
    """Return a model's answer, if it is one."""
    where = f"refine returned {given!r} for the step to point {point}, time {step.stop:.6g}"
    if hasattr(given, "__index__") and np.ndim(given) == 0:
        try:
            at_least("the factor", given, 1)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        return int(given)
    ends = _as_numbers(given)
    if ends is None:
        raise TypeError(f"{where}, expected an integer or the ends of sub-steps")
    increases = ends.ndim == 1 and bool((np.diff(ends, prepend=step.start) > 0).all())
    if ends.size == 0 or not increases or ends[-1] != step.stop:
        raise ValueError(
            f"{where}: ends of sub-steps must increase from after {step.start} to {step.stop}"
        )
    return ends


def _as_numbers(given: Any) -> Ends | None:
    """Return what a model gave as an array; None if it is no numbers."""
    try:
        return None if given is None else np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _places(level: Level, parts: list[Parts]) -> NDArray[np.int64]:
    """Return the index of every old point on the new grid, shape (N + 1,); collective."""
    own = [part if isinstance(part, int) else part.size for part in parts]
    counts = level.comm.allgather_blocks(np.array(own, dtype=np.int64))
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def _grid_of(level: Level, parts: list[Parts]) -> TimeGrid:
    """Return the new grid; collective."""
    slots = range(level.targets.start, level.num_slots)
    own = [
        _even(step, part) if isinstance(part, int) else part
        for step, part in zip(level.single_steps(slots), parts, strict=True)
    ]
    every = level.comm.allgather_blocks(np.concatenate([np.zeros(0), *own]))
    return TimeGrid(np.concatenate([level.grid.times[:1], every]))


def _moved(
    hierarchy: Hierarchy,
    old_driver: Driver,
    grid: TimeGrid,
    places: NDArray[np.int64],
    finer: Propagator | None,
) -> tuple[Hierarchy, Driver]:
    """Return new levels with even blocks that hold the states of the old ones; collective."""
    options, comm, old = hierarchy.options, hierarchy.comm, hierarchy.levels[0]
    layout = Layout.balanced(grid.num_steps, comm.size, options.factors(grid.num_steps))
    with comm.collective():
        u, driver = _in_finer_space(hierarchy, old_driver, finer)
        new = Hierarchy.build(grid, layout, options, comm, hierarchy.watch)
        add_richardson(new.levels, options)
        new.on_visit = hierarchy.on_visit
        new.allocate(u[0, ...], driver.restrict, with_sources=False)
        driver.num_steps = old_driver.num_steps
        driver.reattach(new)
    old.u = None
    finest = new.levels[0]
    _send(u, old, finest, places)
    # The old points act as C-points, and the new ones as F-points.
    f_relax(dataclasses.replace(finest, m=places, richardson=None), driver)
    return new, driver


def _in_finer_space(
    hierarchy: Hierarchy, driver: Driver, finer: Propagator | None
) -> tuple[State, Driver]:
    """Return the states, ghost included, in the space to go on with, and the model's driver."""
    level, model = hierarchy.levels[0], driver.propagator
    if finer is None:
        return level.u, driver
    if not isinstance(finer, Propagator):
        raise TypeError(
            f"refined_model returned {type(finer).__name__}, expected a Propagator or None"
        )
    driver = make_corrected_driver(finer, hierarchy.options)
    driver.compile()
    first = max(level.block.start - 1, 0)
    times = level.grid.times[first : first + level.num_slots]
    times = np.concatenate([times[:1], times]) if 0 in level.block else times
    xp = array_api_compat.array_namespace(level.u)
    states = [model.prolong(level.u[s, ...], float(times[s])) for s in range(level.num_slots)]
    shape = tuple(np.shape(states[0]))
    expected = declared(finer)[0]
    if expected not in (None, shape):
        raise ValueError(
            f"prolong returned shape {shape}, the states of the finer model have {expected}"
        )
    return xp.stack([xp.asarray(state) for state in states]), driver


def _send(u: State, old: Level, new: Level, places: NDArray[np.int64]) -> None:
    """Bring the states at the old points, with a ghost before them, to their new owners."""
    cuts = np.searchsorted(places, new.layout.bounds)  # new owners' blocks among the old points
    rank, requests = old.comm.rank, []
    arrivals: list[tuple[State, range]] = []
    xp = array_api_compat.array_namespace(u)
    for other in range(old.comm.size):
        leaving = _common(old.block, range(int(cuts[other]), int(cuts[other + 1])))
        coming = _common(old.layout.block(other), range(int(cuts[rank]), int(cuts[rank + 1])))
        first = leaving.start - old.block.start + 1
        part = u[first : first + len(leaving)]
        if other == rank:
            arrivals.append((part, leaving))
            continue
        if coming:
            arrivals.append((xp.empty((len(coming), *u.shape[1:]), dtype=u.dtype), coming))
            requests.append(old.comm.irecv(arrivals[-1][0], other))
        if leaving:
            requests.append(old.comm.isend(part, other))
    old.wait(*requests)
    for part, points in arrivals:
        if points:
            slots = places[points.start : points.stop] - new.block.start + 1
            new.u[slots] = part


def _common(one: range, other: range) -> range:
    """Return what two ranges of points have in common; it may be empty."""
    begin = max(one.start, other.start)
    return range(begin, max(begin, min(one.stop, other.stop)))
