"""The Delta correction: coarse steps that follow the fine ones to first order.

A corrected step is Phi_c(u) + D u, where D is the difference between the derivatives of the fine
steps that it stands for, one after another, and its own, both taken at the iterate. All else of the
cycle stays as it is. `docs/delta.md` derives it, and says what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.arrays import in_library_of
from pint.drivers.driver import Driver
from pint.drivers.stack import StackDriver
from pint.grid.hierarchy import Hierarchy
from pint.grid.level import Level, wait
from pint.grid.slots import slots_of
from pint.mgrit.lyapunov import Lyapunov, orthonormal, unit_vectors
from pint.options import Delta
from pint.parallel.comm import Request
from pint.propagator import CoarsensSpace, Propagator, State, Step, Wrapper, has

Move = Callable[[State, list[int]], State]
"""From stacks of vectors, and the slots that they go to, to the stacks there."""


@dataclass(eq=False)
class Correction:
    """D of the steps of a level that end with the finest steps `lasts`, as sums of left x right.

    Attributes
    ----------
    lasts : ndarray of int64, shape (n,)
        In increasing order.
    left : array, shape (n, k, ...state_shape)
        D times each vector of the basis.
    right : array, shape (n, k, ...state_shape), or None
        The basis; None is all unit vectors.
    """

    lasts: NDArray[np.int64]
    left: State
    right: State

    def times(self, v: State, step: Step) -> State:
        """Return D v for one state and step, or for a stack of them."""
        is_stack = np.ndim(step.last) == 1
        v = v if is_stack else v[None, ...]
        rows = np.searchsorted(self.lasts, np.atleast_1d(step.last))
        xp = array_api_compat.array_namespace(v)
        rows, axes = xp.asarray(rows), tuple(range(1, v.ndim))
        left = self.left[rows, ...]
        right = None if self.right is None else self.right[rows, ...]
        total = xp.zeros_like(v)
        for j in range(left.shape[1]):  # not by BLAS: the same bits on any number of ranks
            if right is None:
                size = xp.reshape(v, (v.shape[0], -1))[:, j]
            else:
                size = xp.sum(right[:, j, ...] * v, axis=axes)
            total = total + left[:, j, ...] * xp.reshape(size, (-1,) + (1,) * len(axes))
        return total if is_stack else total[0, ...]


class CorrectedPropagator(Wrapper):
    """A model whose steps are Phi(u) + D u on levels that have a correction.

    Parameters
    ----------
    model : Propagator
        The corrected model.
    """

    def __init__(self, model: Propagator) -> None:
        super().__init__(model)
        self.prefer_chain = model.prefer_chain
        self.corrections: dict[int, Correction] = {}

    def step(self, u: State, step: Step) -> State:
        """Return Phi(u) + D u."""
        return self._corrected(self.model.step(u, step), u, step)

    def tangent_step(self, v: State, u: State, step: Step) -> State:
        """Return the derivative of that, (dPhi/du) v + D v."""
        return self._corrected(self.model.tangent_step(v, u, step), v, step)

    def _corrected(self, new: State, v: State, step: Step) -> State:
        correction = self.corrections.get(step.level)
        return new if correction is None else new + correction.times(v, step)

    def chain(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a stack of steps one after another; the model's own way where none is corrected."""
        if step.level in self.corrections:
            super().chain(u, step, g, out)
        else:
            self.model.chain(u, step, g, out)

    def step_into(self, u: State, step: Step, g: State | None, out: State) -> None:
        """Take a stack of steps at once; the model's own way where none is corrected."""
        if step.level in self.corrections:
            super().step_into(u, step, g, out)
        else:
            self.model.step_into(u, step, g, out)


