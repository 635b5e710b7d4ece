"""Numba kernels of the gated recurrent unit: one gate evaluation, its derivative, its transpose.

All of them work on a stack of n time points with B sequences each, H hidden units. The gate
evaluation is the only building block: every fine or coarse step is one or more of them (see
`pint.rnn.schedule`). `docs/gru.md` derives the formulas. One file, because Numba's cache does not
notice edits in other files.

With gi = W_ih x and gh = W_hh h (rows r, z, n of torch.nn.GRU) and bias = (b_ir + b_hr,
b_iz + b_hz, b_in, b_hn), the gate evaluation is

    r = s(gi_r + gh_r + bias_r),  z = s(gi_z + gh_z + bias_z),
    e = gh_n + b_hn,              n = tanh(gi_n + b_in + r e),
    t = z (classic) or 1 / (1 + gamma (1 - z)) (implicit),
    q = t^(power2 / 2),           out = q h + (1 - q) n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

Array = NDArray[Any]

# No reassociation and no assumption about NaN: sums keep their order and NaN is passed on.
_FASTMATH = {"contract", "nsz", "arcp", "afn"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with the one set of options that all kernels share."""
    return njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH)(function)


def _exp_of(real: type, integer: type, bits: int, degree: int, limit: float) -> Any:
    """Return exp for one float type, in arithmetic that compilers turn into vector code.

    exp(x) = 2^k exp(r) with k the integer next to x / ln 2, and exp(r) by its Taylor polynomial on
    |r| <= ln 2 / 2; the remainder is below 5e-9 (degree 7) or 2e-16 (degree 12). Adding 1.5 2^bits
    rounds x / ln 2 to an integer and leaves it in the low bits of the sum.
    """
    magic = real(1.5 * 2.0**bits)
    log2e = real(1 / math.log(2))
    high = real(round(math.log(2) * 2**8) / 2**8)  # few bits: k * high is exact
    low = real(math.log(2) - float(high) + 2.3190468138462996e-17)  # ln 2 beyond float64
    coefficients = tuple(real(1 / math.factorial(i)) for i in range(degree, -1, -1))
    least, greatest = real(-limit), real(limit)
    shift = integer(bits)

    def exp(x: Any) -> Any:
        x = least if x < least else x
        x = greatest if x > greatest else x
        shifted = x * log2e + magic
        k = shifted - magic
        r = (x - k * high) - k * low
        p = coefficients[0]
        for c in coefficients[1:]:
            p = p * r + c
        scaled = integer(real(p).view(integer) + (real(shifted).view(integer) << shift))
        return scaled.view(real) if x == x else x  # the shift would spoil a NaN's bits

    return exp


def bounded_exp(x: float) -> float:
    """Return exp(x) for |x| <= 80 (float32) or 700 (float64), clamped outside; in kernels only."""
    raise NotImplementedError("bounded_exp is for compiled code")


_exp32 = _exp_of(np.float32, np.int32, 23, 7, 80.0)
_exp64 = _exp_of(np.float64, np.int64, 52, 12, 700.0)


@overload(bounded_exp)
def _overload_bounded_exp(x: Any) -> Any:
    return {types.float32: _exp32, types.float64: _exp64}.get(x)


@kernel
def _rows_of_gates(
    gi: Array, gh: Array, bias: Array, r: Array, z: Array, n: Array, e: Array
) -> None:
    """Evaluate r, z, n and e for one sequence at one point; all of length H, gi and gh of 3 H."""
    hidden = r.size
    one = gi.dtype.type(1)
    two = gi.dtype.type(2)
    for j in range(hidden):
        r[j] = one / (one + bounded_exp(-(gi[j] + gh[j] + bias[j])))
        a_z = gi[hidden + j] + gh[hidden + j] + bias[hidden + j]
        z[j] = one / (one + bounded_exp(-a_z))
        e[j] = gh[2 * hidden + j] + bias[3 * hidden + j]
        a_n = gi[2 * hidden + j] + bias[2 * hidden + j] + r[j] * e[j]
        n[j] = two / (one + bounded_exp(-two * a_n)) - one  # tanh


@kernel
def _rows_of_blend(z: Array, classic: bool, gamma: Any, power2: int, t: Array, q: Array) -> None:
    """Evaluate t and q = t^(power2 / 2) by repeated squaring, one vector pass for each bit."""
    hidden = z.size
    one = z.dtype.type(1)
    for j in range(hidden):
        t[j] = z[j] if classic else one / (one + gamma * (one - z[j]))
        q[j] = one
    if power2 % 2 == 1:
        for j in range(hidden):
            q[j] = math.sqrt(t[j])
    remaining = power2 // 2
    square = t.copy()
    while remaining > 0:
        if remaining % 2 == 1:
            for j in range(hidden):
                q[j] *= square[j]
        remaining //= 2
        if remaining > 0:
            for j in range(hidden):
                square[j] *= square[j]


