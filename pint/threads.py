"""How many threads the BLAS library takes during a solve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def limited_blas(threads: int | None) -> Iterator[None]:
    """Limit the BLAS library to so many threads; None leaves it alone."""
    if threads is None:
        yield
    else:
        with _controller().limit(limits=threads, user_api="blas"):
            yield


@cache
def _controller() -> Any:
    """Return the threading libraries that are loaded; looked for once, which takes milliseconds."""
    import numpy.linalg  # noqa: F401 - its library is loaded with it
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
