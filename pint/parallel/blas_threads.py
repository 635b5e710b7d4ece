"""How many threads the BLAS library takes during a solve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


@contextmanager
def limited_blas(threads: int | None) -> Iterator[None]:
    """Limit the BLAS library to so many threads; None leaves it alone."""
    if threads is None:
        yield
    else:
        with _controller(len(sys.modules)).limit(limits=threads, user_api="blas"):
            yield


@lru_cache(maxsize=1)
def _controller(num_modules: int) -> Any:
    """Return the threading libraries; looked for, which takes milliseconds, after imports only."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
