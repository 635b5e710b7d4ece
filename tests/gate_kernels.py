"""The units of which kernels are made, as kernels of their own: one gate evaluation at n points."""

import numpy as np
from numba import njit

from pint.rnn import kernels
from pint.simd.vectors import VECTOR_BYTES, wide_or_single

IMPLICIT, CLASSIC, LSTM = 0, 1, 2


def _evaluation(point):
    @njit(error_model="numpy")
    def evaluate(is_narrow, is_classic, arguments):
        gi, rows, gh, bias, u, grows, factor, steps, out, slots, c = arguments
        none = np.empty((0, 0), dtype=u.dtype)
        like = wide_or_single(u, is_narrow)
        for i in range(u.shape[0]):
            own = c[slots[i]] if c.shape[0] > 0 else none
            point(
                like, is_classic, gi[rows[i]], gh[i], bias, u[i], 0, grows, factor, steps[i],
                out[i], own,
            )  # fmt: skip

    return evaluate


def _transposition(point):
    @njit(error_model="numpy")
    def transpose(is_narrow, v, slots, c, steps, d_gates, d_u):
        like = wide_or_single(v, is_narrow)
        for i in range(v.shape[0]):
            point(like, v[i], c[slots[i]], steps[i], d_gates[i], d_u[i], 0)

    return transpose


_EVALUATE = _evaluation(kernels._gru_point), _evaluation(kernels._lstm_point)
_TRANSPOSE = _transposition(kernels._gru_transpose), _transposition(kernels._lstm_transpose)


def is_narrow(hidden, dtype):
    return True if hidden * np.dtype(dtype).itemsize < VECTOR_BYTES else None


def gates_linearize(cell, *arguments):
    """Evaluate the gates of n points, and in rows `slots` of `c` the coefficients.

    The arguments are gi, rows, gh, bias, u, grows, factor, steps, out, slots, c.
    """
    bias, u = arguments[3:5]
    narrow = is_narrow(bias.size // 4, u.dtype)
    _EVALUATE[cell == LSTM](narrow, cell == CLASSIC, arguments)


def gates_forward(cell, *arguments):
    """Evaluate the gates of n points: gi, rows, gh, bias, u, grows, factor, steps, out."""
    rows, u = arguments[1], arguments[4]
    gates_linearize(cell, *arguments, rows, np.empty((0, *u.shape[1:]), u.dtype))


def gates_backward(cell, v, slots, c, steps, d_gates, d_u):
    """Multiply adjoints of new states by the coefficients."""
    narrow = is_narrow(d_gates.shape[-1] // 4, v.dtype)
    _TRANSPOSE[cell == LSTM](narrow, v, slots, c, steps, d_gates, d_u)
