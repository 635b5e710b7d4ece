"""The guess: states at the points after point 0 with which an iteration begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pint.arrays import in_library_of
from pint.grid.level import Level
from pint.options import at_least
from pint.propagator import State

if TYPE_CHECKING:
    from pint.mgrit.result import Result


@dataclass(frozen=True, kw_only=True)
class Random:
    """Independent random numbers, uniform in low <= x < high; for both parts if complex.

    Each point has its own generator, seeded with `seed` and the point's index, so that the
    numbers do not depend on the number of ranks.

    Parameters
    ----------
    seed : int, default 0
        Seed of the random numbers.
    low, high : float, default 0.0 and 1.0
        Range of the numbers.

    Raises
    ------
    ValueError
        If `seed` is negative, or `high` not above `low`.

    Examples
    --------
    >>> Random(seed=1).state(7, (2,), np.dtype(float)).shape
    (2,)
    """

    seed: int = 0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        if not self.low < self.high < np.inf:
            raise ValueError(f"high must be above low, got low={self.low}, high={self.high}")

    def state(self, point: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the random state at a point, with a shape and dtype; new."""
        generator = np.random.default_rng([self.seed, point])
        numbers: NDArray[Any] = generator.uniform(self.low, self.high, shape)
        if dtype.kind == "c":
            numbers = numbers + 1j * generator.uniform(self.low, self.high, shape)
        return np.asarray(numbers).astype(dtype)


Guess: TypeAlias = (
    "float | NDArray[Any] | Callable[[float], Any] | Literal['sequential'] | Random | Result | None"
)
"""None (zero), a number, an array of a state's shape, one state for each own point, a callable
t -> state, "sequential", `Random`, or the result of another solve."""


def fill(level: Level, first: State, guess: Any) -> None:
    """Set the states at this rank's points from any guess but "sequential".

    Parameters
    ----------
    level : Level
        The finest level.
    first : array
        The initial value.
    guess : Guess
        The guess; no result.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """
    if isinstance(guess, str):
        if guess != "sequential":
            raise ValueError(f"guess must be 'sequential' if it is a string, got {guess!r}")
    elif isinstance(guess, Random) or callable(guess):
        for slot, point in enumerate(level.block, start=1):
            level.u[slot, ...] = _state_at(level, point, first, guess)
    elif guess is not None:
        shape = tuple(np.shape(guess))
        one, every = tuple(first.shape), tuple(level.u[level.shown].shape)
        if shape not in ((), one, every):
            raise ValueError(f"guess has shape {shape}, expected (), {one} or {every}")
        _check_kind(level, guess)
        level.u[level.shown] = guess


def _state_at(level: Level, point: int, first: State, guess: Any) -> State:
    """Return the state of a guess that is a function, or random numbers, at a point."""
    if isinstance(guess, Random):
        state = guess.state(point, tuple(first.shape), np.asarray(level.u[:0]).dtype)
        return in_library_of(level.u, state)
    state = guess(float(level.grid.times[point]))
    _check_kind(level, state)
    return state


def _check_kind(level: Level, state: Any) -> None:
    """Raise TypeError if complex numbers would lose their imaginary part."""
    dtype = np.asarray(level.u[:0]).dtype
    if np.iscomplexobj(state) and dtype.kind != "c":
        raise TypeError(f"guess is complex, the propagator's states are {dtype}")


def states_of(result: Result, level: Level) -> State:
    """Return the states of a result at this rank's points, (number of own points, ...); collective.

    States of a solve on other times are interpolated linearly between the two neighbouring points,
    and are constant beyond the ends.
    """
    bounds = level.layout.opened().bounds
    if np.array_equal(result.times, level.grid.times) and np.array_equal(
        result.layout.bounds, bounds
    ):
        return result.u
    first = level.block.start - 1 + int(level.shown.start)
    u, own = result.gather(), level.grid.times[first : level.block.stop]
    left = np.clip(np.searchsorted(result.times, own, "right") - 1, 0, len(u) - 2)
    length = np.diff(result.times)[left]
    part = np.clip((own - result.times[left]) / length, 0.0, 1.0)
    part = part.reshape(-1, *[1] * (u.ndim - 1)).astype(u.real.dtype)
    return in_library_of(result.u, (1 - part) * u[left] + part * u[left + 1])