@kernel
def gates_forward(
    gi: Array,
    rows: Array,
    gh: Array,
    bias: Array,
    h: Array,
    classic: bool,
    gamma: Any,
    power2: int,
    out: Array,
) -> None:
    """Evaluate the gates and blend: out = q h + (1 - q) n.

    Parameters
    ----------
    gi : ndarray, shape (number of rows held, B, 3 H)
        Input products W_ih x; point i of the stack uses ``gi[rows[i]]``.
    rows : ndarray of int64, shape (n,)
        Row of each point.
    gh : ndarray, shape (n, B, 3 H)
        Products W_hh h of the state that the gates see.
    bias : ndarray, shape (4 H,)
        b_ir + b_hr, b_iz + b_hz, b_in, b_hn.
    h : ndarray, shape (n, B, H)
        State that is blended.
    classic : bool
        Classic or implicit unit.
    gamma : float of the arrays' dtype
        Step length of the implicit unit.
    power2 : int
        Twice the exponent of q.
    out : ndarray, shape (n, B, H)
        New state; overwritten.
    """
    num_points, batch, hidden = h.shape
    r, z, n = (
        np.empty_like(bias[:hidden]),
        np.empty_like(bias[:hidden]),
        np.empty_like(bias[:hidden]),
    )
    e, t, q = np.empty_like(r), np.empty_like(r), np.empty_like(r)
    for i in range(num_points):
        for b in range(batch):
            _rows_of_gates(gi[rows[i], b], gh[i, b], bias, r, z, n, e)
            _rows_of_blend(z, classic, gamma, power2, t, q)
            for j in range(hidden):
                out[i, b, j] = n[j] + q[j] * (h[i, b, j] - n[j])


@kernel
def gates_linearize(
    gi: Array,
    rows: Array,
    gh: Array,
    bias: Array,
    h: Array,
    classic: bool,
    gamma: Any,
    power2: int,
    out: Array,
    slots: Array,
    coefficients: Array,
    blend: Array,
) -> None:
    """Evaluate the gates as `gates_forward` does, and the coefficients of their derivative.

    With v the adjoint of out, the adjoints of the pre-activations are v times

        c_e = (1 - q)(1 - n^2) r,   c_r = (1 - q)(1 - n^2) e r (1 - r),
        c_z = (h - n) dq/dz z (1 - z),   c_n = (1 - q)(1 - n^2),

    where dq/dz = (power2 / 2) q times 1 / t (classic) or gamma t (implicit).

    Parameters
    ----------
    gi, rows, gh, bias, h, classic, gamma, power2, out
        As in `gates_forward`.
    slots : ndarray of int64, shape (n,)
        Point i of the stack has row ``slots[i]`` of the following arrays.
    coefficients : ndarray, shape (number of slots, B, 4 H)
        c_e, c_r, c_z, c_n; these rows are overwritten.
    blend : ndarray, shape (number of slots, B, H)
        q, the derivative of out with respect to h; these rows are overwritten.
    """
    num_points, batch, hidden = h.shape
    one = h.dtype.type(1)
    power = h.dtype.type(0.5) * h.dtype.type(power2)
    r, z, n = (
        np.empty_like(bias[:hidden]),
        np.empty_like(bias[:hidden]),
        np.empty_like(bias[:hidden]),
    )
    e, t = np.empty_like(r), np.empty_like(r)
    for i in range(num_points):
        for b in range(batch):
            _rows_of_gates(gi[rows[i], b], gh[i, b], bias, r, z, n, e)
            q = blend[slots[i], b]
            _rows_of_blend(z, classic, gamma, power2, t, q)
            c = coefficients[slots[i], b]
            for j in range(hidden):
                change = h[i, b, j] - n[j]
                out[i, b, j] = n[j] + q[j] * change
                c_n = (one - q[j]) * (one - n[j] * n[j])
                dq_dz = power * q[j] * (one / t[j] if classic else gamma * t[j])
                c[j] = c_n * r[j]
                c[hidden + j] = c_n * e[j] * r[j] * (one - r[j])
                c[2 * hidden + j] = change * dq_dz * z[j] * (one - z[j])
                c[3 * hidden + j] = c_n


@kernel
def gates_backward(
    v: Array,
    slots: Array,
    coefficients: Array,
    blend: Array,
    d_gates: Array,
    d_h: Array,
) -> None:
    """Multiply the adjoint of the new state by the coefficients of `gates_linearize`.

    Parameters
    ----------
    v : ndarray, shape (n, B, H)
        Adjoint of the new states.
    slots : ndarray of int64, shape (n,)
        Point i of the stack has row ``slots[i]`` of the coefficients.
    coefficients : ndarray, shape (number of slots, B, 4 H)
        c_e, c_r, c_z, c_n.
    blend : ndarray, shape (number of slots, B, H)
        q.
    d_gates : ndarray, shape (n, B, 4 H)
        Adjoints of the pre-activations, in the order e, r, z, n; overwritten.
    d_h : ndarray, shape (n, B, H)
        Adjoint of the blended state, q v; overwritten.
    """
    num_points, batch, hidden = v.shape
    for i in range(num_points):
        row = slots[i]
        for b in range(batch):
            c, q = coefficients[row, b], blend[row, b]
            for j in range(hidden):
                d_h[i, b, j] = v[i, b, j] * q[j]
            for k in range(4):
                for j in range(hidden):
                    d_gates[i, b, k * hidden + j] = v[i, b, j] * c[k * hidden + j]
