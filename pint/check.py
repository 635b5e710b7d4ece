"""Tries a user's propagator before any solve, and names the method that breaks the contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.grid.timegrid import TimeGrid, as_grid
from pint.options import at_least
from pint.propagator import (
    CoarsensSpace,
    HasAdjoint,
    HasDiagonal,
    HasGradient,
    HasTangent,
    Linearization,
    Propagator,
    State,
    Step,
    as_state,
    check_capabilities,
    declares_states,
    has,
    kernel_of,
    provides,
)

NUM_STACKED = 3


class ContractError(ValueError):
    """A propagator breaks the contract; the message has one line for each breach."""


def check_propagator(
    propagator: Propagator,
    initial_value: State | None = None,
    grid: TimeGrid | Any = None,
    levels: int = 3,
    coarsening: int = 2,
    seed: int = 0,
) -> CheckReport:
    """Try every method of a propagator on every level.

    Checked are: shapes, dtype and finiteness of what `step`, `restrict` and `interpolate` return;
    that the same input gives the same output and stays unchanged; that a stack gives what its
    members give one by one, and a chain what its steps give; that `step_into` and the kernel do as
    `step`; the tangent, the adjoint identity <w, J v> = <adjoint_step(w), v> and the parameter
    gradient, against central differences; that `linearize` agrees with the last two. Methods that
    are not overridden are left out.

    Parameters
    ----------
    propagator : Propagator
        The model.
    initial_value : array_like, shape state_shape, optional
        A state that the model can take; standard normal numbers if left out, for a model that
        declares `state_shape` and `dtype`.
    grid : TimeGrid or array_like of float64, optional
        Times of the tested steps; 16 steps of growing length if left out.
    levels : int, default 3
        Number of levels that are tried.
    coarsening : int, default 2
        Factor between them.
    seed : int, default 0
        Seed of the random directions.

    Returns
    -------
    CheckReport
        List of the checks, for example "step on level 1". Printed, it also has the missing methods
        and what each would give.

    Raises
    ------
    ContractError
        If anything is wrong; the message names it, and by how much.
    TypeError
        If `propagator` is not an instance of Propagator, or without the initial value of a model
        that does not declare `state_shape` and `dtype`.

    Examples
    --------
    >>> from pint.models.dahlquist import Dahlquist
    >>> check_propagator(Dahlquist(), levels=1)
    ['step on level 0', 'stack on level 0', 'kernel on level 0', 'adjoint_step on level 0', \
'adjoint_gradient on level 0']
    """
    if not isinstance(propagator, Propagator):
        raise TypeError(f"propagator must be an instance of Propagator, got {propagator!r}")
    at_least("levels", levels, 1)
    grid = as_grid(0.1 * np.linspace(0, 4, 17) ** 2 if grid is None else grid)
    if initial_value is None and not declares_states(propagator):
        raise TypeError(
            f"{type(propagator).__name__} declares no state_shape and dtype: give check_propagator "
            "an initial value"
        )
    check = _Check(propagator, np.random.default_rng(seed))
    check.attributes()
    check.stop_if_wrong()
    if initial_value is None:
        u = check.random_state()
    else:
        u = as_state(propagator, initial_value, "initial value")
        check.shape, check.dtype = tuple(u.shape), np.asarray(u).dtype
    for level in range(levels):
        if grid.num_steps < 1:
            break
        check.level(grid, u)
        check.stop_if_wrong()  # a wrong level would only repeat itself on the next
        if level < levels - 1:
            u = check.transfer(u, level)
            check.stop_if_wrong()
        grid = grid.coarsen(coarsening)
    return CheckReport(check.done, propagator)


class CheckReport(list[str]):
    """List of the checks of a model; `str` adds its capabilities.

    Parameters
    ----------
    checks : list of str
        What was checked.
    propagator : Propagator
        The model.
    """

    def __init__(self, checks: list[str], propagator: Propagator) -> None:
        super().__init__(checks)
        self.summary = repr(propagator)

    def __str__(self) -> str:
        return "\n".join([*self, self.summary])


class _Check:
    """The checks of one propagator, and what they found."""

    def __init__(self, propagator: Propagator, rng: np.random.Generator) -> None:
        self.p = propagator
        self.rng = rng
        self.done: list[str] = []
        self.wrong: list[str] = []
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] = np.dtype(float)

    def stop_if_wrong(self) -> None:
        """Raise all breaches found so far."""
        if self.wrong:
            name = type(self.p).__name__
            raise ContractError("\n".join([f"{name} breaks the contract:", *self.wrong]))

    def fail_unless(self, holds: bool, message: str) -> bool:
        """Note `message` unless it holds."""
        if not holds:
            self.wrong.append(f"  {message}")
        return holds

    def attributes(self) -> None:
        """Check what the class declares."""
        shape: Any = getattr(self.p, "state_shape", None)
        dtype = getattr(self.p, "dtype", None)
        is_shape = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
        self.fail_unless(
            shape is None or is_shape,
            f"state_shape must be a tuple of positive int, got {shape!r}",
        )
        is_dtype = dtype is None or isinstance(dtype, np.dtype)
        self.fail_unless(is_dtype, f"dtype must be a numpy.dtype, got {dtype!r}")
        if is_shape and is_dtype and dtype is not None:
            self.shape, self.dtype = shape, dtype
        flat = self.p.parameters
        fits = flat is None or (isinstance(flat, np.ndarray) and flat.ndim == 1)
        self.fail_unless(fits, "parameters must be None or a NumPy array of 1 dimension")
        has_gradient = has(self.p, HasGradient) or provides(self.p, "linearize")
        self.fail_unless(
            flat is None or not has(self.p, HasAdjoint) or has_gradient,
            "parameters need adjoint_gradient: write it, or leave parameters None",
        )
        try:
            check_capabilities(self.p)
        except ValueError as error:
            self.fail_unless(False, str(error))

    @property
    def eps(self) -> float:
        """Unit roundoff of the states."""
        return float(np.finfo(self.dtype).eps)

    def random_state(self) -> State:
        """Return standard normal numbers."""
        return self.rng.standard_normal(self.shape).astype(self.dtype)

    def random_like(self, u: State) -> State:
        """Return standard normal numbers in the library of `u`."""
        xp = array_api_compat.array_namespace(u)
        return xp.asarray(self.rng.standard_normal(u.shape), dtype=u.dtype)

    def level(self, grid: TimeGrid, u: State) -> None:
        """Check all methods that take a step of this grid."""
        batched = self.p.batched
        count = 1
        if batched:  # a height that is no extent of a state, so that no wrong axis fits
            count = next(n for n in range(NUM_STACKED, 99) if n not in self.shape)
            count = min(count, grid.num_steps)
        step = grid.steps(slice(1, count + 1, 1)) if batched else grid.steps(1)
        if batched:
            xp = array_api_compat.array_namespace(u)
            u = xp.stack([u + 0.1 * i * self.random_like(u) for i in range(count)])
        if not self.call(f"step on level {step.level}", lambda v: self.p.step(v, step), u, u):
            return
        if batched:
            self.stack(u, step)
        if provides(self.p, "chain"):
            self.chain(u, step)
        if batched and provides(self.p, "step_into"):
            self.step_into(u, step)
        if self.p.kernel is not None:
            self.kernel(u, step)
        if has(self.p, HasTangent):
            self.tangent(u, step)
        if step.level == 0 and has(self.p, HasDiagonal):
            self.diagonal(u, step)
        if has(self.p, HasAdjoint):
            self.adjoint(u, step)
        if has(self.p, HasGradient):
            self.gradient(u, step)
        if provides(self.p, "linearize"):
            self.linearization(u, step)

    def call(self, what: str, method: Callable[[State], State], u: State, like: State) -> bool:
        """Check the result of a method for `u`, and that it is pure; return whether both hold."""
        before = np.asarray(u).copy()
        self.done.append(what)
        try:
            out = method(u)
        except Exception as error:
            shape = tuple(u.shape)
            return self.fail_unless(
                False, f"{what} raised {type(error).__name__} for a state of shape {shape}: {error}"
            )
        if isinstance(out, float):
            out = np.asarray(out)
        if not self.fail_unless(
            array_api_compat.is_array_api_obj(out),
            f"{what} returned {type(out).__name__}, expected an array",
        ):
            return False
        shape = tuple(out.shape)
        expected = tuple(like.shape)
        return (
            self.fail_unless(
                shape == expected, f"{what} returned shape {shape}, expected {expected}"
            )
            and self.fail_unless(
                out.dtype == like.dtype,
                f"{what} returned dtype {out.dtype}, expected {like.dtype}",
            )
            and self.fail_unless(
                bool(np.isfinite(np.asarray(out)).all()), f"{what} returned NaN or inf"
            )
            and self.same(what, "changed its input", before, u)
            and self.same(what, "gave another result the second time", out, method(u))
        )

    def same(self, what: str, message: str, expected: State, got: State) -> bool:
        """Note the difference unless two arrays are equal to the last bit."""
        expected, got = np.asarray(expected), np.asarray(got)
        if expected.shape != got.shape:
            return self.fail_unless(False, f"{what} {message}: shape {got.shape}")
        largest = float(np.abs(expected - got).max(initial=0.0))
        return self.fail_unless(largest == 0, f"{what} {message}, by up to {largest:.2g}")

    def stack(self, u: State, step: Step) -> None:
        """Check that a stack gives what its members give."""
        whole = np.asarray(self.p.step(u, step))
        rows = [slice(i, i + 1) for i in range(u.shape[0])]
        parts = np.concatenate([np.asarray(self.p.step(u[r], step.at(r))) for r in rows])
        self.done.append(f"stack on level {step.level}")
        self.close(self.done[-1], "differs from its members one by one", whole, parts, 1e3)

    def chain(self, u: State, step: Step) -> None:
        """Check that `chain` gives what single steps give, with and without right-hand side."""
        self.done.append(f"chain on level {step.level}")
        for g in (None, 0.1 * self.random_like(u)):
            got, expected = u * 0, u * 0
            self.p.chain(u[0], step, g, got)
            Propagator.chain(self.p, u[0], step, g, expected)
            message = f"differs from single steps {'without' if g is None else 'with'} g"
            self.close(self.done[-1], message, np.asarray(got), np.asarray(expected), 1e3)

    def step_into(self, u: State, step: Step) -> None:
        """Check that `step_into` gives what `step` gives, with and without right-hand side."""
        self.done.append(f"step_into on level {step.level}")
        for g in (None, 0.1 * self.random_like(u)):
            got, expected = u * 0, u * 0
            self.p.step_into(u, step, g, got)
            Propagator.step_into(self.p, u, step, g, expected)
            message = f"differs from step {'without' if g is None else 'with'} g"
            self.close(self.done[-1], message, np.asarray(got), np.asarray(expected), 1e3)

    def kernel(self, u: State, step: Step) -> None:
        """Check that the kernel gives what `step` gives, sets all entries, and spares its input."""
        self.done.append(f"kernel on level {step.level}")
        kernel, params = kernel_of(self.p), self.p.kernel_params()
        given, expected = np.array(u), np.asarray(self.p.step(u, step))
        starts, stops = np.atleast_1d(step.start), np.atleast_1d(step.stop)
        shape = given.shape[given.ndim - len(self.shape) :] or (1,)
        stack = given.reshape(starts.size, *shape)
        expected = expected.reshape(stack.shape)
        states, got = stack.copy(), np.full_like(stack, np.nan)
        for v, new, start, stop in zip(states, got, starts, stops, strict=True):
            kernel(v, start, stop, step.level, params, new)
        self.close(self.done[-1], "differs from step", got, expected, 1e3)
        self.same(self.done[-1], "changed its input", stack, states)

    def close(self, what: str, message: str, a: Any, b: Any, slack: float) -> bool:
        """Note the relative difference unless it is below `slack` roundoffs."""
        scale = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)), 1e-300)
        difference = float(np.abs(a - b).max(initial=0.0)) / scale
        return self.fail_unless(
            difference <= slack * self.eps,
            f"{what} {message}: relative difference {difference:.2g}",
        )

    def tangent(self, u: State, step: Step) -> None:
        """Check <w, tangent_step(v)> = <w, J v>, and that it is linear in v."""
        what = f"tangent_step on level {step.level}"
        w, v = self.random_like(u), self.random_like(u)
        if not self.call(what, lambda x: self.p.tangent_step(x, u, step), v, u):
            return
        new = self.p.tangent_step(v, u, step)
        doubled = np.asarray(self.p.tangent_step(2 * v, u, step))
        self.close(what, "is not linear in v", doubled, 2 * np.asarray(new), 1e3)
        slopes = _slopes(lambda h: _inner(w, self.p.step(u + h * v, step)), self.eps)
        self.derivative(what, "differs from central differences", _inner(w, new), slopes)

    def diagonal(self, u: State, step: Step) -> None:
        """Check some entries against J e_j, with one j for all states of a stack."""
        what = f"diagonal on level {step.level}"
        if not self.call(what, lambda x: self.p.diagonal(x, step), u, u):
            return
        xp, size = array_api_compat.array_namespace(u), math.prod(self.shape)
        own = np.asarray(self.p.diagonal(u, step)).reshape(-1, size)
        for j in self.rng.choice(size, min(3, size), replace=False):
            unit = np.zeros_like(own)
            unit[:, j] = 1
            v = xp.asarray(unit.reshape(u.shape))
            error = min(
                float(np.abs(column[:, j] - own[:, j]).max() / max(np.abs(column).max(), 1e-300))
                for column in self._columns(u, v, step, own.shape)
            )
            differs = f"{what} differs from central differences in entry {j}"
            self.fail_unless(error <= 30 * self.eps**0.5, f"{differs}: relative error {error:.2g}")

    def _columns(
        self, u: State, v: State, step: Step, shape: tuple[int, int]
    ) -> Iterator[NDArray[Any]]:
        """Yield central difference quotients of a step in the direction v, for several widths."""
        for exponent in (0.25, 1 / 3, 0.4):
            h = self.eps**exponent
            ahead, behind = (np.asarray(self.p.step(u + s * v, step)) for s in (h, -h))
            yield ((ahead - behind) / (2 * h)).reshape(shape)

    def adjoint(self, u: State, step: Step) -> None:
        """Check <w, J v> = <adjoint_step(w), v>."""
        what = f"adjoint_step on level {step.level}"
        w, v = self.random_like(u), self.random_like(u)
        if not self.call(what, lambda x: self.p.adjoint_step(x, u, step), w, u):
            return
        right = _inner(self.p.adjoint_step(w, u, step), v)
        slopes = _slopes(lambda h: _inner(w, self.p.step(u + h * v, step)), self.eps)
        self.derivative(what, "breaks <w, J v> = <adjoint_step(w), v>", right, slopes)

    def gradient(self, u: State, step: Step) -> None:
        """Check <w, dPhi/dtheta d> = <adjoint_gradient(w), d>."""
        what = f"adjoint_gradient on level {step.level}"
        self.done.append(what)
        flat, w = self.p.parameters, self.random_like(u)
        got = self.p.adjoint_gradient(w, u, step)
        shape = () if flat is None else flat.shape
        if flat is None or not self.fail_unless(
            getattr(got, "shape", None) == shape,
            f"{what} returned shape {getattr(got, 'shape', None)}, expected {shape}",
        ):
            return
        kept, direction = flat.copy(), self.rng.standard_normal(flat.shape).astype(flat.dtype)

        def along(h: float) -> float:
            flat[:] = kept + h * direction
            self.p.refresh()
            return _inner(w, self.p.step(u, step))

        try:
            slopes = _slopes(along, self.eps)
        finally:
            flat[:] = kept
            self.p.refresh()
        self.derivative(what, "differs from central differences", _inner(got, direction), slopes)

    def derivative(self, what: str, message: str, got: float, slopes: list[float]) -> None:
        """Note the relative error against the best of several difference quotients."""
        scale = max(abs(got), *(abs(slope) for slope in slopes), 1e-300)
        error = min(abs(got - slope) for slope in slopes) / scale
        tolerance = 30 * self.eps**0.5  # differences lose half of the digits, or nearly so
        self.fail_unless(error <= tolerance, f"{what} {message}: relative error {error:.2g}")

    def linearization(self, u: State, step: Step) -> None:
        """Check that `linearize` says the same as `adjoint_step` and `adjoint_gradient`."""
        what = f"linearize on level {step.level}"
        self.done.append(what)
        lin = self.p.linearize(u, step)
        if not self.fail_unless(
            isinstance(lin, Linearization), f"{what} returned {type(lin).__name__}"
        ):
            return
        w = self.random_like(u)
        for rows in _some_rows(u.shape[0]):
            expected = np.asarray(self.p.adjoint_step(w[rows], u[rows], step.at(rows)))
            got = np.asarray(lin.adjoint(w[rows], rows))
            self.close(f"{what}, adjoint of rows {rows}", "is not adjoint_step", got, expected, 1e3)
        for rows in (slice(0, u.shape[0], 1), slice(0, 1, 1)):
            g = 0.1 * self.random_like(w[rows])
            got, expected = g * 0, g * 0
            lin.adjoint_chain(w[0], rows, g, got)
            Linearization.adjoint_chain(lin, w[0], rows, g, expected)
            message = "differs from single steps"
            self.close(
                f"{what}, adjoint_chain", message, np.asarray(got), np.asarray(expected), 1e3
            )
        if self.p.parameters is not None:
            wanted, gradient = self.p.adjoint_gradient(w, u, step), lin.gradient(w)
            self.close(f"{what}, gradient", "is not adjoint_gradient", gradient, wanted, 1e3)

    def transfer(self, u: State, level: int) -> State:
        """Check restrict and interpolate between two levels; return the coarse state."""
        if not has(self.p, CoarsensSpace):
            return u
        given, xp = u, array_api_compat.array_namespace(u)
        if self.p.batched:
            given = xp.stack([u + 0.1 * self.random_like(u) for _ in range(NUM_STACKED)])
        coarse = self.p.restrict(given, level)
        if self.p.batched:  # what its members give, one by one
            coarse = xp.concat(
                [self.p.restrict(given[i : i + 1], level) for i in range(NUM_STACKED)]
            )
        self.fail_unless(
            coarse.dtype == u.dtype,
            f"restrict from level {level} returned dtype {coarse.dtype}, expected {u.dtype}",
        )
        self.stop_if_wrong()
        good = self.call(
            f"restrict from level {level}", lambda v: self.p.restrict(v, level), given, coarse
        )
        if good:
            self.call(
                f"interpolate to level {level}",
                lambda v: self.p.interpolate(v, level),
                coarse,
                given,
            )
        return coarse[0] if self.p.batched else coarse


def _inner(a: State, b: State) -> float:
    """Return <a, b> in double precision."""
    both = np.asarray(a, dtype=np.float64).ravel() @ np.asarray(b, dtype=np.float64).ravel()
    return float(both)


def _slopes(function: Callable[[float], float], eps: float) -> list[float]:
    """Return central difference quotients at 0 for several steps."""
    steps = [eps**exponent for exponent in (0.25, 1 / 3, 0.4)]
    return [(function(h) - function(-h)) / (2 * h) for h in steps]


def _some_rows(count: int) -> Iterator[slice]:
    """Return all rows, the last one, and every other one."""
    yield slice(0, count, 1)
    yield slice(count - 1, count, 1)
    yield slice(0, count, 2)
