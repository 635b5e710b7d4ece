"""Cycling until a stopping rule holds, and what is watched on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.drivers.driver import Driver
from pint.grid.hierarchy import Hierarchy
from pint.grid.slots import slots_of
from pint.mgrit.cycle import cycle, upward_cycle
from pint.mgrit.refinement import RefinementLoop
from pint.mgrit.status import Status
from pint.options import MGRITOptions
from pint.parallel.exact_sum import norm_of
from pint.propagator import FollowsResidual, has

_NOWHERE = 2**62


class Iteration:
    """Cycles until a stopping rule holds.

    Attributes
    ----------
    hierarchy : Hierarchy
        The levels of the next cycle; others after a refinement, or where points have converged.
    driver : Driver
        Takes the steps; another one after a refinement in space.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        driver: Driver,
        options: MGRITOptions,
        on_iteration: Callable[[int, float], None] | None,
    ) -> None:
        self.hierarchy = hierarchy
        self.driver = driver
        self.options = options
        self.on_iteration = on_iteration
        self.refinement = RefinementLoop(self.options)
        self.residuals: list[float] = []
        self.grid_steps: list[int] = []
        self.detail = ""
        self._first_unsettled = 0  # C-point of the finest level

    def run(self) -> Status:
        """Cycle until a rule holds; return how it ended, but for states that are not finite."""
        options = self.options
        while len(self.hierarchy.levels) == 1:
            self._tighten(0.0)
            with self._begin(cycle) as run_cycle:
                run_cycle(self.hierarchy)
            self.residuals.append(math.nan)
            if not self._refine():
                return Status.STEPPED
        self._tighten(math.inf)
        while len(self.residuals) < options.max_iterations:
            is_upward = not self.residuals and options.skip_first_down
            with self._begin(upward_cycle if is_upward else cycle) as run_cycle:
                run_cycle(self.hierarchy)
            self._end(is_upward)
            if self.detail:
                return Status.DIVERGED
            if not is_upward and self._refine():
                continue
            if self._converged():
                return Status.CONVERGED
            if self._first_unsettled > 0:
                self._leave_alone()
        return Status.MAX_ITERATIONS if options.has_tolerance else Status.COMPLETED

    def _end(self, is_upward: bool) -> None:
        """Record the residual of a cycle, and call `on_iteration`."""
        num_done = len(self.residuals)
        if is_upward:
            self.residuals.append(math.nan)
        else:
            self._observe()
        if self.on_iteration is not None:
            self.on_iteration(num_done, self.residuals[-1])

    @contextmanager
    def _begin(self, cycle: Callable[..., None]) -> Iterator[Callable[..., None]]:
        """Count a cycle, and return what runs it, or replays it, on a hierarchy."""
        watch = self.hierarchy.watch
        watch.iteration = self.driver.iteration = len(self.residuals)
        shape = self.options.shape_of(len(self.residuals))
        self.grid_steps.append(self.hierarchy.whole.levels[0].grid.num_steps)
        richardson = self.hierarchy.levels[0].richardson
        if richardson is not None:
            richardson.iteration = len(self.residuals)
        plain = partial(cycle, driver=self.driver, shape=shape)
        # on_visit needs every operation in its turn, and extrapolation is in Python.
        is_plain = richardson is not None or self.hierarchy.on_visit is not None
        with self.hierarchy.comm.exchange():
            if self.driver.replays_cycles and not is_plain:
                yield partial(self.driver.run_cycle, cycle.__name__ + shape, plain)
            else:
                yield plain

    def _refine(self) -> bool:
        """Go on with other levels, if a refinement is due and leaves cycles to do; collective."""
        options, residual = self.options, self.residuals[-1]
        if options.refinement is None or len(self.residuals) >= options.max_iterations:
            return False
        below = options.refinement.below_residual
        if below is not None and residual >= below:
            return False
        estimates = self.error_estimates()
        refined = self.refinement.refined(self.hierarchy, self.driver, estimates)
        if refined is None:
            return False
        self.hierarchy, self.driver = refined
        return True

    def error_estimates(self) -> NDArray[np.float64] | None:
        """Return the estimated error of each step, where the order is known; collective."""
        richardson = self.hierarchy.levels[0].richardson
        return None if richardson is None else richardson.estimates(self.hierarchy.comm)

    def _observe(self) -> None:
        """Record the norm of the residual."""
        finest, hierarchy = self.hierarchy.levels[0], self.hierarchy
        if finest.measured == "none":
            self.residuals.append(math.nan)
            return
        norms = np.concatenate([finest.norms[finest.c_rows], finest.f_norms])
        with hierarchy.watch.phase("messages", finest.index):
            norm = norm_of(norms, self.options.time_norm, self.driver.digits, hierarchy.comm)
        self.residuals.append(norm)
        self._settle(finest.norms[finest.c_rows])
        self._tighten(norm)
        limit = self.options.divergence_factor * max(self._first_residual, 1.0)
        if not (math.isfinite(norm) and norm <= limit):
            self.detail = self._where(norms, norm)

    def _tighten(self, norm: float) -> None:
        """Pass the residual to a model with iterative steps; F-points then no longer follow."""
        model = self.driver.model
        if has(model, FollowsResidual):
            model.set_outer_residual(norm)
            self.hierarchy.levels[0].relaxed = False

    @property
    def _first_residual(self) -> float:
        measured = [value for value in self.residuals if not math.isnan(value)]
        return measured[0] if measured else math.nan

    def _converged(self) -> bool:
        options, norm = self.options, self.residuals[-1]
        return (
            (options.tolerance is not None and norm < options.tolerance)
            or (
                options.relative_tolerance is not None
                and (norm < options.relative_tolerance * self._first_residual or norm == 0)
            )
            or self._first_unsettled == _NOWHERE
        )

    def _settle(self, norms: NDArray[np.float64]) -> None:
        """Find the first C-point whose residual is not below the local tolerance; collective."""
        finest, tolerance = self.hierarchy.levels[0], self.options.local_tolerance
        if tolerance is None:
            return
        points = np.asarray(slots_of(finest.c_steps, finest.num_slots)) + finest.block.start - 1
        bad = points[~(norms < tolerance**2)]
        first = np.array([bad[0] if bad.size else _NOWHERE])
        with self.hierarchy.watch.phase("messages", finest.index):
            self._first_unsettled = int(self.hierarchy.comm.allgather_blocks(first).min())

    def _leave_alone(self) -> None:
        """Go on with the levels from the last point before which all residuals are small."""
        grid, coarsest = self.hierarchy.levels[0].grid, self.hierarchy.levels[-1].grid
        fine = int(grid.fine_index[self._first_unsettled])
        point = int(np.searchsorted(coarsest.fine_index, fine)) - 1
        point = min(point, coarsest.num_steps - 1)
        if point > 0:
            self.hierarchy = self.hierarchy.after(point)
            self.driver.reattach(self.hierarchy)

    def check_states(self, *, local: bool) -> bool:
        """Return whether all states are finite, else name the first other point in `detail`.

        With `local`, look at this rank's states only; else collective.
        """
        finest = self.hierarchy.levels[0]
        first = _NOWHERE
        own = finest.u[1:]
        xp = array_api_compat.array_namespace(own)
        with np.errstate(over="ignore", invalid="ignore"):
            flat = xp.reshape(own, (-1,))
            is_clear = bool(xp.isfinite(flat @ flat))  # no sum is finite with an entry that is not
        if not (is_clear or bool(xp.all(xp.isfinite(own)))):
            flat = xp.reshape(own, (len(finest.block), -1))
            first = finest.block.start + int(
                np.argmin(np.asarray(xp.all(xp.isfinite(flat), axis=1)))
            )
        if not local:
            with self.hierarchy.watch.phase("messages", finest.index):
                first = int(self.hierarchy.comm.allgather_blocks(np.array([first])).min())
        if first == _NOWHERE:
            return True
        self.detail = f"the state is not finite at {self._name_of(first)}"
        return False

    def _name_of(self, point: int) -> str:
        grid = self.hierarchy.levels[0].grid
        return f"point {grid.fine_index[point]}, time {grid.times[point]:.6g}"

    def _where(self, norms: NDArray[np.float64], norm: float) -> str:
        """Name the first point with the worst residual; collective."""
        finest = self.hierarchy.levels[0]
        bad = np.where(np.isfinite(norms), norms, np.inf)
        slots = [*slots_of(finest.c_steps, finest.num_slots), *finest.f_points]
        own = np.zeros((0, 2))
        if bad.size:
            own = np.array([[bad.max(), slots[int(bad.argmax())] - 1 + finest.block.start]])
        rows = self.hierarchy.comm.allgather_blocks(own)
        point = int(rows[int(rows[:, 0].argmax()), 1])
        return (
            f"iteration {len(self.residuals) - 1}, level 0: residual norm {norm:.3g}, "
            f"worst at {self._name_of(point)}"
        )
