"""Numba kernels of gated recurrent layers: gate evaluations, their derivatives, their transposes.

The gate evaluation is the only building block: every fine or coarse step is one or more of them
(see `pint.rnn.coarse_step`). `layer_forward` takes steps of one layer, products with the recurrent
weights included, and `layer_backward` applies their transposes; steps either follow one another (a
chain) or start at states of their own (a stack). `docs/gru.md` derives the formulas.

With gi = W_ih x and gh = W_hh h in torch's order of rows, the gated recurrent unit is

    r = s(gi_r + gh_r + bias_r),  z = s(gi_z + gh_z + bias_z),
    e = gh_n + b_hn,              n = tanh(gi_n + b_in + r e),
    t = z (classic) or 1 / (1 + gamma (1 - z)) (implicit),
    q = t^(power2 / 2),           h' = q h + (1 - q) n,

with bias = (b_ir + b_hr, b_iz + b_hz, b_in, b_hn), and the long short-term memory

    i, f, o = s(gi + gh + bias),  g = tanh(gi_g + gh_g + bias_g),
    q = f^(power2 / 2),           c' = q c + (1 - q) / (1 - f) i g,  h' = o tanh(c').

With v the adjoint of h', the adjoints of the pre-activations e, r, z, n of the gated recurrent
unit are v times the coefficients

    c_e = (1 - q)(1 - n^2) r,   c_r = (1 - q)(1 - n^2) e r (1 - r),
    c_z = (h - n) dq/dz z (1 - z),   c_n = (1 - q)(1 - n^2),

where dq/dz = (power2 / 2) q times 1 / t (classic) or gamma t (implicit), and the adjoint of h is
q v. With S = (1 - q) / (1 - f) and v_c the adjoint of c' plus v k, k = o (1 - tanh(c')^2), the
adjoints of i, f, g, o of the long short-term memory are v_c times c_i = S g i (1 - i), c_f =
(c dq/df + i g dS/df) f (1 - f), c_g = S i (1 - g^2), and v times c_o = tanh(c') o (1 - o); the
adjoint of c is q v_c.

Three arguments give the length of an evaluation: the number of finest steps, for each point and
sequence (0 keeps the state, which leaves out masked steps); `factor`, and power2 = factor times
the number of steps; or `scale_gamma`, and then gamma is the number of steps and power2 = 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from pint.simd.functions import exp, relative_sigmoid, sigmoid, tanh
from pint.simd.kernel_cache import kernel, named
from pint.simd.products import multiply_inside
from pint.simd.vectors import (
    borrowed,
    flush_subnormals,
    fused,
    lanes,
    load,
    restore_mode,
    splat,
    square_root,
    store,
    unit,
    wide_or_single,
)

Array = NDArray[Any]
Vector = Any
Flag = bool | None


def bounded_exp(x: float) -> float:
    """Return exp(x) for |x| <= 80 (float32) or 700 (float64), clamped outside; in kernels only."""
    raise NotImplementedError("bounded_exp is for compiled code")


@overload(bounded_exp)
def _overload_bounded_exp(x: Any) -> Any:
    def evaluate(x: Any) -> Any:
        return exp(x)

    return evaluate if isinstance(x, types.Float) else None


@unit
def _gate(
    gi: Array, gh: Array, bias: Array, like: Vector, b: int, row: int, j: int
) -> Vector:  # fmt: skip
    """Return the pre-activations of one gate, from unit j of all gates on."""
    return load(like, gi, (b, j)) + load(like, gh, (row, j)) + load(like, bias, (j,))


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


@unit
def _keep(u: Array, row: int, out: Array, c: Array, b: int, hidden: int) -> None:
    """Take no step with sequence b: keep its state, whatever the gates are, to the last bit."""
    for j in range(out.shape[1]):
        out[b, j] = u[row, j]
    if c.shape[0] > 0:  # nothing reaches the gates, and all of it the state
        for j in range(c.shape[1]):
            c[b, j] = 0 if j < c.shape[1] - hidden else 1


@unit
def _gru_point(
    like: Vector, is_classic: bool, gi: Array, gh: Array, bias: Array, u: Array, first: int,
    scale_gamma: bool, factor: int, steps: Array, out: Array, c: Array,
) -> None:  # fmt: skip
    """Evaluate all sequences of a point, rows from `first` on; the coefficients if `c` has rows."""
    H, one = u.shape[1], splat(like, 1.0)
    for b in range(out.shape[0]):
        row = first + b
        if steps[b] == 0:
            _keep(u, row, out, c, b, H)
            continue
        gamma = splat(like, steps[b] if scale_gamma else 1)
        power2 = 2 if scale_gamma else factor * steps[b]
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            r = sigmoid(_gate(gi, gh, bias, like, b, row, j))
            z = relative_sigmoid(_gate(gi, gh, bias, like, b, row, H + j))
            e = load(like, gh, (row, 2 * H + j)) + load(like, bias, (3 * H + j,))
            x = load(like, gi, (b, 2 * H + j)) + load(like, bias, (2 * H + j,))
            n = tanh(fused(r, e, x))
            t = z if is_classic else one / fused(gamma, one - z, one)
            q = _power(t, power2)
            difference = load(like, u, (row, j)) - n
            store(fused(q, difference, n), out, (b, j))
            if c.shape[0] > 0:
                dt_dz = one if is_classic else gamma * t * t
                dq_dz = splat(like, 0.5 * power2) * q / t * dt_dz
                c_n = (one - q) * (one - n * n)
                store(c_n * r, c, (b, j))
                store(c_n * e * r * (one - r), c, (b, H + j))
                store(difference * dq_dz * z * (one - z), c, (b, 2 * H + j))
                store(c_n, c, (b, 3 * H + j))
                store(q, c, (b, 4 * H + j))


@unit
def _lstm_point(
    like: Vector, is_classic: bool, gi: Array, gh: Array, bias: Array, u: Array, first: int,
    scale_gamma: bool, factor: int, steps: Array, out: Array, c: Array,
) -> None:  # fmt: skip
    """Evaluate all sequences of a point, rows from `first` on; the coefficients if `c` has rows."""
    H, one = u.shape[1] // 2, splat(like, 1.0)
    for b in range(out.shape[0]):
        row = first + b
        if steps[b] == 0:
            _keep(u, row, out, c, b, H)
            continue
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            i = sigmoid(_gate(gi, gh, bias, like, b, row, j))
            f = relative_sigmoid(_gate(gi, gh, bias, like, b, row, H + j))
            g = tanh(_gate(gi, gh, bias, like, b, row, 2 * H + j))
            o = sigmoid(_gate(gi, gh, bias, like, b, row, 3 * H + j))
            q, total, dq, dtotal = _power_and_sum(f, factor * steps[b])
            kept = load(like, u, (row, H + j))
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
        d_total = d_total * (one + q) + total * d_q  # twice the terms
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
def _gru_transpose(
    like: Vector, v: Array, c: Array, steps: Array, d_gates: Array, d_u: Array, first: int
) -> None:
    """Multiply the adjoints of a point's new states by the coefficients."""
    H = v.shape[1]
    for b in range(c.shape[0]):
        row = first + b
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            adjoint = load(like, v, (row, j))
            for k in range(4):
                store(adjoint * load(like, c, (b, k * H + j)), d_gates, (row, k * H + j))
            store(adjoint * load(like, c, (b, 4 * H + j)), d_u, (row, j))


