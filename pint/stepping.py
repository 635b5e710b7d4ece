"""How a propagator is driven: one point at a time, a stack of points, or compiled sweeps.

A driver does the arithmetic of a level, for all points of this rank at once; it knows nothing of
cycles and messages. Points are given as slots of `Level.u`.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.mgrit.norms import integer_digits, squared_norms
from pint.options import MGRITOptions
from pint.propagator import (
    Propagator,
    State,
    Step,
    check_diagonal,
    has_own_equation,
    has_own_norm,
)
from pint.slots import Slots, shifted, slots_of

if TYPE_CHECKING:
    from pint.mgrit.delta import Delta
    from pint.mgrit.hierarchy import Hierarchy, Level


class Driver(ABC):
    """Does the arithmetic of the levels with the steps of a propagator.

    Parameters
    ----------
    propagator : Propagator
        The model.

    Attributes
    ----------
    model : Propagator
        The user's propagator, which measures residuals and hears of them; `propagator` unless that
        corrects its steps.
    iteration : int
        Number of the cycle under way, from 0.
    num_steps : dict of int to int
        Evaluations of Phi since the arrays were bound, by level.
    blas_threads : int or None
        What the BLAS library is limited to during a solve; None leaves it alone.
    """

    def __init__(self, propagator: Propagator, blas_threads: int | None = None) -> None:
        self.propagator = propagator
        self.model = propagator
        self.blas_threads = blas_threads
        self.iteration = 0
        self.num_steps: dict[int, int] = {}
        self.delta: Delta | None = None
        self._bound: Callable[[], Hierarchy | None] = lambda: None

    @abstractmethod
    def sweep(self, level: Level, starts: Slots, length: int) -> None:
        """From each of the slots `starts` take `length` steps to the right.

        A step sets u_i = Phi(u_{i-1}) + g_i; the last interval may end with the block.
        """

    @abstractmethod
    def chain(self, level: Level, begin: int, length: int) -> None:
        """From the slot `begin` take `length` steps to the right."""

    @abstractmethod
    def residual(self, level: Level, slots: Slots, first_row: int) -> None:
        """Set consecutive rows of r to Phi(u_{i-1}) - u_i + g_i at these slots."""

    def step_at_once(self, level: Level) -> None:
        """Set u_i = Phi(u_{i-1}) + g_i at all C-points, which are all points, from old states."""
        self.residual(level, level.c_steps, level.c_rows.start)
        self.add_residual(level)

    def linearize(self, level: Level, coarse: Level) -> None:
        """Hear that the coarse level has its start, at which corrected steps are linearised."""
        if self.delta is not None and self.iteration >= self.delta.options.delta_iteration:
            self.delta.linearize(level, coarse)

    @abstractmethod
    def coarse_rhs(self, coarse: Level) -> None:
        """Set g_i = g_i + u_i - Phi(u_{i-1}), where g holds the restricted residual."""

    @abstractmethod
    def restrict(self, u: State, level: int) -> State:
        """Restrict a stack of states in space; `u` itself where space stays as it is."""

    @abstractmethod
    def interpolate(self, u: State, level: int) -> State:
        """Interpolate a stack of states in space; `u` itself where space stays as it is."""

    def restrict_state(self, level: Level, coarse: Level) -> None:
        """Set the coarse states to the restricted C-points."""
        coarse.u[coarse.owned] = self.restrict(level.u[level.c_points], level.index)

    def restrict_residual(self, level: Level, coarse: Level) -> None:
        """Set the coarse right-hand side to the restricted residual."""
        r = level.r[coarse.targets]
        if r.shape[0] == 0:
            return
        restricted = self.restrict(r, level.index)
        if not (restricted is r and level.r is coarse.g):
            coarse.g[coarse.targets] = restricted

    def measure(self, level: Level) -> None:
        """Set the squared norms of the residuals at C-points."""
        level.norms[level.c_rows] = self.squares(level.r[level.c_rows])

    def measure_f_points(self, level: Level) -> None:
        """Set the squared norms of the residuals at F-points, some at a time; r is lost."""
        slots, at_once = level.f_points, level.r.shape[0]
        for begin in range(0, slots.size, at_once):
            part = slots[begin : begin + at_once]
            self.residual(level, part, 0)
            level.f_norms[begin : begin + part.size] = self.squares(level.r[: part.size])

    def squares(self, r: State) -> NDArray[np.float64]:
        """Return the squared norms of a stack of residuals."""
        if not has_own_norm(self.model):
            return squared_norms(r)
        norms = [self.model.norm(r[row, ...]) for row in range(r.shape[0])]
        return np.array(norms, dtype=np.float64) ** 2

    def add_residual(self, level: Level) -> None:
        """Add the residuals to their C-points, times the weight of C-relaxation."""
        level.u[level.c_steps] += level.relax_weight * level.r[level.c_rows]

    def correct(self, level: Level, coarse: Level) -> None:
        """Add the interpolated change of the coarse states to the C-points.

        The C-points are what the coarse states were restricted from, so that no copy of the coarse
        start is kept. The coarse states are lost.
        """
        change = coarse.u[coarse.owned]
        change -= self.restrict(level.u[level.c_points], level.index)
        level.u[level.c_points] += self.interpolate(change, level.index)

    def digits(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the exact sum of numbers >= 0, see `pint.mgrit.norms.integer_digits`."""
        return integer_digits(values)

    def compile(self) -> None:  # noqa: B027
        """Compile what will be called, so that no solve waits for it."""

    def bind(self, hierarchy: Hierarchy) -> None:
        """Hear that the levels have their arrays for the next solve, or for the rest of one."""
        if self._bound() is not hierarchy:
            self.forget()
            self._bound = weakref.ref(hierarchy)
        self.num_steps = {}
        if self.delta is not None:
            self.delta.bind(hierarchy)

    def rebind(self, hierarchy: Hierarchy) -> None:
        """Hear that a solve goes on with other levels."""
        num_steps = self.num_steps
        self.bind(hierarchy)
        self.num_steps = num_steps

    def forget(self) -> None:  # noqa: B027
        """Forget what is kept about the levels, because these are others."""

    def repeat(self, name: str, cycle: Callable[[Hierarchy], None], hierarchy: Hierarchy) -> None:
        """Go through a cycle, which does the same every time that it begins at the same state."""
        cycle(hierarchy)

    def _count(self, level: Level, n: int) -> None:
        if n:
            self.num_steps[level.index] = self.num_steps.get(level.index, 0) + n