@dataclass(eq=False)
class DeltaCorrection:
    """Finds the corrections of all levels, cycle by cycle.

    Parameters
    ----------
    propagator : CorrectedPropagator
        Where the corrections are put.
    options : Delta
        Directions, and the first level and cycle with corrected steps.
    driver : Driver
        Takes the corrected steps.
    """

    propagator: CorrectedPropagator
    options: Delta
    driver: Driver
    bases: dict[int, State] = field(default_factory=dict)
    products: State = None
    kind: ClassVar[type[Correction]] = Correction

    @property
    def stacked(self) -> bool:
        """Whether tangents of all intervals are taken at once."""
        return isinstance(self.driver, StackDriver)

    def attach(self, hierarchy: Hierarchy) -> None:
        """Begin a solve: without corrections, and with unit vectors as bases."""
        self.hierarchy = hierarchy
        self.propagator.corrections.clear()
        state, xp = hierarchy.levels[0].u, array_api_compat.array_namespace(hierarchy.levels[0].u)
        if xp.isdtype(state.dtype, "complex floating"):
            name = type(self.propagator.model).__name__
            raise ValueError(
                f"the Delta correction needs real states, the states of {name} are complex"
            )
        self.products = None
        rank = self.options.directions
        if not isinstance(rank, int):
            return
        for level in hierarchy.levels[self.options.level :]:
            state = level.u[0, ...]
            if rank > math.prod(state.shape):
                raise ValueError(
                    f"delta.directions must be at most {math.prod(state.shape)}, the number of "
                    f"entries of a state on level {level.index}, got {rank}: lower it or set 'full'"
                )
            vectors = unit_vectors(state, rank)
            xp = array_api_compat.array_namespace(vectors)
            self.bases[level.index] = xp.stack([vectors] * level.num_slots)

    def linearize(self, level: Level, coarse: Level) -> None:
        """Set the corrections of the coarse steps at the iterate; collective.

        Both levels hold the iterate, with ghosts: the fine one relaxed, the coarse one its
        C-points.
        """
        options = self.options
        is_early = self.driver.iteration < options.iteration
        if is_early or coarse.index < options.level:
            return
        is_low_rank, is_coarsest = options.directions != "full", coarse is self.hierarchy.levels[-1]
        if is_low_rank and is_coarsest:
            self._step_basis(coarse)
        basis = self.bases[coarse.index] if is_low_rank else _every_unit_vector(coarse)
        slots = coarse.targets
        V = basis[slots.start - 1 : slots.stop - 1]
        W = self._fine_products(level, coarse, basis[coarse.owned])
        own = self._tangents(self.propagator.model, coarse, V, range(slots.start, slots.stop))
        self._set(coarse, W - own, V + 0 if is_low_rank else None)
        if is_low_rank and coarse.index == options.level:
            self.products = W
        if is_low_rank and is_coarsest:
            for finer in reversed(self.hierarchy.levels[options.level : -1]):
                self._bring_basis_up(finer)

    def _fine_products(self, level: Level, coarse: Level, basis: State) -> State:
        """Return what the fine steps of each interval make of the vectors at its begin.

        Takes one stack of vectors for each own C-point, and returns one for each C-point that a
        coarse step of this rank leads to.
        """
        move = partial(self._tangents, self.propagator, level)
        arrived = self._along(level, self._up(level, basis), move)
        return self._transferred(self.driver.restrict, arrived, level, coarse)

    def _set(self, coarse: Level, left: State, right: State) -> None:
        """Put the corrections of this rank's coarse steps where they are used.

        A rank that steps through all of the coarsest level gets the vectors of all ranks.
        """
        lasts = np.asarray(coarse.steps(coarse.targets).last)
        if coarse is self.hierarchy.levels[-1] and self.hierarchy.gathers_coarsest:
            gather = self.hierarchy.comm.allgather_blocks
            lasts = gather(np.ascontiguousarray(lasts))
            left, right = (
                None if x is None else in_library_of(x, gather(np.ascontiguousarray(x)))
                for x in (left, right)
            )
        self.propagator.corrections[coarse.index] = self.kind(lasts, left, right)

    # --- Bases ------------------------------------------------------------------------------------

    def _step_basis(self, coarse: Level) -> None:
        """Step the basis at point 0 through the coarsest level, one rank after another."""
        if not coarse.block:
            return
        basis = self.bases[coarse.index]
        if coarse.left is not None:
            coarse.comm.irecv(basis[0, ...], coarse.left).wait()
        for slot in range(coarse.targets.start, coarse.num_slots):
            moved = self._tangents(self.propagator, coarse, basis[slot - 1 : slot], [slot])
            basis[slot, ...] = orthonormal(moved[0, ...])[0]
        wait(_send(coarse, basis[-1, ...]))

    def _bring_basis_up(self, level: Level) -> None:
        """Take the coarser level's basis at the C-points, and move it on to the F-points."""
        basis, below = self.bases[level.index], self.hierarchy.levels[level.index + 1]
        xp = array_api_compat.array_namespace(basis)
        begin = self._up(level, self.bases[below.index][below.owned])
        if has(self.propagator.model, CoarsensSpace):
            begin = _every(orthonormal, begin)
        c_slots = c_slots_of(level)
        basis[xp.asarray(c_slots, dtype=xp.int64), ...] = begin

        def move(vectors: State, slots: list[int]) -> State:
            vectors = _every(orthonormal, self._tangents(self.propagator, level, vectors, slots))
            for slot, new in zip(slots, vectors, strict=True):
                if slot not in c_slots:
                    basis[slot, ...] = new
            return vectors

        self._along(level, begin, move)
        wait(_receive(level, basis[0, ...]), _send(level, basis[-1, ...]))

    def _up(self, level: Level, basis: State) -> State:
        """Interpolate stacks of vectors to the level."""
        return self._transferred(self.driver.interpolate, basis, level, level)

    def _transferred(
        self, transfer: Callable[[State, int], State], basis: State, level: Level, to: Level
    ) -> State:
        """Restrict or interpolate stacks of vectors between a level and the next."""
        xp, shape = array_api_compat.array_namespace(basis), (*basis.shape[:2], *to.u.shape[1:])
        if not has(self.propagator.model, CoarsensSpace):
            return basis
        if basis.shape[0] == 0:
            return xp.zeros(shape, dtype=basis.dtype)
        return xp.reshape(transfer(_flat(basis), level.index), shape)

    def lyapunov(self) -> Lyapunov | None:
        """Return the Lyapunov vectors of the last cycle; None without a basis. Collective."""
        if self.products is None:
            return None
        level = self.hierarchy.levels[self.options.level]
        vectors = self.bases.pop(level.index)  # which the next solve replaces
        own = [orthonormal(moved)[1] for moved in self.products]
        return Lyapunov(
            vectors=vectors[1:],
            first=level.block.start,
            growth=self.hierarchy.comm.allgather_blocks(
                np.reshape(np.array(own), (-1, vectors.shape[1]))
            ),
            times=level.grid.times,
        )

    # --- Tangents ---------------------------------------------------------------------------------

    def _tangents(self, propagator: Propagator, level: Level, V: State, slots: Any) -> State:
        """Apply the derivatives of the steps that end at the slots to one stack of vectors each.

        `V` has shape (number of slots, k, ...state_shape), and so has the result, a new array.
        """
        xp, k = array_api_compat.array_namespace(V), V.shape[1]
        steps = [level.grid.steps(slot + level.block.start - 1) for slot in slots]
        if self.stacked and steps:
            before = xp.asarray([slot - 1 for slot in slots for _ in range(k)], dtype=xp.int64)
            stack = _stack_of([step for step in steps for _ in range(k)])
            new = propagator.tangent_step(_flat(V), level.u[before, ...], stack)
            return xp.reshape(new, V.shape)
        out = xp.empty_like(V)
        for row, (slot, step) in enumerate(zip(slots, steps, strict=True)):
            u = level.u[slot - 1, ...]
            if propagator.batched:
                stack = _stack_of([step] * k)
                out[row, ...] = propagator.tangent_step(V[row, ...], xp.stack([u] * k), stack)
            else:
                for j in range(k):
                    out[row, j, ...] = propagator.tangent_step(V[row, j, ...], u, step)
        return out

    def _along(
        self, level: Level, begin: State, move: Callable[[State, list[int]], State]
    ) -> State:
        """Move vectors from the C-points along the intervals behind them; collective.

        Own intervals come first; what is cut by the end of the block goes on at the right
        neighbour, and what the left neighbour has begun is finished last.

        Parameters
        ----------
        level : Level
            Where.
        begin : array, shape (number of own C-points, k, ...)
            Vectors there.
        move : callable
            One step.

        Returns
        -------
        array, shape (number of own C-points that a step leads to, k, ...)
            What arrives there.
        """
        xp, c_slots = array_api_compat.array_namespace(begin), c_slots_of(level)
        moved, ends = begin + 0, [*c_slots[1:], level.num_slots - 1]
        lengths = [end - slot for slot, end in zip(c_slots, ends, strict=False)]
        for j in range(1, max(lengths, default=0) + 1):
            rows = [row for row, length in enumerate(lengths) if j <= length]
            which = xp.asarray(rows, dtype=xp.int64)
            moved[which, ...] = move(moved[which, ...], [c_slots[row] + j for row in rows])
        leaving = _send(level, moved[-1:, ...]) if c_slots else None
        if level.left is None:
            wait(leaving)
            return moved[:-1, ...]
        arrived = xp.empty((1, *begin.shape[1:]), dtype=begin.dtype)
        wait(_receive(level, arrived))
        for slot in range(1, (c_slots[0] if c_slots else level.num_slots - 1) + 1):
            arrived = move(arrived, [slot])
        if not c_slots:
            leaving = _send(level, arrived)
        wait(leaving)
        return xp.concat([arrived, moved[:-1, ...]]) if c_slots else moved


