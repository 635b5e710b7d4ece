"""How many threads the BLAS library takes during a solve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

_LOCK = Lock()
_SOLVES: list[Any] = []
"""Limits of the solves under way: ranks that are threads have one library, and one limit."""


@contextmanager
def limited_blas(threads: int | None) -> Iterator[None]:
    """Limit the BLAS library to `threads` threads; None leaves it alone.

    While several threads of the process are inside, the limit of the first one counts. The library
    has its own limit again when the last one leaves.
    """
    if threads is None:
        yield
        return
    with _LOCK:
        limit = _controller(len(sys.modules)).limit
        _SOLVES.append(_SOLVES[0] if _SOLVES else limit(limits=threads, user_api="blas"))
    try:
        yield
    finally:
        with _LOCK:
            limiter = _SOLVES.pop()
            if not _SOLVES:
                _take_control()
                limiter.restore_original_limits()


def _take_control() -> None:
    """Let this thread change the limit, where threadpoolctl leaves that to the first thread."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


@lru_cache(maxsize=1)
def _controller(num_modules: int) -> Any:
    """Return the threading libraries; looked for, which takes milliseconds, after imports only."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
