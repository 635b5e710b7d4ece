"""Numba kernels of gated recurrent layers: a gate evaluation, its derivative, its transpose.

The gate evaluation is the only building block: every fine or coarse step is one or more of them
(see `pint.rnn.coarse_step`). The kernels named ``gates_*`` treat a stack of n time points with B
sequences each, H hidden units; those named ``chain_*`` take n steps one after another, products
with the recurrent weights included. `docs/gru.md` derives the formulas. Numba's cache does not
notice edits in other files: touch this one after those in `pint.simd.products`, `pint.simd.functions`
and `pint.simd.vectors`.

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

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from pint.simd.functions import exp, relative_sigmoid, sigmoid, tanh
from pint.simd.products import multiply_in_chain
from pint.simd.vectors import (
    borrowed,
    flush_subnormals,
    fused,
    kernel,
    lanes,
    load,
    restore_mode,
    single,
    splat,
    square_root,
    store,
    unit,
    wide,
)

Array = NDArray[Any]
Vector = Any


def bounded_exp(x: float) -> float:
    """Return exp(x) for |x| <= 80 (float32) or 700 (float64), clamped outside; in kernels only."""
    raise NotImplementedError("bounded_exp is for compiled code")


@overload(bounded_exp)
def _overload_bounded_exp(x: Any) -> Any:
    def evaluate(x: Any) -> Any:
        return exp(x)

    return evaluate if isinstance(x, types.Float) else None


IMPLICIT, CLASSIC, LSTM = 0, 1, 2
"""The cells, as the kernels know them."""


@unit
def _gate(gi: Array, gh: Array, bias: Array, like: Vector, b: int, j: int) -> Vector:
    """Return the pre-activations of one gate, from unit j of all gates on."""
    return load(like, gi, (b, j)) + load(like, gh, (b, j)) + load(like, bias, (j,))


@unit
def _power(t: Vector, power2: int) -> Vector:
    """Return t^(power2 / 2) by repeated squaring."""
    if power2 == 2:
        return t
    q = square_root(t) if power2 % 2 == 1 else splat(t, 1.0)
    remaining = power2 // 2
    while remaining > 0:
        if remaining % 2 == 1:
            q = q * t
        remaining //= 2
        if remaining > 0:
            t = t * t
    return q


@kernel
def _keep(u: Array, out: Array, c: Array, b: int, hidden: int) -> None:
    """Take no step with sequence b: keep its state, whatever the gates are, to the last bit."""
    out[b] = u[b]
    if c.shape[0] > 0:
        c[b] = 0  # nothing reaches the gates, and all of it the state
        c[b, c.shape[1] - hidden :] = 1


@unit
def _gru_point(
    like: Vector, cell: int, gi: Array, gh: Array, bias: Array, u: Array, grows: bool, factor: int,
    steps: Array, out: Array, c: Array,
) -> None:  # fmt: skip
    """Evaluate all sequences of a point; and c_e, c_r, c_z, c_n, q if `c` has rows."""
    batch, H = u.shape
    one = splat(like, 1.0)
    for b in range(batch):
        if steps[b] == 0:
            _keep(u, out, c, b, H)
            continue
        gamma = splat(like, steps[b] if grows else 1)
        power2 = 2 if grows else factor * steps[b]
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            r = sigmoid(_gate(gi, gh, bias, like, b, j))
            z = relative_sigmoid(_gate(gi, gh, bias, like, b, H + j))
            e = load(like, gh, (b, 2 * H + j)) + load(like, bias, (3 * H + j,))
            x = load(like, gi, (b, 2 * H + j)) + load(like, bias, (2 * H + j,))
            n = tanh(fused(r, e, x))
            t = z if cell == CLASSIC else one / fused(gamma, one - z, one)
            q = _power(t, power2)
            difference = load(like, u, (b, j)) - n
            store(fused(q, difference, n), out, (b, j))
            if c.shape[0] > 0:
                dt_dz = one if cell == CLASSIC else gamma * t * t
                dq_dz = splat(like, 0.5 * power2) * q / t * dt_dz
                c_n = (one - q) * (one - n * n)
                store(c_n * r, c, (b, j))
                store(c_n * e * r * (one - r), c, (b, H + j))
                store(difference * dq_dz * z * (one - z), c, (b, 2 * H + j))
                store(c_n, c, (b, 3 * H + j))
                store(q, c, (b, 4 * H + j))


@unit
def _lstm_point(
    like: Vector, gi: Array, gh: Array, bias: Array, u: Array, factor: int, steps: Array,
    out: Array, c: Array,
) -> None:  # fmt: skip
    """Evaluate all sequences of a point; and c_i, c_f, c_g, c_o, k, q if `c` has rows."""
    batch, H = u.shape[0], u.shape[1] // 2
    one = splat(like, 1.0)
    for b in range(batch):
        if steps[b] == 0:
            _keep(u, out, c, b, H)
            continue
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            i = sigmoid(_gate(gi, gh, bias, like, b, j))
            f = relative_sigmoid(_gate(gi, gh, bias, like, b, H + j))
            g = tanh(_gate(gi, gh, bias, like, b, 2 * H + j))
            o = sigmoid(_gate(gi, gh, bias, like, b, 3 * H + j))
            q, total, dq, dtotal = _power_and_sum(f, factor * steps[b])
            kept = load(like, u, (b, H + j))
            new = fused(q, kept, total * i * g)
            h = tanh(new)
            store(new, out, (b, H + j))
            store(o * h, out, (b, j))
            if c.shape[0] > 0:
                slope = fused(kept, dq, i * g * dtotal)
                store(total * g * i * (one - i), c, (b, j))
                store(slope * f * (one - f), c, (b, H + j))
                store(total * i * (one - g * g), c, (b, 2 * H + j))
                store(h * o * (one - o), c, (b, 3 * H + j))
                store(o * (one - h * h), c, (b, 4 * H + j))
                store(q, c, (b, 5 * H + j))


@unit
def _power_and_sum(f: Vector, power2: int) -> tuple[Vector, Vector, Vector, Vector]:
    """Return q = f^(power2 / 2), S = (1 - q) / (1 - f), and their derivatives dq/df, dS/df.

    With s = sqrt(f), q = s^power2 and (1 + s) S = 1 + s + ... + s^(power2 - 1). Both are built bit
    by bit, highest first, from sums of positive terms only, so that nothing cancels near f = 1.
    """
    zero, one, two = splat(f, 0.0), splat(f, 1.0), splat(f, 2.0)
    if power2 == 2:
        return f, one, one, zero
    s = square_root(f)
    q, total, d_q, d_total = one, zero, zero, zero  # of no terms; derivatives by s
    bit = 1
    while 2 * bit <= power2:
        bit *= 2
    while bit > 0:
        d_total = d_total * (one + q) + total * d_q  # twice as many terms
        total = total * (one + q)
        d_q = two * q * d_q
        q = q * q
        if power2 & bit:  # and one more
            total = total + q
            d_total = d_total + d_q
            d_q = fused(d_q, s, q)
            q = q * s
        bit //= 2
    total = total / (one + s)
    return q, total, d_q / (two * s), (d_total - total) / ((one + s) * two * s)


@unit
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
) -> None:
    """Evaluate all sequences of a point, and the coefficients of the derivative if `c` has rows."""
    whole, one = wide(u), single(u)
    has_vectors = bias.size // 4 >= lanes(whole)
    if cell == LSTM and has_vectors:
        _lstm_point(whole, gi, gh, bias, u, factor, steps, out, c)
    elif cell == LSTM:
        _lstm_point(one, gi, gh, bias, u, factor, steps, out, c)
    elif has_vectors:
        _gru_point(whole, cell, gi, gh, bias, u, grows, factor, steps, out, c)
    else:
        _gru_point(one, cell, gi, gh, bias, u, grows, factor, steps, out, c)


_called_evaluate = kernel(_evaluate.py_func)  # type: ignore[attr-defined]
"""The same as a function of its own: compiled once for all that can afford a call."""


@unit
def _gru_transpose(like: Vector, v: Array, c: Array, d_gates: Array, d_u: Array) -> None:
    batch, H = v.shape
    for b in range(batch):
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            adjoint = load(like, v, (b, j))
            for k in range(4):
                place = b, k * H + j
                store(adjoint * load(like, c, place), d_gates, place)
            store(adjoint * load(like, c, (b, 4 * H + j)), d_u, (b, j))


@unit
def _lstm_transpose(
    like: Vector, v: Array, c: Array, steps: Array, d_gates: Array, d_u: Array
) -> None:
    batch, H = v.shape[0], v.shape[1] // 2
    for b in range(batch):
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            of_h = load(like, v, (b, j))
            of_c = fused(of_h, load(like, c, (b, 4 * H + j)), load(like, v, (b, H + j)))
            for k in range(3):
                place = b, k * H + j
                store(of_c * load(like, c, place), d_gates, place)
            store(of_h * load(like, c, (b, 3 * H + j)), d_gates, (b, 3 * H + j))
            store(of_c * load(like, c, (b, 5 * H + j)), d_u, (b, H + j))
            # h goes on through the gates alone, or unchanged
            store(of_h if steps[b] == 0 else splat(like, 0.0), d_u, (b, j))


@unit
def _transpose(cell: int, v: Array, c: Array, steps: Array, d_gates: Array, d_u: Array) -> None:
    """Multiply the adjoint of a new state by the coefficients, for all sequences of a point.

    `d_u` gets the adjoint of the blended state: of h, or for LSTM of (h, c), where h has none but
    for a step that keeps the state.
    """
    whole, one = wide(v), single(v)
    has_vectors = d_gates.shape[1] // 4 >= lanes(whole)
    if cell == LSTM and has_vectors:
        _lstm_transpose(whole, v, c, steps, d_gates, d_u)
    elif cell == LSTM:
        _lstm_transpose(one, v, c, steps, d_gates, d_u)
    elif has_vectors:
        _gru_transpose(whole, v, c, d_gates, d_u)
    else:
        _gru_transpose(one, v, c, d_gates, d_u)


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
    none, mode = np.empty((0, 0), dtype=u.dtype), flush_subnormals()
    gi, gh, bias, u = borrowed(gi), borrowed(gh), borrowed(bias), borrowed(u)
    steps, out = borrowed(steps), borrowed(out)
    for i in range(u.shape[0]):
        x, reach = gi[rows[i]], (grows, factor, steps[i])
        _called_evaluate(cell, x, gh[i], bias, u[i], *reach, out[i], none)
    restore_mode(mode)


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
    mode = flush_subnormals()
    gi, gh, bias, u = borrowed(gi), borrowed(gh), borrowed(bias), borrowed(u)
    steps, out, coefficients = borrowed(steps), borrowed(out), borrowed(coefficients)
    for i in range(u.shape[0]):
        c = coefficients[slots[i]]
        x, reach = gi[rows[i]], (grows, factor, steps[i])
        _called_evaluate(cell, x, gh[i], bias, u[i], *reach, out[i], c)
    restore_mode(mode)


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
    mode = flush_subnormals()
    v, coefficients, steps = borrowed(v), borrowed(coefficients), borrowed(steps)
    d_gates, d_u = borrowed(d_gates), borrowed(d_u)
    for i in range(v.shape[0]):
        _transpose(cell, v[i], coefficients[slots[i]], steps[i], d_gates[i], d_u[i])
    restore_mode(mode)


@kernel
def chain_forward(
    cell: int, gi: Array, rows: Array, weight: Array, bias: Array, u: Array, g: Array, grows: bool,
    factors: Array, middles: Array, steps: Array, out: Array, layer: int, news: Array,
    slots: Array, coefficients: Array, first: int, last: int,
) -> None:  # fmt: skip
    """Take n steps of one layer, each of P gate evaluations, one after another.

    Parameters
    ----------
    cell, gi, bias, grows, coefficients
        As in `gates_linearize`; where `coefficients` has no row, none are evaluated.
    rows, slots : ndarray of int64, shape (n, P)
        Row of each evaluation in `gi`, and in `coefficients`.
    weight : ndarray, shape (H, at least G)
        W_hh transposed, and columns that are not used.
    u : ndarray, shape (B, W)
        State to begin with.
    g : ndarray, shape (n or 0, B, W)
        Right-hand side; no row is zero.
    factors, middles : ndarray of int64 and of bool, shape (P,)
        Of each evaluation; one that is a middle gives only the state that the next one's gates see.
    steps : ndarray of int64, shape (n, P, B)
        Finest steps of each evaluation.
    out : ndarray, shape (n, layers, B, W)
        States after each step; those of `layer` are overwritten.
    layer : int
        Which one it is.
    news : ndarray, shape (n or 0, P, B, H)
        h of each evaluation, before g is added; overwritten.
    first, last : int
        Only sequences ``first:last`` are worked on.
    """
    gi, weight, bias, u, g = (
        borrowed(gi),
        borrowed(weight),
        borrowed(bias),
        borrowed(u),
        borrowed(g),
    )
    steps, out, news, coefficients = (
        borrowed(steps),
        borrowed(out),
        borrowed(news),
        borrowed(coefficients),
    )
    num_points, num_phases = rows.shape
    hidden = weight.shape[0]
    u = u[first:last]
    gh = np.empty((u.shape[0], gi.shape[2]), dtype=u.dtype)
    none, is_noted = np.empty((0, 0), dtype=u.dtype), coefficients.shape[0] > 0
    between = np.empty((num_phases - 1, *u.shape), dtype=u.dtype)
    state, mode = u, flush_subnormals()
    seen = u
    for i in range(num_points):
        for p in range(num_phases):
            new = between[p] if p + 1 < num_phases else out[i, layer, first:last]
            c = coefficients[slots[i, p], first:last] if is_noted else none
            multiply_in_chain(seen[:, :hidden], weight, gh, c)
            x, own_steps = gi[rows[i, p], first:last], steps[i, p, first:last]
            _evaluate(cell, x, gh, bias, state, grows, factors[p], own_steps, new, c)
            if news.shape[0] > 0:
                news[i, p, first:last] = new[:, :hidden]
            seen = new
            if not middles[p]:
                state = new
        if g.shape[0] > 0:
            state += g[i, first:last]
    restore_mode(mode)


@kernel
def chain_backward(
    cell: int, w: Array, g: Array, d_above: Array, weight: Array, middles: Array, steps: Array,
    slots: Array, coefficients: Array, out: Array, layer: int, d_gates: Array, first: int,
    last: int,
) -> None:  # fmt: skip
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
    weight : ndarray, shape (G, at least H)
        W_hh, its rows in the order of `d_gates`, and columns that are not used.
    steps, slots : ndarray of int64, shapes (n, P, B) and (n, P)
        As in `chain_forward`, in the order in which the steps are transposed.
    out : ndarray, shape (n, layers, B, W)
        Adjoint states after each step; those of `layer` are overwritten.
    layer : int
        Which one it is.
    d_gates : ndarray, shape (n, P, B, 4 H)
        Adjoints of the pre-activations, in the order of time; overwritten.
    first, last : int
        Only sequences ``first:last`` are worked on.
    """
    w, g, d_above, weight = borrowed(w), borrowed(g), borrowed(d_above), borrowed(weight)
    steps, coefficients = borrowed(steps), borrowed(coefficients)
    out, d_gates = borrowed(out), borrowed(d_gates)
    w = w[first:last]
    num_points, num_phases = slots.shape
    batch, width = w.shape
    num_gates, hidden = weight.shape[0], d_gates.shape[3] // 4
    d_seen = np.empty((batch, hidden), dtype=w.dtype)
    v, above, d_u = w, np.empty_like(w), np.empty_like(w)
    between = np.empty_like(w)  # adjoint of the state between two evaluations of a step
    start, has_start = np.empty_like(w), False  # adjoint of the state that a later one blended
    mode = flush_subnormals()
    for i in range(num_points):
        for p in range(num_phases - 1, -1, -1):
            if d_above.shape[0] > 0:
                for b in range(batch):
                    for j in range(hidden):
                        above[b, j] = v[b, j] + d_above[num_points - 1 - i, p, first + b, j]
                    for j in range(hidden, width):
                        above[b, j] = v[b, j]
                v = above
            gates = d_gates[num_points - 1 - i, p, first:last]
            c, own_steps = coefficients[slots[i, p], first:last], steps[i, p, first:last]
            _transpose(cell, v, c, own_steps, gates, d_u)
            at = slots[i, p - 1] if p > 0 else slots[min(i + 1, num_points - 1), num_phases - 1]
            multiply_in_chain(gates[:, :num_gates], weight, d_seen, coefficients[at, first:last])
            if has_start:
                for b in range(batch):
                    for j in range(width):
                        d_u[b, j] += start[b, j]
            has_start = p > 0 and middles[p - 1]  # its gates saw the middle
            v = out[i, layer, first:last] if p == 0 else between
            if has_start:
                start, d_u = d_u, start
                for b in range(batch):
                    v[b, :hidden] = d_seen[b]
                    v[b, hidden:] = 0
            else:
                for b in range(batch):
                    for j in range(hidden):
                        v[b, j] = d_u[b, j] + d_seen[b, j]
                    for j in range(hidden, width):
                        v[b, j] = d_u[b, j]
        if g.shape[0] > 0:
            v += g[i, first:last]
    restore_mode(mode)