@unit
def _lstm_transpose(
    like: Vector, v: Array, c: Array, steps: Array, d_gates: Array, d_u: Array, first: int
) -> None:
    """Do as `_gru_transpose` for (h, c); h has an adjoint only where the state is kept."""
    H = v.shape[1] // 2
    for b in range(c.shape[0]):
        row = first + b
        for begin in range(0, H, lanes(like)):
            j = min(begin, H - lanes(like))
            of_h = load(like, v, (row, j))
            of_c = fused(of_h, load(like, c, (b, 4 * H + j)), load(like, v, (row, H + j)))
            for k in range(3):
                store(of_c * load(like, c, (b, k * H + j)), d_gates, (row, k * H + j))
            store(of_h * load(like, c, (b, 3 * H + j)), d_gates, (row, 3 * H + j))
            store(of_c * load(like, c, (b, 5 * H + j)), d_u, (row, H + j))
            # h goes on through the gates alone, or unchanged
            store(of_h if steps[b] == 0 else splat(like, 0.0), d_u, (row, j))


@unit
def _own_rows(point: int, batch: int, first: int, last: int) -> tuple[int, int, int]:
    """Return which sequences of a point are among the rows first:last, and the first's place."""
    low = max(first - point * batch, 0)
    return low, min(last - point * batch, batch), point * batch + low - first


