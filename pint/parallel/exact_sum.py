"""Norms of the residual that do not depend on how the points are split over ranks."""

from __future__ import annotations

import math
from collections.abc import Callable

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.parallel.comm import Communicator
from pint.propagator import State

_BITS = 32
_HALF = 26  # a 53-bit mantissa is split in two
_LOW = (1 << _HALF) - 1
_LEAST_EXPONENT = -1074
NUM_DIGITS = 2 * 1074 // _BITS + 3
"""Digits of 32 bits that hold any float64, and the sum of 2**30 of them."""


def squared_norms(r: State) -> NDArray[np.float64]:
    """Return the squared 2-norm of each state of a stack, shape (n,)."""
    xp = array_api_compat.array_namespace(r)
    if r.shape[0] == 0:
        return np.zeros(0)
    flat = xp.reshape(xp.abs(r), (r.shape[0], -1))
    flat = xp.astype(flat, xp.float64, copy=False)
    return np.asarray(xp.sum(flat * flat, axis=1), dtype=np.float64)


def norm_of(
    squares: NDArray[np.float64],
    kind: float,
    digits: Callable[[NDArray[np.float64]], NDArray[np.int64]],
    comm: Communicator,
) -> float:
    """Return the 1-, 2- or inf-norm of the numbers of all ranks, given their squares; collective.

    Parameters
    ----------
    squares : ndarray of float64, shape (n,)
        This rank's numbers, squared.
    kind : {1, 2, inf}
        Which norm.
    digits : callable
        What sums exactly, see `integer_digits`.
    comm : Communicator
        The ranks.

    Returns
    -------
    float
        The same on every number of ranks.
    """
    if kind == 2:
        return math.sqrt(exact_sum(digits(squares), comm))
    sizes = np.sqrt(squares)
    if kind == 1:
        return exact_sum(digits(sizes), comm)
    largest = np.array([sizes.max(initial=0.0)])
    return float(comm.allgather_blocks(largest, np.ones(comm.size, dtype=np.int64)).max())


def exact_sum(digits: NDArray[np.int64], comm: Communicator) -> float:
    """Return the correctly rounded sum of the numbers of all ranks; collective.

    Floating-point sums depend on the order of their terms, and so on the number of ranks. Here
    mantissas are added as integers, which is exact in any order; one message.

    Parameters
    ----------
    digits : ndarray of int64, shape (NUM_DIGITS + 2,)
        Exact sum of this rank's numbers, see `integer_digits`.
    comm : Communicator
        The ranks.

    Returns
    -------
    float
        NaN if a number is NaN, inf if one is infinite.
    """
    *digit, num_infinite, num_nan = comm.sum(digits).tolist()
    if num_nan:
        return math.nan
    if num_infinite:
        return math.inf
    total = 0
    for value in reversed(digit):
        total = (total << _BITS) + value
    return _to_float(total)


def integer_digits(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the exact sum of numbers >= 0 as an integer, times 2**-1074, digit by digit.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Less than 2**26 numbers.

    Returns
    -------
    ndarray of int64, shape (NUM_DIGITS + 2,)
        The sum over k of ``digits[k] 2**(32 k)``, where digits may be larger than 32 bits; then
        how many of the numbers are infinite, and how many are NaN.
    """
    digits = np.zeros(NUM_DIGITS + 2, dtype=np.int64)
    bits = values[values != 0].view(np.int64) & 0x7FFFFFFFFFFFFFFF
    exponent, mantissa = bits >> 52, bits & 0xFFFFFFFFFFFFF
    special = exponent == 0x7FF
    if special.any():
        digits[-2], digits[-1] = (mantissa[special] == 0).sum(), (mantissa[special] != 0).sum()
        return digits
    mantissa |= np.where(exponent > 0, 1 << 52, 0)
    place = np.maximum(exponent, 1) - 1
    for part, offset in ((mantissa & _LOW, 0), (mantissa >> _HALF, _HALF)):
        # At most 27 bits each, so that the float64 sums of bincount are exact.
        sums = np.bincount(place, weights=part).astype(np.int64)
        used = np.flatnonzero(sums)
        _add(digits, sums[used] & _LOW, used + offset)
        _add(digits, sums[used] >> _HALF, used + offset + _HALF)
    return digits


def _add(digits: NDArray[np.int64], part: NDArray[np.int64], place: NDArray[np.int64]) -> None:
    """Add numbers of up to 27 bits times 2**place to a sum of digits."""
    word, shift = place // _BITS, place % _BITS
    shifted = part << shift
    np.add.at(digits, word, shifted & 0xFFFFFFFF)
    np.add.at(digits, word + 1, shifted >> _BITS)


def _to_float(total: int) -> float:
    """Return total * 2**_LEAST_EXPONENT, rounded once."""
    extra = max(total.bit_length() - 64, 0)
    sticky = 1 if total & ((1 << extra) - 1) else 0
    try:
        return math.ldexp((total >> extra) | sticky, extra + _LEAST_EXPONENT)
    except OverflowError:
        return math.inf
