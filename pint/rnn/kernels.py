"""Numba kernels of gated recurrent layers: a gate evaluation, its derivative, its transpose.

The gate evaluation is the only building block: every fine or coarse step is one or more of them
(see `pint.rnn.schedule`). The kernels named ``gates_*`` treat a stack of n time points with B
sequences each, H hidden units; those named ``chain_*`` take n steps one after another, products
with the recurrent weights included. `docs/gru.md` derives the formulas. One file, because Numba's
cache does not notice edits in other files.

With gi = W_ih x and gh = W_hh h in torch's order of rows, the gated recurrent unit is

    r = s(gi_r + gh_r + bias_r),  z = s(gi_z + gh_z + bias_z),
    e = gh_n + b_hn,              n = tanh(gi_n + b_in + r e),
    t = z (classic) or 1 / (1 + gamma (1 - z)) (implicit),
    q = t^(power2 / 2),           h' = q h + (1 - q) n,

with bias = (b_ir + b_hr, b_iz + b_hz, b_in, b_hn), and the long short-term memory

    i, f, o = s(gi + gh + bias),  g = tanh(gi_g + gh_g + bias_g),
    q = f^(power2 / 2),           c' = q c + (1 - q) / (1 - f) i g,  h' = o tanh(c').

How far an evaluation goes is told by three arguments: the number of finest steps, for each point
and sequence (0 keeps the state, which is how masked steps are left out); `factor`, and power2 =
factor times that number; or `grows`, and then gamma is that number and power2 = 2.
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


IMPLICIT, CLASSIC, LSTM = 0, 1, 2
"""The cells, as the kernels know them."""


@kernel
def _reach(grows: bool, factor: int, steps: int) -> tuple[int, int]:
    """Return gamma and power2 of an evaluation that goes over `steps` finest steps."""
    return (steps, 2) if grows else (1, factor * steps)


@kernel
def _gru_gates(gi: Array, gh: Array, bias: Array, work: Array) -> None:
    """Evaluate r, z, n and e for one sequence at one point, into the first rows of `work`."""
    r, z, n, e = work[0], work[1], work[2], work[3]
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
def _gru_blend(z: Array, cell: int, gamma: int, power2: int, t: Array, q: Array, a: Array) -> None:
    """Evaluate t and q = t^(power2 / 2) by repeated squaring, one vector pass for each bit."""
    hidden = z.size
    one = z.dtype.type(1)
    length = z.dtype.type(gamma)
    for j in range(hidden):
        t[j] = z[j] if cell == CLASSIC else one / (one + length * (one - z[j]))
        q[j] = math.sqrt(t[j]) if power2 % 2 == 1 else one
        a[j] = t[j]
    remaining = power2 // 2
    while remaining > 0:
        if remaining % 2 == 1:
            for j in range(hidden):
                q[j] *= a[j]
        remaining //= 2
        if remaining > 0:
            for j in range(hidden):
                a[j] *= a[j]


@kernel
def _gru_row(
    cell: int,
    gi: Array,
    gh: Array,
    bias: Array,
    h: Array,
    gamma: int,
    power2: int,
    out: Array,
    work: Array,
) -> None:
    """Evaluate the gated recurrent unit for one sequence at one point."""
    _gru_gates(gi, gh, bias, work)
    n, q = work[2], work[5]
    _gru_blend(work[1], cell, gamma, power2, work[4], q, work[6])
    for j in range(h.size):
        out[j] = n[j] + q[j] * (h[j] - n[j])


@kernel
def _gru_row_linearize(
    cell: int,
    gi: Array,
    gh: Array,
    bias: Array,
    h: Array,
    gamma: int,
    power2: int,
    out: Array,
    c: Array,
    work: Array,
) -> None:
    """Evaluate the unit and the coefficients c_e, c_r, c_z, c_n, q of its derivative."""
    _gru_gates(gi, gh, bias, work)
    hidden = h.size
    r, z, n, e, t, q = work[0], work[1], work[2], work[3], work[4], c[4 * hidden :]
    _gru_blend(z, cell, gamma, power2, t, q, work[6])
    one = h.dtype.type(1)
    power = h.dtype.type(0.5) * h.dtype.type(power2)
    length = h.dtype.type(gamma)
    for j in range(hidden):
        change = h[j] - n[j]
        out[j] = n[j] + q[j] * change
        c_n = (one - q[j]) * (one - n[j] * n[j])
        dq_dz = power * q[j] * (one / t[j] if cell == CLASSIC else length * t[j])
        c[j] = c_n * r[j]
        c[hidden + j] = c_n * e[j] * r[j] * (one - r[j])
        c[2 * hidden + j] = change * dq_dz * z[j] * (one - z[j])
        c[3 * hidden + j] = c_n


@kernel
def _lstm_gates(gi: Array, gh: Array, bias: Array, work: Array) -> None:
    """Evaluate i, f, g, o for one sequence at one point, into the first rows of `work`."""
    i, f, g, o = work[0], work[1], work[2], work[3]
    hidden = i.size
    one = gi.dtype.type(1)
    two = gi.dtype.type(2)
    for j in range(hidden):
        i[j] = one / (one + bounded_exp(-(gi[j] + gh[j] + bias[j])))
        f[j] = one / (one + bounded_exp(-(gi[hidden + j] + gh[hidden + j] + bias[hidden + j])))
        a_g = gi[2 * hidden + j] + gh[2 * hidden + j] + bias[2 * hidden + j]
        g[j] = two / (one + bounded_exp(-two * a_g)) - one
        a_o = gi[3 * hidden + j] + gh[3 * hidden + j] + bias[3 * hidden + j]
        o[j] = one / (one + bounded_exp(-a_o))


@kernel
def _power_and_sum(f: float, power2: int) -> tuple[float, float, float, float]:
    """Return q = f^(power2 / 2), S = (1 - q) / (1 - f), and their derivatives dq/df, dS/df.

    With s = sqrt(f), q = s^power2 and (1 + s) S = 1 + s + ... + s^(power2 - 1). Both are built bit
    by bit, highest first, from sums of positive terms only, so that nothing cancels near f = 1.
    """
    one = type(f)(1)
    two = type(f)(2)
    if power2 == 2:
        return f, one, one, type(f)(0)
    s = math.sqrt(f)
    q, total, d_q, d_total = one, type(f)(0), type(f)(0), type(f)(0)  # of 0 terms; d by s
    bit = 1
    while 2 * bit <= power2:
        bit *= 2
    while bit > 0:
        d_total = d_total * (one + q) + total * d_q  # twice as many terms
        total = total * (one + q)
        d_q = two * q * d_q
        q = q * q
        if power2 & bit:  # one more term
            total, d_total = total + q, d_total + d_q
            d_q = d_q * s + q
            q = q * s
        bit //= 2
    sum_ = total / (one + s)
    slope = (d_total - sum_) / (one + s)
    ds_df = one / (two * s)
    return q, sum_, d_q * ds_df, slope * ds_df


@kernel
def _lstm_row(
    gi: Array, gh: Array, bias: Array, u: Array, power2: int, out: Array, work: Array
) -> None:
    """Evaluate the long short-term memory for one sequence at one point; u and out are (h, c)."""
    _lstm_gates(gi, gh, bias, work)
    i, f, g, o = work[0], work[1], work[2], work[3]
    hidden = i.size
    if power2 == 2:
        for j in range(hidden):
            out[hidden + j] = f[j] * u[hidden + j] + i[j] * g[j]
    else:
        for j in range(hidden):
            q, total, _, _ = _power_and_sum(f[j], power2)
            out[hidden + j] = q * u[hidden + j] + total * i[j] * g[j]
    one, two = u.dtype.type(1), u.dtype.type(2)
    for j in range(hidden):
        out[j] = o[j] * (two / (one + bounded_exp(-two * out[hidden + j])) - one)


@kernel
def _lstm_row_linearize(
    gi: Array, gh: Array, bias: Array, u: Array, power2: int, out: Array, c: Array, work: Array
) -> None:
    """Evaluate the unit and the coefficients c_i, c_f, c_g, c_o, k, q of its derivative."""
    _lstm_gates(gi, gh, bias, work)
    i, f, g, o = work[0], work[1], work[2], work[3]
    hidden = i.size
    one, two = u.dtype.type(1), u.dtype.type(2)
    for j in range(hidden):
        q, total, dq_df, ds_df = _power_and_sum(f[j], power2)
        before = u[hidden + j]
        out[hidden + j] = q * before + total * i[j] * g[j]
        c[j] = total * g[j] * i[j] * (one - i[j])
        c[hidden + j] = (before * dq_df + i[j] * g[j] * ds_df) * f[j] * (one - f[j])
        c[2 * hidden + j] = total * i[j] * (one - g[j] * g[j])
        c[5 * hidden + j] = q
    for j in range(hidden):
        tanh_c = two / (one + bounded_exp(-two * out[hidden + j])) - one
        out[j] = o[j] * tanh_c
        c[3 * hidden + j] = tanh_c * o[j] * (one - o[j])
        c[4 * hidden + j] = o[j] * (one - tanh_c * tanh_c)


@kernel
def _row(
    cell: int,
    gi: Array,
    gh: Array,
    bias: Array,
    u: Array,
    grows: bool,
    factor: int,
    steps: int,
    out: Array,
    work: Array,
) -> None:
    """Evaluate one sequence at one point."""
    if steps == 0:
        for j in range(u.size):
            out[j] = u[j]
        return
    gamma, power2 = _reach(grows, factor, steps)
    if cell == LSTM:
        _lstm_row(gi, gh, bias, u, power2, out, work)
    else:
        _gru_row(cell, gi, gh, bias, u, gamma, power2, out, work)


@kernel
def _row_linearize(
    cell: int,
    gi: Array,
    gh: Array,
    bias: Array,
    u: Array,
    grows: bool,
    factor: int,
    steps: int,
    out: Array,
    c: Array,
    work: Array,
) -> None:
    """Evaluate one sequence at one point, and the coefficients of the derivative."""
    if steps == 0:
        for j in range(u.size):
            out[j] = u[j]
        hidden = work.shape[1]
        for j in range(c.size):  # nothing reaches the gates, and all of it the state
            c[j] = 1 if j >= c.size - hidden else 0
        return
    gamma, power2 = _reach(grows, factor, steps)
    if cell == LSTM:
        _lstm_row_linearize(gi, gh, bias, u, power2, out, c, work)
    else:
        _gru_row_linearize(cell, gi, gh, bias, u, gamma, power2, out, c, work)


@kernel
def _row_backward(cell: int, v: Array, c: Array, steps: int, d_gates: Array, d_u: Array) -> None:
    """Multiply the adjoint of a new state by the coefficients, for one sequence at one point.

    `d_u` gets the adjoint of the blended state: of h, or for LSTM of (h, c), where h has none but
    for a step that keeps the state.
    """
    hidden = d_gates.size // 4
    if cell == LSTM:
        for j in range(hidden):
            v_c = v[hidden + j] + v[j] * c[4 * hidden + j]
            d_gates[j] = v_c * c[j]
            d_gates[hidden + j] = v_c * c[hidden + j]
            d_gates[2 * hidden + j] = v_c * c[2 * hidden + j]
            d_gates[3 * hidden + j] = v[j] * c[3 * hidden + j]
            d_u[hidden + j] = v_c * c[5 * hidden + j]
            d_u[j] = 0
        if steps == 0:
            for j in range(hidden):
                d_u[j] = v[j]
        return
    for j in range(hidden):
        d_u[j] = v[j] * c[4 * hidden + j]
    for k in range(4):
        for j in range(hidden):
            d_gates[k * hidden + j] = v[j] * c[k * hidden + j]


@kernel
def gates_forward(
    cell: int,
    gi: Array,
    rows: Array,
    gh: Array,
    bias: Array,
    u: Array,
    grows: bool,
    factor: int,
    steps: Array,
    out: Array,
) -> None:
    """Evaluate the gates and blend.

    Parameters
    ----------
    cell : int
        IMPLICIT, CLASSIC or LSTM. G below is 3 H for the gated recurrent unit and 4 H for LSTM; W
        is H and 2 H.
    gi : ndarray, shape (number of rows held, B, G)
        Input products W_ih x; point i of the stack uses ``gi[rows[i]]``.
    rows : ndarray of int64, shape (n,)
        Row of each point.
    gh : ndarray, shape (n, B, G)
        Products W_hh h of the state that the gates see.
    bias : ndarray, shape (4 H,)
        As above.
    u : ndarray, shape (n, B, W)
        State that is blended: h, or (h, c) for LSTM.
    grows, factor, steps : bool, int, ndarray of int64 of shape (n, B)
        How far the evaluation goes, see above.
    out : ndarray, shape (n, B, W)
        New state; overwritten.
    """
    num_points, batch, _ = u.shape
    work = np.empty((7, bias.size // 4), dtype=u.dtype)
    for i in range(num_points):
        for b in range(batch):
            _row(
                cell, gi[rows[i], b], gh[i, b], bias, u[i, b],
                grows, factor, steps[i, b], out[i, b], work,
            )  # fmt: skip


@kernel
def gates_linearize(
    cell: int,
    gi: Array,
    rows: Array,
    gh: Array,
    bias: Array,
    u: Array,
    grows: bool,
    factor: int,
    steps: Array,
    out: Array,
    slots: Array,
    coefficients: Array,
) -> None:
    """Evaluate the gates as `gates_forward` does, and the coefficients of their derivative.

    With v the adjoint of h', the adjoints of the pre-activations e, r, z, n of the gated recurrent
    unit are v times

        c_e = (1 - q)(1 - n^2) r,   c_r = (1 - q)(1 - n^2) e r (1 - r),
        c_z = (h - n) dq/dz z (1 - z),   c_n = (1 - q)(1 - n^2),

    where dq/dz = (power2 / 2) q times 1 / t (classic) or gamma t (implicit), and that of h is q v.
    With S = (1 - q) / (1 - f) and v_c the adjoint of c' plus v k, k = o (1 - tanh(c')^2), those of
    i, f, g, o of the long short-term memory are v_c times c_i = S g i (1 - i), c_f = (c dq/df + i g
    dS/df) f (1 - f), c_g = S i (1 - g^2), and v times c_o = tanh(c') o (1 - o); that of c is q v_c.

    Parameters
    ----------
    cell, gi, rows, gh, bias, u, grows, factor, steps, out
        As in `gates_forward`.
    slots : ndarray of int64, shape (n,)
        Point i of the stack has row ``slots[i]`` of the following array.
    coefficients : ndarray, shape (number of slots, B, C)
        c_e, c_r, c_z, c_n, q (C = 5 H) or c_i, c_f, c_g, c_o, k, q (C = 6 H); overwritten.
    """
    num_points, batch, _ = u.shape
    work = np.empty((7, bias.size // 4), dtype=u.dtype)
    for i in range(num_points):
        for b in range(batch):
            _row_linearize(
                cell, gi[rows[i], b], gh[i, b], bias, u[i, b],
                grows, factor, steps[i, b], out[i, b], coefficients[slots[i], b], work,
            )  # fmt: skip


@kernel
def gates_backward(
    cell: int,
    v: Array,
    slots: Array,
    coefficients: Array,
    steps: Array,
    d_gates: Array,
    d_u: Array,
) -> None:
    """Multiply the adjoint of the new state by the coefficients of `gates_linearize`.

    Parameters
    ----------
    cell : int
        IMPLICIT, CLASSIC or LSTM.
    v : ndarray, shape (n, B, W)
        Adjoint of the new states.
    slots : ndarray of int64, shape (n,)
        Point i of the stack has row ``slots[i]`` of the coefficients.
    coefficients : ndarray, shape (number of slots, B, C)
        See `gates_linearize`.
    steps : ndarray of int64, shape (n, B)
        Number of finest steps; 0 keeps the state.
    d_gates : ndarray, shape (n, B, 4 H)
        Adjoints of the pre-activations, in the order e, r, z, n or i, f, g, o; overwritten.
    d_u : ndarray, shape (n, B, W)
        Adjoint of the blended state; overwritten.
    """
    num_points, batch, _ = v.shape
    for i in range(num_points):
        for b in range(batch):
            _row_backward(
                cell, v[i, b], coefficients[slots[i], b], steps[i, b], d_gates[i, b], d_u[i, b]
            )


@kernel
def _multiply(a: Array, b: Array, out: Array) -> None:
    """Set out = a @ b; a of few rows is not worth a call of BLAS."""
    rows, inner = a.shape
    if rows > 2:
        np.dot(a, b, out)
        return
    for i in range(rows):
        x, y = a[i], out[i]
        y[:] = 0
        whole = inner - inner % 4
        for k in range(0, whole, 4):
            x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            for j in range(y.size):
                y[j] += x0 * b0[j] + x1 * b1[j] + x2 * b2[j] + x3 * b3[j]
        for k in range(whole, inner):
            for j in range(y.size):
                y[j] += x[k] * b[k, j]


@kernel
def chain_forward(
    cell: int,
    gi: Array,
    rows: Array,
    weight: Array,
    bias: Array,
    u: Array,
    g: Array,
    grows: bool,
    factors: Array,
    middles: Array,
    steps: Array,
    out: Array,
    news: Array,
    slots: Array,
    coefficients: Array,
) -> None:
    """Take n steps of one layer, each of P gate evaluations, one after another.

    Parameters
    ----------
    cell, gi, bias, grows, coefficients
        As in `gates_linearize`; where `coefficients` has no row, none are evaluated.
    rows, slots : ndarray of int64, shape (n, P)
        Row of each evaluation in `gi`, and in `coefficients`.
    weight : ndarray, shape (H, G)
        W_hh transposed.
    u : ndarray, shape (B, W)
        State to begin with.
    g : ndarray, shape (n or 0, B, W)
        Right-hand side; no row is zero.
    factors, middles : ndarray of int64 and of bool, shape (P,)
        Of each evaluation; one that is a middle gives only the state that the next one's gates see.
    steps : ndarray of int64, shape (n, P, B)
        Finest steps of each evaluation.
    out : ndarray, shape (n, B, W)
        States after each step; overwritten.
    news : ndarray, shape (n, P, B, H)
        h of each evaluation, before g is added; overwritten.
    """
    num_points, num_phases = rows.shape
    batch, width = u.shape
    hidden = news.shape[3]
    work = np.empty((7, hidden), dtype=u.dtype)
    gh = np.empty((batch, weight.shape[1]), dtype=u.dtype)
    seen = u[:, :hidden].copy()
    state, new = u.copy(), np.empty((batch, width), dtype=u.dtype)
    for i in range(num_points):
        for p in range(num_phases):
            _multiply(seen, weight, gh)
            for b in range(batch):
                if coefficients.shape[0] == 0:
                    _row(
                        cell, gi[rows[i, p], b], gh[b], bias, state[b],
                        grows, factors[p], steps[i, p, b], new[b], work,
                    )  # fmt: skip
                else:
                    _row_linearize(
                        cell, gi[rows[i, p], b], gh[b], bias, state[b], grows, factors[p],
                        steps[i, p, b], new[b], coefficients[slots[i, p], b], work,
                    )  # fmt: skip
                for j in range(hidden):
                    news[i, p, b, j] = seen[b, j] = new[b, j]
            if not middles[p]:
                state, new = new, state
        if g.shape[0] > 0:
            for b in range(batch):
                for j in range(width):
                    state[b, j] += g[i, b, j]
                for j in range(hidden):
                    seen[b, j] = state[b, j]
        for b in range(batch):
            for j in range(width):
                out[i, b, j] = state[b, j]


@kernel
def chain_backward(
    cell: int,
    w: Array,
    g: Array,
    d_above: Array,
    weight: Array,
    middles: Array,
    steps: Array,
    slots: Array,
    coefficients: Array,
    out: Array,
    d_gates: Array,
) -> None:
    """Apply the transposes of n steps of one layer, each of P evaluations, one after another.

    Parameters
    ----------
    cell, middles, coefficients
        As in `chain_forward`.
    w : ndarray, shape (B, W)
        Adjoint state to begin with.
    g : ndarray, shape (n or 0, B, W)
        Right-hand side; no row is zero.
    d_above : ndarray, shape (n or 0, P, B, H)
        Adjoints that each evaluation's h gets from the layer above; no row is zero.
    weight : ndarray, shape (G, H)
        W_hh, its rows in the order of `d_gates`.
    steps, slots : ndarray of int64, shapes (n, P, B) and (n, P)
        As in `chain_forward`, in the order in which the steps are transposed.
    out : ndarray, shape (n, B, W)
        Adjoint states after each step; overwritten.
    d_gates : ndarray, shape (n, P, B, 4 H)
        Adjoints of the pre-activations; overwritten.
    """
    num_points, num_phases = slots.shape
    batch, width = w.shape
    num_gates, hidden = weight.shape
    used = np.empty((batch, num_gates), dtype=w.dtype)
    d_seen = np.empty((batch, hidden), dtype=w.dtype)
    v, d_u = w.copy(), np.empty((batch, width), dtype=w.dtype)
    start = np.zeros((batch, width), dtype=w.dtype)  # adjoint of the blended state, from later on
    for i in range(num_points):
        for p in range(num_phases - 1, -1, -1):
            if d_above.shape[0] > 0:
                for b in range(batch):
                    for j in range(hidden):
                        v[b, j] += d_above[i, p, b, j]
            for b in range(batch):
                c, gates = coefficients[slots[i, p], b], d_gates[i, p, b]
                _row_backward(cell, v[b], c, steps[i, p, b], gates, d_u[b])
                for j in range(num_gates):
                    used[b, j] = gates[j]
            _multiply(used, weight, d_seen)
            is_second = p > 0 and middles[p - 1]
            for b in range(batch):
                for j in range(width):
                    blended = start[b, j] + d_u[b, j]
                    start[b, j] = blended if is_second else 0
                    v[b, j] = 0 if is_second else blended
                for j in range(hidden):
                    v[b, j] += d_seen[b, j]
        if g.shape[0] > 0:
            for b in range(batch):
                for j in range(width):
                    v[b, j] += g[i, b, j]
        for b in range(batch):
            for j in range(width):
                out[i, b, j] = v[b, j]
