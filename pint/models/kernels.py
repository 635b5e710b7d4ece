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


@kernel
def lorenz_rate(x: float, y: float, z: float, params: Any) -> tuple[float, float, float]:
    """Return (x', y', z')."""
    sigma, rho, beta = params
    return sigma * (y - x), x * (rho - z) - y, x * y - beta * z


@kernel
def lorenz_euler(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Set out = u + dt f(u) with the right-hand side f of Lorenz, params = (sigma, rho, beta)."""
    dt, (x, y, z) = stop - start, (u[0], u[1], u[2])
    a, b, c = lorenz_rate(x, y, z, params)
    out[0], out[1], out[2] = x + dt * a, y + dt * b, z + dt * c


@kernel
def lorenz_rk4(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Take one step of the classical Runge-Kutta method for the equations of Lorenz."""
    dt, half = stop - start, 1 / 2
    x, y, z = u[0], u[1], u[2]
    a1, b1, c1 = lorenz_rate(x, y, z, params)
    a2, b2, c2 = lorenz_rate(
        x + dt * (half * a1), y + dt * (half * b1), z + dt * (half * c1), params
    )
    a3, b3, c3 = lorenz_rate(
        x + dt * (half * a2), y + dt * (half * b2), z + dt * (half * c2), params
    )
    a4, b4, c4 = lorenz_rate(x + dt * a3, y + dt * b3, z + dt * c3, params)
    outer, inner = 1 / 6, 1 / 3
    out[0] = x + dt * (((outer * a1 + inner * a2) + inner * a3) + outer * a4)
    out[1] = y + dt * (((outer * b1 + inner * b2) + inner * b3) + outer * b4)
    out[2] = z + dt * (((outer * c1 + inner * c2) + inner * c3) + outer * c4)
