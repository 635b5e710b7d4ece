"""Seconds of a solve by phase, and marks of phases for a timeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import TracebackType
from typing import Any

NOWHERE = -1
"""Level of a phase that belongs to none, and iteration before the first one."""


Mark = tuple[str, int, int, float] | float
"""A phase begins: its name, level, iteration, and time; or the innermost one ends: the time."""

RECORDING: ContextVar[list[Mark] | None] = ContextVar("recording", default=None)
"""List for the marks of all stopwatches of this thread; None: no recording."""


class Stopwatch:
    """Adds up seconds by phase; the time of an inner phase counts for the inner phase only.

    Where `RECORDING` is a list when the outermost phase begins, the begins and ends of that phase
    and of those inside it are put down there, too: one tuple and one float are the cheapest.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds by phase.
    iteration : int
        What phases that are recorded belong to.
    recording : list of Mark, or None
        Where they are put down.

    Examples
    --------
    >>> watch = Stopwatch()
    >>> with watch.phase("residual"), watch.phase("messages"):
    ...     pass
    >>> sorted(watch.seconds)
    ['messages', 'residual']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.iteration = NOWHERE
        self.recording: list[Mark] | None = None
        self._open: list[tuple[str, int]] = []
        self._since = 0.0

    @property
    def current(self) -> tuple[str, int]:
        """The innermost phase and its level; "rest" outside of all."""
        return self._open[-1] if self._open else ("rest", NOWHERE)

    def begin(self, phase: str, level: int = NOWHERE) -> None:
        """Charge the time from now on to a phase, until `end`."""
        now = time.perf_counter()
        if self._open:
            self._charge(now)
        else:
            self._since, self.recording = now, RECORDING.get()
        self._open.append((phase, level))
        if self.recording is not None:
            self.recording.append((phase, level, self.iteration, now))

    def end(self) -> None:
        """End the innermost phase."""
        now = time.perf_counter()
        self._charge(now)
        self._open.pop()
        if self.recording is not None:
            self.recording.append(now)

    def phase(self, name: str, level: int = NOWHERE) -> _Phase:
        """Charge the time inside a ``with`` block to a phase."""
        return _Phase(self, name, level)

    def _charge(self, now: float) -> None:
        """Charge the time since the last call to the innermost phase."""
        phase, _ = self._open[-1]
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


class _Phase:
    """A ``with`` block of a stopwatch; a class, because a generator takes a microsecond more."""

    __slots__ = ("level", "name", "watch")

    def __init__(self, watch: Stopwatch, name: str, level: int) -> None:
        self.watch, self.name, self.level = watch, name, level

    def __enter__(self) -> None:
        self.watch.begin(self.name, self.level)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.watch.end()


def timed(phase: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that charges a function's time to the `watch` of its first argument.

    The argument is a level: its `index` goes into a recording.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def measured(level: Any, *rest: Any) -> Any:
            watch = level.watch
            watch.begin(phase, level.index)
            try:
                return function(level, *rest)
            finally:
                watch.end()

        return measured

    return decorate
