"""Results that all threads share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from threading import RLock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_LOCK = RLock()


def once(function: Callable[P, T]) -> Callable[P, T]:
    """Cache a function's results as `functools.cache` does, each computed by one thread only.

    For functions that compile: ranks that are threads would each compile the same kernel.
    """
    cached = cache(function)

    @wraps(function)
    def locked(*args: P.args, **kwargs: P.kwargs) -> T:
        with _LOCK:
            return cached(*args, **kwargs)  # type: ignore[arg-type]

    return locked
