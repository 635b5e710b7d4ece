"""Where the time of a solve goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


class Stopwatch:
    """Adds up seconds by phase; those of a phase inside another one count for the inner one only.

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
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time inside a ``with`` block to a phase."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        """Charge the time since the last call to the innermost phase."""
        now = time.perf_counter()
        if self._open:
            phase = self._open[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


def timed(phase: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that charges a function's time to the `watch` of its first argument."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def measured(place: Any, *rest: Any) -> Any:
            with place.watch.phase(phase):
                return function(place, *rest)

        return measured

    return decorate
