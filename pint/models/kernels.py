"""Numba kernels of the models: one step each, see `pint.propagator.Propagator.kernel`.

No kernel lets the compiler reassociate or contract, so that a step gives the same bits wherever it
is inlined. One file, because Numba's cache does not notice edits in other files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Any:
    """Compile with the one set of options that all models' kernels share."""
    return njit(nogil=True, error_model="numpy")(function)


@kernel
def dahlquist(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Set out = u / (1 - lambda dt), params = lambda."""
    out[0] = u[0] / (1 - params * (stop - start))


@kernel
def eliminate(scale: float, half: int, factors: Any) -> None:
    """Set factors[1..half] for `heat`, and note in factors[0] which scale they are for."""
    factors[0] = scale
    e = 0.0
    for i in range(1, half + 1):
        e = 1 / ((2 + scale) - e)
        factors[i] = e


@cache
def heat(amplitude: Callable[[float], float] | None) -> Any:
    """Return the kernel of `pint.models.heat.Heat`, with a source that varies in time like this.

    `params` are length, diffusivity, left and right value, the source's profile, and a scratch
    array of as many entries as nodes.
    """
    strength = kernel(_zero if amplitude is None else amplitude)

    @kernel
    def step(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
        length, diffusivity, left, right, profile, factors = params
        last, dt = u.size - 1, stop - start
        dx, half = length / last, (last - 1) // 2
        scale, source = dx * dx / (diffusivity * dt), dt * strength(stop)
        if factors[0] != scale:  # steps of one length share them
            eliminate(scale, half, factors)
        out[0], out[last] = left, right
        low, high = left, right
        for i in range(1, half + 1):
            low = ((u[i] + source * profile[i]) * scale + low) * factors[i]
            high = ((u[last - i] + source * profile[last - i]) * scale + high) * factors[i]
            out[i], out[last - i] = low, high
        e = factors[half] if half > 0 else 0.0
        if last % 2 == 0:  # one node in the middle
            i = half + 1
            low += (u[i] + source * profile[i]) * scale + high
            low /= (2 + scale) - 2 * e
            high = low
            out[i] = low
        elif half > 0:
            low, high = (low + e * high) / (1 - e * e), (high + e * low) / (1 - e * e)
            out[half], out[last - half] = low, high
            half -= 1
        for i in range(half, 0, -1):
            low = out[i] + factors[i] * low
            high = out[last - i] + factors[i] * high
            out[i], out[last - i] = low, high

    return step


def _zero(t: float) -> float:
    return 0.0
