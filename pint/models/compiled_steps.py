"""Numba kernels of the models: one step each, see `pint.propagator.Propagator.kernel`.

The compiler may not reassociate or contract, so that a step has equal bits wherever it is inlined.
All kernels are in one file, because Numba's cache does not notice edits in other files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from pint.parallel.once import once


def kernel(function: Callable[..., Any]) -> Any:
    """Compile with the options of all models' kernels."""
    return njit(nogil=True, error_model="numpy")(function)


@kernel
def dahlquist(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Set out = u / (1 - lambda dt), params = lambda."""
    out[0] = u[0] / (1 - params * (stop - start))


@kernel
def rational(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Set out = u P(lambda dt) / Q(lambda dt), params = lambda, P, Q; lowest coefficients first."""
    rate, P, Q = params
    z = rate * (stop - start)
    top, bottom = P[-1], Q[-1]
    for k in range(P.size - 2, -1, -1):
        top = P[k] + top * z
    for k in range(Q.size - 2, -1, -1):
        bottom = Q[k] + bottom * z
    out[0] = u[0] * top / bottom


@kernel
def eliminate(scale: float, half: int, factors: Any) -> None:
    """Set factors[1..half] for `diffuse`; its first and last entry record their parameters."""
    factors[0], factors[-1] = scale, half
    e = 0.0
    for i in range(1, half + 1):
        e = 1 / ((2 + scale) - e)
        factors[i] = e


@kernel
def diffuse(u: Any, source: float, scale: float, params: Any, factors: Any, out: Any) -> None:
    """Set out to a backward Euler step from u, 1 / scale = kappa dt / dx^2."""
    _, _, left, right, profile, _ = params
    last = u.size - 1
    half, stride = (last - 1) // 2, (profile.size - 1) // last
    if factors[0] != scale or factors[-1] < half:  # steps of equal length reuse them
        eliminate(scale, half, factors)
    out[0], out[last] = left, right
    low, high = left, right
    for i in range(1, half + 1):
        j = last - i
        low = ((u[i] + source * profile[stride * i]) * scale + low) * factors[i]
        high = ((u[j] + source * profile[stride * j]) * scale + high) * factors[i]
        out[i], out[j] = low, high
    e = factors[half] if half > 0 else 0.0
    if last % 2 == 0:  # one node in the middle
        i = half + 1
        low += (u[i] + source * profile[stride * i]) * scale + high
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


@once
def heat(
    amplitude: Callable[[float], float] | None,
    fraction: float = 1.0,
    explicit: float = 0.0,
    restarts: float | None = None,
) -> Any:
    """Return the kernel of `pint.models.heat.Heat` for the amplitude of a source over time.

    The other arguments belong to the method. `params` are length, diffusivity, left and right
    value, the source's profile, and two scratch arrays with one entry per node.
    """
    strength = kernel(_zero if amplitude is None else amplitude)
    again = 0.0 if restarts is None else restarts

    @kernel
    def step(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
        length, diffusivity, left, right, _, scratch = params
        last, dt = u.size - 1, stop - start
        dx, factors, d = length / last, scratch[0], scratch[1]
        scale = dx * dx / (diffusivity * dt)
        if explicit != 0:
            source = fraction * dt * strength(stop) + explicit * dt * strength(start)
            c = explicit / scale
            before, here = left, u[1]
            for i in range(1, last):
                after = u[i + 1] if i + 1 < last else right
                d[i] = here + ((after - here) - (here - before)) * c
                before, here = here, after
            diffuse(d[: last + 1], source, scale / fraction, params, factors, out)
        elif again != 0:
            first = start + fraction * dt
            source = fraction * dt * strength(first)
            diffuse(u, source, scale / fraction, params, factors, out)
            for i in range(1, last):
                d[i] = u[i] + again * (out[i] - u[i])
            source = fraction * dt * strength(stop)
            diffuse(d[: last + 1], source, scale / fraction, params, factors, out)
        else:
            diffuse(u, dt * strength(stop), scale, params, factors, out)

    return step


@kernel
def burgers(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
    """Set out to a step of `pint.models.burgers.Burgers` by Newton's method; NaN where it fails.

    `params` are length, viscosity, left and right value, the greatest number of Newton steps, the
    relative change at which they stop, and two scratch arrays with one entry per node.
    """
    length, viscosity, left, right, most, enough, scratch = params
    last, dt = u.size - 1, stop - start
    dx, factors, change = length / last, scratch[0], scratch[1]
    c, d = dt / (4 * dx), viscosity * dt / (dx * dx)
    out[:] = u
    out[0], out[last] = left, right
    for _ in range(most):
        factor, before = 0.0, 0.0
        for i in range(1, last):
            low, here, high = out[i - 1], out[i], out[i + 1]
            defect = here - u[i] + c * (high * high - low * low) - d * (low - 2 * here + high)
            below = -2 * c * low - d if i > 1 else 0.0
            pivot = (1 + 2 * d) - below * factor
            factor, before = (2 * c * high - d) / pivot, (defect - below * before) / pivot
            factors[i], change[i] = factor, before
        largest, size, x = 0.0, max(abs(left), abs(right)), 0.0
        bad = False
        for i in range(last - 1, 0, -1):
            x = change[i] - (factors[i] * x if i < last - 1 else 0.0)
            largest, size = max(largest, abs(x)), max(size, abs(out[i]))
            bad = bad or not abs(x) < np.inf
            out[i] -= x
        if not bad and largest <= enough * (1 + size):
            return
    out[1:last] = np.nan


@once
def runge_kutta(rhs: Callable[..., None]) -> Any:
    """Return the kernel of `pint.models.runge_kutta.RungeKutta` for a right-hand side.

    `params` are the right-hand side's parameters, the tableau's A, b, c, and a scratch array of one
    state per stage and one more.
    """
    f = kernel(rhs)

    @kernel
    def step(u: Any, start: float, stop: float, level: int, params: Any, out: Any) -> None:
        theta, A, b, c, k = params
        dt, num_stages = stop - start, b.size
        v = k[num_stages]
        for s in range(num_stages):
            for i in range(u.size):
                total = 0.0
                for r in range(s):
                    total += A[s, r] * k[r, i]
                v[i] = u[i] + dt * total
            f(start + c[s] * dt, v, theta, k[s])
        for i in range(u.size):
            total = 0.0
            for s in range(num_stages):
                total += b[s] * k[s, i]
            out[i] = u[i] + dt * total

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