class LoopDriver(Driver):
    """Calls the propagator once per point: the honest default for a user's own code."""

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        for k in range(1, length + 1):
            self._update(level, slots_of(shifted(starts, k), level.num_slots))

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        self._update(level, range(begin + 1, begin + 1 + length))

    def _update(self, level: Level, slots: range | NDArray[np.int64]) -> None:
        u, g = level.u, level.g
        for slot, new in self._evaluate(level, slots):
            u[slot, ...] = new if g is None else new + g[slot, ...]

    def step_at_once(self, level: Level) -> None:  # noqa: D102
        for slot in reversed(slots_of(level.c_steps, level.num_slots)):
            self._update(level, range(slot, slot + 1))

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        u, g, r = level.u, level.g, level.r
        evaluated = self._evaluate(level, slots_of(slots, level.num_slots))
        for row, (slot, new) in enumerate(evaluated, first_row):
            r[row, ...] = new - u[slot, ...]
            if g is not None:
                r[row, ...] += g[slot, ...]

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        u, g = coarse.u, coarse.g
        for slot, new in self._evaluate(coarse, range(coarse.targets.start, coarse.num_slots)):
            g[slot, ...] = (g[slot, ...] + u[slot, ...]) - new

    def _evaluate(
        self, level: Level, slots: range | NDArray[np.int64]
    ) -> Iterator[tuple[int, State]]:
        """Yield each slot with Phi of the state before it, evaluated when its turn comes."""
        self._count(level, len(slots))
        u, phi = level.u, self._phi
        for slot, step in zip(slots, level.single_steps(slots), strict=True):
            yield slot, phi(u, slot - 1, step)

    def _phi(self, u: State, slot: int, step: Step) -> State:
        return self.propagator.step(u[slot, ...], step)

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return _stacked(self.propagator.restrict, u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return _stacked(self.propagator.interpolate, u, level)


class SingleStackDriver(LoopDriver):
    """Calls a batched propagator with stacks of one: the same bits on any number of ranks."""

    def _phi(self, u: State, slot: int, step: Step) -> State:
        stack = Step(step.level, *(np.array([field]) for field in step[1:]))
        return self.propagator.step(u[slot : slot + 1, ...], stack)[0, ...]

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.interpolate(u, level)


FEW_INTERVALS = 16
"""Up to so many intervals, fast chains one after another are sooner done than stacks."""


class StackDriver(Driver):
    """Calls a batched propagator once for all points that can be done at once."""

    def __init__(self, propagator: Propagator, blas_threads: int | None = None) -> None:
        super().__init__(propagator, blas_threads)
        self._stacks: dict[tuple[Any, ...], Step] = {}

    def sweep(self, level: Level, starts: Slots, length: int) -> None:  # noqa: D102
        which = slots_of(starts, level.num_slots)
        # A stack is a call for each step of an interval, a chain one for each interval.
        few = min(length, FEW_INTERVALS) if self.propagator.chains_fast else 1
        if len(which) <= few:
            for begin in map(int, which):
                self.chain(level, begin, min(length, level.num_slots - 1 - begin))
            return
        for k in range(1, length + 1):
            slots = _within(shifted(starts, k), level.num_slots)
            g = None if level.g is None else level.g[slots]
            before, steps = self._before(level, slots)
            out = level.u[slots]  # a copy where the slots lie anywhere
            if out.shape[0]:
                self.propagator.step_into(before, steps, g, out)
            if not isinstance(slots, slice):
                level.u[slots] = out

    def forget(self) -> None:  # noqa: D102
        self._stacks = {}

    def chain(self, level: Level, begin: int, length: int) -> None:  # noqa: D102
        if length > 0:
            slots = slice(begin + 1, begin + 1 + length, 1)
            g = None if level.g is None else level.g[slots]
            _, steps = self._before(level, slots)
            self.propagator.chain(level.u[begin, ...], steps, g, level.u[slots])

    def step_at_once(self, level: Level) -> None:  # noqa: D102
        slots, new = level.targets, level.r[level.c_rows]
        if new.shape[0]:
            g = None if level.g is None else level.g[slots]
            self.propagator.step_into(*self._before(level, slots), g, new)
            level.u[slots] = new

    def residual(self, level: Level, slots: Slots, first_row: int) -> None:  # noqa: D102
        num = len(slots_of(slots, level.num_slots))
        r = level.r[first_row : first_row + num]
        if num:
            self.propagator.step_into(*self._before(level, slots), None, r)
            r -= level.u[slots]
            if level.g is not None:
                r += level.g[slots]

    def coarse_rhs(self, coarse: Level) -> None:  # noqa: D102
        g, slots = coarse.g[coarse.targets], coarse.targets
        if g.shape[0]:
            g += coarse.u[slots]
            g -= self.propagator.step(*self._before(coarse, slots))

    def _before(self, level: Level, slots: Slots) -> tuple[State, Step]:
        """Return the states before the slots, and the stack of steps that leads from them."""
        before = level.u[shifted(slots, -1)]
        self._count(level, before.shape[0])
        if isinstance(slots, slice):
            first = level.block.start + slots.start
            key: tuple[Any, ...] = (level.index, first, before.shape[0], slots.step)
        else:
            key = (level.index, level.block.start, slots.tobytes())
        if key not in self._stacks:
            self._stacks[key] = level.steps(slots)
        return before, self._stacks[key]

    def restrict(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.restrict(u, level)

    def interpolate(self, u: State, level: int) -> State:  # noqa: D102
        return self.propagator.interpolate(u, level)


def make_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return the driver that the options ask for.

    Raises
    ------
    ValueError
        If a stack driver is asked of a propagator that is not batched, a compiled one of a
        propagator without a kernel, or a Delta correction of one without a tangent.
    """
    if options.delta is not None:
        return _corrected_driver(propagator, options)
    name, threads = type(propagator).__name__, options.threads
    if options.driver == "stack" and not propagator.batched:
        raise ValueError(
            f"driver 'stack' needs a batched propagator, and {name} is not: "
            "set batched = True and let step take stacks, or use driver 'loop'"
        )
    if has_own_equation(propagator):
        return _implicit_driver(propagator, options)
    if options.driver in ("auto", "compiled"):
        if propagator.kernel is not None:
            from pint.compiled import CompiledDriver  # Numba, only where it is needed

            return CompiledDriver(propagator, threads)
        if options.driver == "compiled":
            raise ValueError(
                f"driver 'compiled' needs a propagator with a kernel, and {name} has none: "
                "set kernel to a function compiled by Numba, or use driver 'loop' or 'stack'"
            )
    if not propagator.batched:
        return LoopDriver(propagator, threads)
    kind = SingleStackDriver if options.driver == "loop" else StackDriver
    return kind(propagator, threads)


def _corrected_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return a driver of steps with the Delta correction."""
    from pint.mgrit.delta import CorrectedPropagator, Delta  # they know levels, which know drivers
    from pint.mgrit.diagonal import DiagonalPropagator, Diagonals

    name, is_diagonal = type(propagator).__name__, options.delta == "diagonal"
    if is_diagonal:
        check_diagonal(propagator)
    elif type(propagator).tangent_step is Propagator.tangent_step:
        raise ValueError(
            f"the Delta correction needs the derivative of steps, and {name} has no tangent_step: "
            "write it, or leave delta out"
        )
    if has_own_equation(propagator):
        raise ValueError(
            f"the Delta correction adds to steps, and {name} has a defect of its own: leave one out"
        )
    if np.issubdtype(propagator.dtype, np.complexfloating):
        raise ValueError(f"the Delta correction needs real states, those of {name} are complex")
    wrapper, finder = (
        (DiagonalPropagator, Diagonals) if is_diagonal else (CorrectedPropagator, Delta)
    )
    corrected = wrapper(propagator)
    driver = make_driver(corrected, replace(options, delta=None, delta_level=1, delta_iteration=0))
    driver.model = propagator
    driver.delta = finder(corrected, options, stacked=isinstance(driver, StackDriver))
    return driver


def _implicit_driver(propagator: Propagator, options: MGRITOptions) -> Driver:
    """Return the driver of a propagator that gives its own equation."""
    if options.driver == "compiled":
        raise ValueError(
            f"driver 'compiled' takes residuals u - Phi, and {type(propagator).__name__} has a "
            "defect of its own: use driver 'loop' or 'stack'"
        )
    from pint.implicit import ImplicitDriver  # it builds on this module

    stacks = propagator.batched and options.driver != "loop"
    return ImplicitDriver(propagator, stacks, options.threads)


def _within(slots: Slots, num_slots: int) -> Slots:
    """Return the slots without those behind the end of the block."""
    return slice(slots.start, num_slots, slots.step) if isinstance(slots, slice) else slots


def _stacked(transfer: Callable[[State, int], State], u: State, level: int) -> State:
    """Apply a transfer to each state; the stack itself where it returns what it is given."""
    if u.shape[0] == 0:
        return u
    state = u[0, ...]
    first = transfer(state, level)
    if first is state:
        return u
    rest = [transfer(u[i, ...], level) for i in range(1, u.shape[0])]
    return array_api_compat.array_namespace(u).stack([first, *rest])
