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
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

Array = NDArray[Any]

# No fused products, reassociation or assumption about NaN: vector code and the plain loop beside
# it, between which addresses may decide, then round alike, and NaN is passed on.
_FASTMATH = {"nsz"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with the one set of options that all kernels share."""
    return njit(cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH)(function)


def unit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile what is done for one unit as part of its caller, whose loops become vector code."""
    return njit(forceinline=True, error_model="numpy", fastmath=_FASTMATH)(function)


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


@unit
def _is_long(grows: bool, factor: int, steps: Array) -> bool:
    """Tell whether a power other than 1 is taken for any sequence."""
    return not grows and (factor == 1 or steps.max() > 1)


@unit
def _gru_unit(
    a_r: float, a_z: float, gi_n: float, gh_n: float, b_in: float, b_hn: float
) -> tuple[float, float, float, float]:
    """Return r, z, n and e of one unit from its pre-activations."""
    one, two = type(a_r)(1), type(a_r)(2)
    r = one / (one + bounded_exp(-a_r))
    z = one / (one + bounded_exp(-a_z))
    e = gh_n + b_hn
    n = two / (one + bounded_exp(-two * (gi_n + b_in + r * e))) - one  # tanh
    return r, z, n, e


@unit
def _gru_kept(z: float, cell: int, gamma: float) -> float:
    """Return t, the part of the state that one step keeps."""
    one = type(z)(1)
    return z if cell == CLASSIC else one / (one + gamma * (one - z))


@kernel
def _keep(u: Array, out: Array, c: Array, b: int, hidden: int) -> None:
    """Take no step with sequence b: keep its state, whatever the gates are, to the last bit."""
    out[b] = u[b]
    if c.shape[0] > 0:
        c[b] = 0  # nothing reaches the gates, and all of it the state
        c[b, c.shape[1] - hidden :] = 1


@unit
def _gru_point(
    cell: int, gi: Array, gh: Array, bias: Array, u: Array, grows: bool, steps: Array, out: Array
) -> None:
    """Evaluate all sequences of a point; where none takes a power, in one pass."""
    batch, H = u.shape
    for b in range(batch):
        if steps[b] == 0:
            out[b] = u[b]
            continue
        gamma = u.dtype.type(steps[b] if grows else 1)
        for j in range(H):
            _, z, n, _ = _gru_unit(
                gi[b, j] + gh[b, j] + bias[j],
                gi[b, H + j] + gh[b, H + j] + bias[H + j],
                gi[b, 2 * H + j], gh[b, 2 * H + j], bias[2 * H + j], bias[3 * H + j],
            )  # fmt: skip
            out[b, j] = n + _gru_kept(z, cell, gamma) * (u[b, j] - n)


@kernel
def _gru_long_point(
    cell: int, gi: Array, gh: Array, bias: Array, u: Array, grows: bool, factor: int, steps: Array,
    out: Array, c: Array, work: tuple[Array, ...],
) -> None:  # fmt: skip
    """Evaluate with any powers; and c_e, c_r, c_z, c_n, q of the derivative if `c` has rows."""
    batch, H = u.shape
    one = u.dtype.type(1)
    r, z, n, e, t, q, square, _ = work
    for b in range(batch):
        if steps[b] == 0:
            _keep(u, out, c, b, H)
            continue
        gamma = u.dtype.type(steps[b] if grows else 1)
        power2 = 2 if grows else factor * steps[b]
        for j in range(H):
            r[j], z[j], n[j], e[j] = _gru_unit(
                gi[b, j] + gh[b, j] + bias[j],
                gi[b, H + j] + gh[b, H + j] + bias[H + j],
                gi[b, 2 * H + j], gh[b, 2 * H + j], bias[2 * H + j], bias[3 * H + j],
            )  # fmt: skip
        for j in range(H):
            t[j] = _gru_kept(z[j], cell, gamma)
        _power(t, power2, q, square)
        for j in range(H):
            out[b, j] = n[j] + q[j] * (u[b, j] - n[j])
        if c.shape[0] > 0:
            power = u.dtype.type(0.5) * u.dtype.type(power2)
            for j in range(H):
                square[j] = (one - q[j]) * (one - n[j] * n[j])
            for j in range(H):
                c[b, j] = square[j] * r[j]
            for j in range(H):
                c[b, H + j] = square[j] * e[j] * r[j] * (one - r[j])
            for j in range(H):
                dt_dz = one if cell == CLASSIC else gamma * t[j] * t[j]
                dq_dz = power * q[j] / t[j] * dt_dz
                c[b, 2 * H + j] = (u[b, j] - n[j]) * dq_dz * z[j] * (one - z[j])
            for j in range(H):
                c[b, 3 * H + j] = square[j]
                c[b, 4 * H + j] = q[j]


@kernel
def _power(t: Array, power2: int, q: Array, square: Array) -> None:
    """Evaluate q = t^(power2 / 2) by repeated squaring, one vector pass for each bit."""
    if power2 == 2:
        for j in range(t.size):
            q[j] = t[j]
        return
    for j in range(t.size):
        q[j] = math.sqrt(t[j]) if power2 % 2 == 1 else t.dtype.type(1)
        square[j] = t[j]
    remaining = power2 // 2
    while remaining > 0:
        if remaining % 2 == 1:
            for j in range(t.size):
                q[j] *= square[j]
        remaining //= 2
        if remaining > 0:
            for j in range(t.size):
                square[j] *= square[j]


@unit
def _lstm_unit(a_i: float, a_f: float, a_g: float, a_o: float) -> tuple[float, float, float, float]:
    """Return i, f, g and o of one unit from its pre-activations."""
    one, two = type(a_i)(1), type(a_i)(2)
    i = one / (one + bounded_exp(-a_i))
    f = one / (one + bounded_exp(-a_f))
    g = two / (one + bounded_exp(-two * a_g)) - one
    o = one / (one + bounded_exp(-a_o))
    return i, f, g, o


@unit
def _tanh(a: float) -> float:
    one, two = type(a)(1), type(a)(2)
    return two / (one + bounded_exp(-two * a)) - one


@kernel
def _lstm_point(gi: Array, gh: Array, bias: Array, u: Array, steps: Array, out: Array) -> None:
    """Evaluate all sequences of a point, none of which takes a power; u and out are (h, c)."""
    batch, H = u.shape[0], u.shape[1] // 2
    for b in range(batch):
        if steps[b] == 0:
            out[b] = u[b]
            continue
        for j in range(H):
            i, f, g, o = _lstm_unit(
                gi[b, j] + gh[b, j] + bias[j],
                gi[b, H + j] + gh[b, H + j] + bias[H + j],
                gi[b, 2 * H + j] + gh[b, 2 * H + j] + bias[2 * H + j],
                gi[b, 3 * H + j] + gh[b, 3 * H + j] + bias[3 * H + j],
            )  # fmt: skip
            new = f * u[b, H + j] + i * g
            out[b, H + j] = new
            out[b, j] = o * _tanh(new)


@kernel
def _lstm_long_point(
    gi: Array, gh: Array, bias: Array, u: Array, factor: int, steps: Array, out: Array, c: Array,
    work: tuple[Array, ...],
) -> None:  # fmt: skip
    """Evaluate with any powers; and c_i, c_f, c_g, c_o, k, q of the derivative if `c` has rows."""
    batch, H = u.shape[0], u.shape[1] // 2
    one = u.dtype.type(1)
    i, f, g, o, q, total, dq, dtotal = work
    for b in range(batch):
        if steps[b] == 0:
            _keep(u, out, c, b, H)
            continue
        for j in range(H):
            i[j], f[j], g[j], o[j] = _lstm_unit(
                gi[b, j] + gh[b, j] + bias[j],
                gi[b, H + j] + gh[b, H + j] + bias[H + j],
                gi[b, 2 * H + j] + gh[b, 2 * H + j] + bias[2 * H + j],
                gi[b, 3 * H + j] + gh[b, 3 * H + j] + bias[3 * H + j],
            )  # fmt: skip
        _power_and_sum(f, factor * steps[b], q, total, dq, dtotal)
        for j in range(H):
            out[b, H + j] = q[j] * u[b, H + j] + total[j] * i[j] * g[j]
        for j in range(H):
            out[b, j] = _tanh(out[b, H + j])
        if c.shape[0] > 0:
            for j in range(H):
                c[b, j] = total[j] * g[j] * i[j] * (one - i[j])
                c[b, 2 * H + j] = total[j] * i[j] * (one - g[j] * g[j])
                c[b, 5 * H + j] = q[j]
            for j in range(H):
                slope = u[b, H + j] * dq[j] + i[j] * g[j] * dtotal[j]
                c[b, H + j] = slope * f[j] * (one - f[j])
            for j in range(H):
                c[b, 3 * H + j] = out[b, j] * o[j] * (one - o[j])
                c[b, 4 * H + j] = o[j] * (one - out[b, j] * out[b, j])
        for j in range(H):
            out[b, j] *= o[j]


@kernel
def _power_and_sum(
    f: Array, power2: int, q: Array, total: Array, d_q: Array, d_total: Array
) -> None:
    """Evaluate q = f^(power2 / 2), S = (1 - q) / (1 - f), and their derivatives dq/df, dS/df.

    With s = sqrt(f), q = s^power2 and (1 + s) S = 1 + s + ... + s^(power2 - 1). Both are built bit
    by bit, highest first, from sums of positive terms only, so that nothing cancels near f = 1.
    """
    one, two = f.dtype.type(1), f.dtype.type(2)
    if power2 == 2:
        for j in range(f.size):
            q[j], total[j], d_q[j], d_total[j] = f[j], one, one, 0
        return
    for j in range(f.size):
        q[j], total[j], d_q[j], d_total[j] = one, 0, 0, 0  # of no terms; derivatives by s
    bit = 1
    while 2 * bit <= power2:
        bit *= 2
    while bit > 0:
        for j in range(f.size):  # twice as many terms
            d_total[j] = d_total[j] * (one + q[j]) + total[j] * d_q[j]
            total[j] *= one + q[j]
            d_q[j] *= two * q[j]
            q[j] *= q[j]
        if power2 & bit:  # and one more
            for j in range(f.size):
                s = math.sqrt(f[j])
                total[j] += q[j]
                d_total[j] += d_q[j]
                d_q[j] = d_q[j] * s + q[j]
                q[j] *= s
        bit //= 2
    for j in range(f.size):
        s = math.sqrt(f[j])
        total[j] /= one + s
        d_total[j] = (d_total[j] - total[j]) / ((one + s) * two * s)
        d_q[j] /= two * s


@kernel
def _evaluate(
    cell: int,
    gi: Array,
    gh: Array,
    bias: Array,
    u: Array,
    grows: bool,
    factor: int,
    steps: Array,
    out: Array,
    c: Array,
    work: tuple[Array, ...],
) -> None:
    """Evaluate all sequences of a point, and the coefficients of the derivative if `c` has rows."""
    simple = c.shape[0] == 0 and not _is_long(grows, factor, steps)
    if cell == LSTM:
        if simple:
            _lstm_point(gi, gh, bias, u, steps, out)
        else:
            _lstm_long_point(gi, gh, bias, u, factor, steps, out, c, work)
    elif simple:
        _gru_point(cell, gi, gh, bias, u, grows, steps, out)
    else:
        _gru_long_point(cell, gi, gh, bias, u, grows, factor, steps, out, c, work)


@unit
def _workspace(u: Array, hidden: int) -> tuple[Array, ...]:
    """Return arrays for the units of one sequence; separate ones, for the sake of vector code."""
    return (
        np.empty(hidden, u.dtype), np.empty(hidden, u.dtype), np.empty(hidden, u.dtype),
        np.empty(hidden, u.dtype), np.empty(hidden, u.dtype), np.empty(hidden, u.dtype),
        np.empty(hidden, u.dtype), np.empty(hidden, u.dtype),
    )  # fmt: skip


@kernel
def _gru_point_backward(v: Array, c: Array, d_gates: Array, d_u: Array) -> None:
    batch, H = v.shape
    for b in range(batch):
        for j in range(H):
            d_u[b, j] = v[b, j] * c[b, 4 * H + j]
        for k in range(4):
            for j in range(H):
                d_gates[b, k * H + j] = v[b, j] * c[b, k * H + j]


@kernel
def _lstm_point_backward(v: Array, c: Array, steps: Array, d_gates: Array, d_u: Array) -> None:
    batch, H = v.shape[0], v.shape[1] // 2
    for b in range(batch):
        for j in range(H):  # the adjoint of c', in d_u for the moment
            d_u[b, j] = v[b, H + j] + v[b, j] * c[b, 4 * H + j]
        for k in range(3):
            for j in range(H):
                d_gates[b, k * H + j] = d_u[b, j] * c[b, k * H + j]
        for j in range(H):
            d_gates[b, 3 * H + j] = v[b, j] * c[b, 3 * H + j]
        for j in range(H):
            d_u[b, H + j] = d_u[b, j] * c[b, 5 * H + j]
        for j in range(H):  # h goes on through the gates alone, or unchanged
            d_u[b, j] = v[b, j] if steps[b] == 0 else 0


@kernel
def _transpose(cell: int, v: Array, c: Array, steps: Array, d_gates: Array, d_u: Array) -> None:
    """Multiply the adjoint of a new state by the coefficients, for all sequences of a point.

    `d_u` gets the adjoint of the blended state: of h, or for LSTM of (h, c), where h has none but
    for a step that keeps the state.
    """
    if cell == LSTM:
        _lstm_point_backward(v, c, steps, d_gates, d_u)
    else:
        _gru_point_backward(v, c, d_gates, d_u)


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
    none, work = np.empty((0, 0), dtype=u.dtype), _workspace(u, bias.size // 4)
    for i in range(u.shape[0]):
        _evaluate(cell, gi[rows[i]], gh[i], bias, u[i], grows, factor, steps[i], out[i], none, work)


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
    work = _workspace(u, bias.size // 4)
    for i in range(u.shape[0]):
        c = coefficients[slots[i]]
        _evaluate(cell, gi[rows[i]], gh[i], bias, u[i], grows, factor, steps[i], out[i], c, work)


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
    for i in range(v.shape[0]):
        _transpose(cell, v[i], coefficients[slots[i]], steps[i], d_gates[i], d_u[i])


def _tile_of(num_rows: int, num_vectors: int) -> Any:
    """Return a function for kernels that computes a tile of out = a @ b.

    The tile, of `num_rows` rows and `num_vectors` vectors, begins at row i and column j; all of it
    must lie inside. Its sums stay in registers, which compilers do not do by themselves, while k
    runs through the columns of a and the rows of b. Rows of b and `out` must be contiguous.
    """

    @intrinsic
    def tile(typing: Any, a: Any, b: Any, out: Any, i: Any, j: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            _build_tile(context, builder, signature.args, values, num_rows, num_vectors)
            return context.get_dummy_value()

        return types.void(a, b, out, types.intp, types.intp), build

    return tile


def _build_tile(
    context: Any, builder: Any, kinds: Any, values: Any, num_rows: int, num_vectors: int
) -> None:
    """Write the instructions of a tile; strides are in bytes."""
    size = kinds[0].dtype.bitwidth // 8
    real, integer = context.get_value_type(kinds[0].dtype), ir.IntType(32)
    vector = ir.VectorType(real, _VECTOR_BYTES // size)
    zero = ir.Constant(vector, None)
    same_lane = ir.Constant(ir.VectorType(integer, vector.count), None)
    cg: Any = cgutils
    a, b, out = (
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(kinds[:3], values[:3], strict=True)
    )
    stride_a, stride_b, stride_out = (cg.unpack_tuple(builder, x.strides) for x in (a, b, out))

    def number(n: int) -> Any:
        return context.get_constant(types.intp, n)

    def at(start: Any, index: Any, stride: Any, kind: Any = real) -> Any:
        return cg.pointer_add(builder, start, builder.mul(index, stride), kind.as_pointer())

    def vectors(start: Any) -> list[Any]:
        return [at(start, number(c), number(_VECTOR_BYTES), vector) for c in range(num_vectors)]

    rows = [builder.add(values[3], number(r)) for r in range(num_rows)]
    starts = [at(a.data, row, stride_a[0]) for row in rows]
    panel = at(b.data, values[4], number(size))
    sums = [[cg.alloca_once_value(builder, zero) for _ in range(num_vectors)] for _ in rows]
    with cg.for_range(builder, cg.unpack_tuple(builder, b.shape)[0]) as loop:
        row_of_b = vectors(at(panel, loop.index, stride_b[0]))
        right = [builder.load(pointer, align=size) for pointer in row_of_b]
        for start, sums_of_row in zip(starts, sums, strict=True):
            left = builder.load(at(start, loop.index, stride_a[1]))
            left = builder.insert_element(zero, left, ir.Constant(integer, 0))
            left = builder.shuffle_vector(left, zero, same_lane)
            for total, factor in zip(sums_of_row, right, strict=True):
                new = builder.fmul(left, factor, flags=("contract",))
                new = builder.fadd(builder.load(total), new, flags=("contract",))
                builder.store(new, total)
    for row, sums_of_row in zip(rows, sums, strict=True):
        start = at(at(out.data, row, stride_out[0]), values[4], number(size))
        for total, pointer in zip(sums_of_row, vectors(start), strict=True):
            builder.store(builder.load(total), pointer, align=size)


def _vector_shape() -> tuple[int, int]:
    """Return the bytes of this processor's vectors, and how many rows of two fill its registers."""
    features = get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8
    return (32, 6) if features.get("avx") else (16, 8)


_VECTOR_BYTES, _TILE_ROWS = _vector_shape()
_tile, _narrow_tile = _tile_of(_TILE_ROWS, 2), _tile_of(_TILE_ROWS, 1)
_row_tile, _narrow_row_tile = _tile_of(1, 4), _tile_of(1, 1)


@kernel
def multiply(a: Array, b: Array, out: Array) -> None:
    """Set out = a @ b, on this thread, tile by tile.

    A panel of b as wide as a tile stays in the cache, so that nothing is copied to another order.
    For products of the sizes of recurrent layers this takes half the time of OpenBLAS.

    Parameters
    ----------
    a : ndarray, shape (M, K)
        Of any strides.
    b : ndarray, shape (K, N)
        Its rows are contiguous.
    out : ndarray, shape (M, N)
        Its rows are contiguous; overwritten.
    """
    rows, columns = out.shape
    lanes, j = _VECTOR_BYTES // out.itemsize, 0
    if columns < lanes:
        _multiply_narrow(a, b, out)
        return
    width = lanes * (2 if rows >= _TILE_ROWS else 4)
    while columns - j > 0:
        begin = j if columns - j >= width else min(j, columns - lanes)
        if rows < _TILE_ROWS:
            for i in range(rows):
                if columns - j >= width:
                    _row_tile(a, b, out, i, begin)
                else:
                    _narrow_row_tile(a, b, out, i, begin)
        else:
            for i in range(0, rows, _TILE_ROWS):  # the last tile repeats some entries
                if columns - j >= width:
                    _tile(a, b, out, min(i, rows - _TILE_ROWS), begin)
                else:
                    _narrow_tile(a, b, out, min(i, rows - _TILE_ROWS), begin)
        j += width if columns - j >= width else lanes


@kernel
def _multiply_narrow(a: Array, b: Array, out: Array) -> None:
    out[:] = 0
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(out.shape[1]):
                out[i, j] += a[i, k] * b[k, j]


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
    news : ndarray, shape (n or 0, P, B, H)
        h of each evaluation, before g is added; overwritten.
    """
    num_points, num_phases = rows.shape
    hidden = weight.shape[0]
    gh = np.empty((u.shape[0], weight.shape[1]), dtype=u.dtype)
    work, none = _workspace(u, hidden), np.empty((0, 0), dtype=u.dtype)
    simple = cell != LSTM and coefficients.shape[0] == 0
    simple = simple and not (_is_long(grows, 2, steps) or middles.any())
    state, seen, new = u.copy(), u.copy(), np.empty_like(u)
    for i in range(num_points):
        for p in range(num_phases):
            multiply(seen[:, :hidden], weight, gh)
            x = gi[rows[i, p]]
            if simple:
                _gru_point(cell, x, gh, bias, state, grows, steps[i, p], new)
            else:
                c = coefficients[slots[i, p]] if coefficients.shape[0] > 0 else none
                _evaluate(cell, x, gh, bias, state, grows, factors[p], steps[i, p], new, c, work)
            if news.shape[0] > 0:
                news[i, p] = new[:, :hidden]
            if middles[p]:
                seen, new = new, seen
            elif num_phases == 1:
                state, new = new, state
                seen = state
            else:
                state[:] = new
                seen[:] = new
        if g.shape[0] > 0:
            state += g[i]
            seen[:] = state
        out[i] = state


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
        Adjoints that each evaluation's h gets from the layer above, in the order of time, opposite
        to that of the other arrays; no row is zero.
    weight : ndarray, shape (G, H)
        W_hh, its rows in the order of `d_gates`.
    steps, slots : ndarray of int64, shapes (n, P, B) and (n, P)
        As in `chain_forward`, in the order in which the steps are transposed.
    out : ndarray, shape (n, B, W)
        Adjoint states after each step; overwritten.
    d_gates : ndarray, shape (n, P, B, 4 H)
        Adjoints of the pre-activations, in the order of time; overwritten.
    """
    num_points, num_phases = slots.shape
    batch, width = w.shape
    num_gates, hidden = weight.shape
    d_seen = np.empty((batch, hidden), dtype=w.dtype)
    v, d_u = w.copy(), np.empty_like(w)
    start = np.zeros_like(w)  # adjoint of the blended state, from a later evaluation
    for i in range(num_points):
        for p in range(num_phases - 1, -1, -1):
            if d_above.shape[0] > 0:
                for b in range(batch):
                    for j in range(hidden):
                        v[b, j] += d_above[num_points - 1 - i, p, b, j]
            gates = d_gates[num_points - 1 - i, p]
            _transpose(cell, v, coefficients[slots[i, p]], steps[i, p], gates, d_u)
            multiply(gates[:, :num_gates], weight, d_seen)
            for b in range(batch):
                for j in range(width):
                    d_u[b, j] += start[b, j]
            if p > 0 and middles[p - 1]:  # its gates saw the middle
                start, d_u = d_u, start
                v[:] = 0
            else:
                start[:] = 0
                v, d_u = d_u, v
            for b in range(batch):
                for j in range(hidden):
                    v[b, j] += d_seen[b, j]
        if g.shape[0] > 0:
            v += g[i]
        out[i] = v