@unit
def _add(a: Array, b: Array, out: Array) -> None:
    """Set out = a + b, where b may have fewer columns, zeros in place of the others."""
    for i in range(out.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = a[i, j] + b[i, j]
        for j in range(b.shape[1], out.shape[1]):
            out[i, j] = a[i, j]


def _forward(evaluate: Any) -> Any:
    """Return `layer_forward` for the cell that a function evaluates at one point."""

    def layer_forward(
        is_narrow: Flag, is_classic: bool, is_chain: bool, multiply_at: int,
        gi: Array, rows: Array, weight: Array, bias: Array, u: Array, g: Array, scale_gamma: bool,
        factors: Array, middles: Array, steps: Array, out: Array, layer: int, hidden_after: Array,
        slots: Array, coefficients: Array, first: int, last: int,
    ) -> None:  # fmt: skip
        """Take n steps of one layer, each of P gate evaluations.

        G below is 3 H for the gated recurrent unit and 4 H for the long short-term memory; W is H
        and 2 H. A chain begins at one state, a stack at one for each step; R, the number of their
        rows, is B or n B.

        Parameters
        ----------
        is_narrow : None or bool
            None, or True for layers narrower than a vector: either is compiled by itself.
        is_classic, is_chain : bool
            Whether the gated recurrent unit is the classic one; whether steps follow one another.
        multiply_at : int
            See `pint.simd.products.multiply_inside`.
        gi : ndarray, shape (number of rows held, B, G)
            Input products W_ih x.
        rows, slots : ndarray of int64, shape (n, P)
            Row of each evaluation in `gi`, and in `coefficients`.
        weight : ndarray, shape (H, at least G)
            W_hh transposed, and columns that are not used.
        bias : ndarray, shape (4 H,)
            As above.
        u : ndarray, shape (R, W)
            States to begin with: h, or (h, c).
        g : ndarray, shape (n or 0, B, W)
            Right-hand side of a chain; no row is zero.
        scale_gamma : bool
            See above.
        factors, middles : ndarray of int64 and of bool, shape (P,)
            Of each evaluation; a middle gives only the state of which the next one takes its gates.
        steps : ndarray of int64, shape (n, P, B)
            Finest steps of each evaluation.
        out : ndarray, shape (n, layers, B, W)
            States after each step; the states of `layer` are overwritten.
        layer : int
            Index of the layer.
        hidden_after : ndarray, shape (n or 0, P, B, H)
            h after each evaluation, before g is added; overwritten.
        coefficients : ndarray, shape (number of slots or 0, B, C)
            c_e, c_r, c_z, c_n, q (C = 5 H) or c_i, c_f, c_g, c_o, k, q (C = 6 H); overwritten.
            None are evaluated where there is no row.
        first, last : int
            Only rows ``first:last`` of the R rows are worked on.
        """
        gi, weight, bias, u, g = (
            borrowed(gi),
            borrowed(weight),
            borrowed(bias),
            borrowed(u),
            borrowed(g),
        )
        steps, out, hidden_after, coefficients = (
            borrowed(steps),
            borrowed(out),
            borrowed(hidden_after),
            borrowed(coefficients),
        )
        like = wide_or_single(u, is_narrow)
        (num_points, num_evaluations), batch, hidden = rows.shape, out.shape[2], weight.shape[0]
        first_point, behind = first // batch, (last + batch - 1) // batch
        u = u[first:last]
        gh = np.empty((u.shape[0], gi.shape[2]), dtype=u.dtype)
        between = np.empty((num_evaluations - 1, u.shape[0], u.shape[1]), dtype=u.dtype)
        none, is_noted = np.empty((0, 0), dtype=u.dtype), coefficients.shape[0] > 0
        state, gate_input, mode = u, u, flush_subnormals()
        for begin in range(0, num_points, 1 if is_chain else num_points):
            for p in range(num_evaluations):
                ends = p + 1 == num_evaluations
                ahead = coefficients[slots[begin, p], first:last] if is_noted else none
                multiply_inside(multiply_at, gate_input[:, :hidden], weight, gh, ahead)
                for i in range(first_point, behind):
                    k, (low, high, row) = begin + i, _own_rows(i, batch, first, last)
                    new = out[k, layer, low:high] if ends else between[p, row : row + high - low]
                    c = coefficients[slots[k, p], low:high] if is_noted else none
                    x, own_steps = gi[rows[k, p], low:high], steps[k, p, low:high]
                    evaluate(
                        like, is_classic, x, gh, bias, state, row, scale_gamma, factors[p],
                        own_steps, new, c,
                    )  # fmt: skip
                    if hidden_after.shape[0] > 0:
                        for b in range(high - low):
                            for j in range(hidden):
                                hidden_after[k, p, low + b, j] = new[b, j]
                if not ends:
                    gate_input = between[p]
                    if not middles[p]:
                        state = gate_input
            if is_chain:
                state = gate_input = out[begin, layer, first:last]
                if g.shape[0] > 0:
                    for b in range(last - first):
                        for j in range(u.shape[1]):
                            state[b, j] += g[begin, first + b, j]
        restore_mode(mode)

    return kernel(named(layer_forward, evaluate.__name__))


def _backward(transpose: Any) -> Any:
    """Return `layer_backward` for a cell."""

    def layer_backward(
        is_narrow: Flag, is_chain: bool, multiply_at: int, w: Array, g: Array,
        d_above: Array, weight: Array, middles: Array, steps: Array, slots: Array,
        coefficients: Array, out: Array, layer: int, d_gates: Array, first: int, last: int,
    ) -> None:  # fmt: skip
        """Apply the transposes of n steps of one layer, each of P evaluations.

        Parameters
        ----------
        is_narrow, is_chain, multiply_at, middles, coefficients, layer, first, last
            As in `layer_forward`.
        w : ndarray, shape (R, W)
            Adjoint states to begin with.
        g : ndarray, shape (n or 0, B, W)
            Right-hand side of a chain; no row is zero.
        d_above : ndarray, shape (P or 0, n B, H)
            Adjoints that each evaluation's h gets from the layer above; no row is zero. For a
            chain, its steps and the steps of `d_gates` are in the order of time, opposite to other
            arrays.
        weight : ndarray, shape (G, at least H)
            W_hh, its rows in the order of `d_gates`, and columns that are not used.
        steps, slots : ndarray of int64, shapes (n, P, B) and (n, P)
            As in `layer_forward`, in the order in which the steps are transposed.
        out : ndarray, shape (n or 0, layers, B, W)
            Adjoint states after each step; the states of `layer` are overwritten. No row: they are
            not stored.
        d_gates : ndarray, shape (P, n B, 4 H)
            Adjoints of the pre-activations, e, r, z, n or i, f, g, o; overwritten.
        """
        w, g, d_above, weight = borrowed(w), borrowed(g), borrowed(d_above), borrowed(weight)
        steps, coefficients = borrowed(steps), borrowed(coefficients)
        out, d_gates = borrowed(out), borrowed(d_gates)
        like = wide_or_single(w, is_narrow)
        (num_points, num_evaluations), batch, num_gates = slots.shape, out.shape[2], weight.shape[0]
        together, hidden, count = 1 if is_chain else num_points, d_gates.shape[2] // 4, last - first
        first_point, behind = first // batch, (last + batch - 1) // batch
        w = w[first:last]
        width = w.shape[1]
        d_seen = np.empty((count, hidden), dtype=w.dtype)
        above, d_u = np.empty((count, width), w.dtype), np.empty((count, width), w.dtype)
        # Adjoints of the state between evaluations, and of the one that a later evaluation blended.
        between, start = np.empty((count, width), w.dtype), np.empty((count, width), w.dtype)
        has_start = False
        v, mode = w, flush_subnormals()
        for begin in range(0, num_points, together):
            place = (num_points - together - begin) * batch + first
            for p in range(num_evaluations - 1, -1, -1):
                if d_above.shape[0] > 0:
                    _add(v, d_above[p, place : place + count], above)
                    v = above
                gates = d_gates[p, place : place + count]
                for i in range(first_point, behind):
                    k, (low, high, row) = begin + i, _own_rows(i, batch, first, last)
                    c = coefficients[slots[k, p], low:high]
                    transpose(like, v, c, steps[k, p, low:high], gates, d_u, row)
                if p == 0 and out.shape[0] == 0:
                    continue
                after = min(begin + 1, num_points - 1)
                at = slots[begin, p - 1] if p > 0 else slots[after, num_evaluations - 1]
                ahead = coefficients[at, first:last]
                multiply_inside(multiply_at, gates[:, :num_gates], weight, d_seen, ahead)
                if has_start and is_chain:
                    _add(d_u, start, d_u)
                v, sees_middle = between, p > 0 and middles[p - 1]
                if sees_middle:
                    start, d_u = d_u, start
                    for b in range(count):
                        for j in range(width):
                            v[b, j] = d_seen[b, j] if j < hidden else 0
                else:
                    _add(d_u, d_seen, v)
                if has_start and not is_chain:  # a stack rounds in another order
                    _add(v, start, v)
                has_start = sees_middle
            if out.shape[0] > 0:
                if g.shape[0] > 0:
                    _add(v, g[begin, first:last], v)
                for i in range(first_point, behind):
                    low, high, row = _own_rows(i, batch, first, last)
                    for b in range(high - low):
                        for j in range(width):
                            out[begin + i, layer, low + b, j] = v[row + b, j]
        restore_mode(mode)

    return kernel(named(layer_backward, transpose.__name__))


gru_forward, gru_backward = _forward(_gru_point), _backward(_gru_transpose)
lstm_forward, lstm_backward = _forward(_lstm_point), _backward(_lstm_transpose)


@kernel
def step_diagonals(
    is_lstm: bool, coefficients: Array, slots: Array, own: Array, num_steps: Array, out: Array
) -> None:
    """Set `out` to the diagonals of the derivatives of finest steps of one layer.

    In the letters of `docs/gru.md`, the derivative of a finest step of a gated recurrent unit is

        diag(q) + diag(c_e) W_hn + diag(c_r) W_hr + diag(c_z) W_hz,

    and the derivative of the long short-term memory has

        diag(k) (diag(c_i) W_hi + diag(c_f) W_hf + diag(c_g) W_hg) + diag(c_o) W_ho

    for the new h by the old one, diag(q) for the new c by the old one.

    Parameters
    ----------
    is_lstm : bool
        Whether the cell is the long short-term memory.
    coefficients, slots : ndarray, ndarray of int64 of shape (n,)
        As in `layer_forward`.
    own : ndarray, shape (G / H, H)
        The diagonals of W_hh's blocks, in the order of the gate adjoints.
    num_steps : ndarray of int64, shape (n, B)
        0 keeps the state: the diagonal is one.
    out : ndarray, shape (n, B, W)
        Overwritten.
    """
    H = own.shape[1]
    for i in range(slots.size):
        for b in range(out.shape[1]):
            c, row = coefficients[slots[i], b], out[i, b]
            if num_steps[i, b] == 0:
                for j in range(row.size):
                    row[j] = 1
                continue
            for j in range(H):
                gates = c[j] * own[0, j] + c[H + j] * own[1, j] + c[2 * H + j] * own[2, j]
                if is_lstm:
                    row[j] = c[4 * H + j] * gates + c[3 * H + j] * own[3, j]
                    row[H + j] = c[5 * H + j]
                else:
                    row[j] = c[4 * H + j] + gates
