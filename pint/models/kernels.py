"""Numba kernels of the models: one step each, see `pint.propagator.Propagator.kernel`.

No kernel lets the compiler reassociate or contract, so that a step gives the same bits wherever it
is inlined. One file, because Numba's cache does not notice edits in other files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Any:
    """Compile with the one set of options that all models' kernels share."""
    return njit(nogil=True, error_model="numpy")(function)


@kernel
def dahlquist(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Set out = u / (1 - lambda dt), params = lambda."""
    out[0] = u[0] / (1 - params * (stop - start))