def _every_unit_vector(level: Level) -> State:
    """Return all unit vectors at each slot, as a view."""
    state = level.u[0, ...]
    vectors = unit_vectors(state, math.prod(state.shape))
    xp = array_api_compat.array_namespace(state)
    return xp.broadcast_to(vectors, (level.num_slots, *vectors.shape))


def _every(function: Callable[[State], tuple[State, Any]], stacks: State) -> State:
    """Apply a function to each stack of vectors, and keep the first thing that it returns."""
    out = stacks + 0
    for row in range(out.shape[0]):
        out[row, ...] = function(stacks[row, ...])[0]
    return out


def c_slots_of(level: Level) -> list[int]:
    """Return the slots of the own C-points."""
    return [int(slot) for slot in slots_of(level.c_points, level.num_slots)]


def _receive(level: Level, into: State) -> Request | None:
    return None if level.left is None else level.comm.irecv(into, level.left)


def _send(level: Level, values: State) -> Request | None:
    return None if level.right is None else level.comm.isend(values, level.right)


def _flat(V: State) -> State:
    """Return stacks of vectors as one stack."""
    xp = array_api_compat.array_namespace(V)
    return xp.reshape(V, (V.shape[0] * V.shape[1], *V.shape[2:]))


def _stack_of(steps: list[Step]) -> Step:
    """Return steps of one level as a stack."""
    fields = zip(*(step[1:] for step in steps), strict=True)
    return Step(steps[0].level, *(np.array(values) for values in fields))
