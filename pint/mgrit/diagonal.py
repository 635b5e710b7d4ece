"""Diagonals of derivatives in the place of coarse steps: a quasi-Newton method.

A coarse step is D u, where D is the product of the diagonals of the derivatives of the fine steps
that it stands for. With F for these fine steps and v for the iterate, the coarse level solves

    u_c = F(v_{c-1}) + D (u_{c-1} - v_{c-1}),

entry by entry: no step of the model is taken there. `docs/delta.md` says when that pays.

Lim, Zhu, Selfridge, Kasim, "Parallelizing non-linear sequential models over the sequence length",
ICLR 2024, for the method with full derivatives and intervals of one step; Gonzalez, Warrington,
Smith, Linderman, "Towards scalable and stable parallelization of nonlinear RNNs", NeurIPS 2024, for
diagonals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import array_api_compat
import numpy as np

from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level
from pint.mgrit.delta import CorrectedPropagator, Correction, DeltaCorrection, c_slots_of
from pint.propagator import State, Step


class DiagonalPropagator(CorrectedPropagator):
    """A model whose steps are D u on levels where D is known."""

    def step(self, u: State, step: Step) -> State:
        """Return D u, or Phi(u) where no D is known."""
        correction = self.corrections.get(step.level)
        return self.model.step(u, step) if correction is None else correction.times(u, step)


@dataclass(eq=False)
class Diagonal(Correction):
    """D of the steps that end with the finest steps `lasts`: `left` has its entries, (n, ...)."""

    def times(self, v: State, step: Step) -> State:
        """Return D v for one state and step, or for a stack of them."""
        rows = np.searchsorted(self.lasts, step.last)
        if np.ndim(rows) == 0:
            return self.left[int(rows), ...] * v
        return self.left[array_api_compat.array_namespace(v).asarray(rows), ...] * v


@dataclass(eq=False)
class Diagonals(DeltaCorrection):
    """Finds D on all levels, cycle by cycle."""

    kind: ClassVar[type[Correction]] = Diagonal

    def attach(self, hierarchy: Hierarchy) -> None:
        """Begin a solve, without any D.

        Raises
        ------
        ValueError
            If levels differ in space, so that there are no diagonals from one to the next.
        """
        shapes = [tuple(level.u.shape[1:]) for level in hierarchy.levels]
        if len(set(shapes)) > 1:
            raise ValueError(
                f"delta='diagonal' needs states of one shape on all levels, got {shapes}: leave "
                "delta out"
            )
        self.hierarchy = hierarchy
        self.propagator.corrections.clear()

    def linearize(self, level: Level, coarse: Level) -> None:
        """Set D of the coarse steps at the iterate; collective."""
        if self.driver.iteration < self.options.iteration:
            return
        entries, first = self._of_steps(level), level.targets.start
        xp = array_api_compat.array_namespace(level.u)
        state = level.u[:1]

        def move(products: State, slots: list[int]) -> State:
            rows = xp.asarray([slot - first for slot in slots], dtype=xp.int64)
            return products * entries[rows, ...][:, None, ...]

        begin = xp.ones((len(c_slots_of(level)), 1, *state.shape[1:]), dtype=state.dtype)
        self._set(coarse, self._along(level, begin, move)[:, 0, ...], None)

    def _of_steps(self, level: Level) -> State:
        """Return D of the steps to all own points; of finest steps, from their derivatives."""
        known = self.propagator.corrections.get(level.index)
        if known is not None:
            return known.left
        slots, model = level.targets, self.propagator.model
        before, steps = level.u[slots.start - 1 : slots.stop - 1], level.steps(slots)
        if before.shape[0] == 0:
            return before
        if self.stacked:
            return model.diagonal(before, steps)
        if model.batched:
            every = [slice(row, row + 1) for row in range(before.shape[0])]
            own = [model.diagonal(before[row], steps.at(row))[0, ...] for row in every]
        else:
            single = level.single_steps(range(slots.start, slots.stop))
            own = [model.diagonal(u, step) for u, step in zip(before, single, strict=True)]
        return array_api_compat.array_namespace(before).stack(own)
