"""Norms of the residual that do not depend on how the points are split over ranks."""

from __future__ import annotations

import math

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.comm import Communicator
from pint.propagator import State

_HALF = 27  # bits: a 53-bit mantissa is split in two, so that 2**26 of them add without rounding
_LEAST_EXPONENT = -1074 - 2 * _HALF
_NUM_BYTES = 280  # holds every sum of float64: 2098 bits and room for 2**60 terms


def squared_norms(r: State) -> NDArray[np.float64]:
    """Return the squared 2-norm of each state of a stack, shape (n,)."""
    xp = array_api_compat.array_namespace(r)
    if r.shape[0] == 0:
        return np.zeros(0)
    flat = xp.reshape(xp.abs(r), (r.shape[0], -1))
    flat = xp.astype(flat, xp.float64, copy=False)
    return np.asarray(xp.sum(flat * flat, axis=1), dtype=np.float64)


def exact_sum(values: NDArray[np.float64], comm: Communicator) -> float:
    """Return the correctly rounded sum of the values of all ranks; collective.

    Floating-point sums depend on the order of their terms, and so on the number of ranks. Here
    mantissas are added as integers, exponent by exponent, which is exact in any order.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Terms of this rank, all >= 0.
    comm : Communicator
        The ranks.

    Returns
    -------
    float
        NaN if a term is NaN, inf if one is infinite.
    """
    finite = np.isfinite(values)
    total = _integer_sum(values[finite])
    encoded = np.frombuffer(total.to_bytes(_NUM_BYTES, "little"), dtype=np.uint8)
    flags = np.array([[np.isnan(values).any(), not finite.all()]], dtype=np.uint8)
    rows = comm.allgather_blocks(np.concatenate([flags[0], encoded])[None])
    if rows[:, 0].any():
        return math.nan
    if rows[:, 1].any():
        return math.inf
    total = sum(int.from_bytes(row[2:].tobytes(), "little") for row in rows)
    return _to_float(total)


def _integer_sum(values: NDArray[np.float64]) -> int:
    """Return the sum in units of 2**_LEAST_EXPONENT, exactly."""
    if values.size == 0:
        return 0
    mantissa, exponent = np.frexp(values)
    high = np.floor(np.ldexp(mantissa, _HALF))
    low = np.ldexp(np.ldexp(mantissa, _HALF) - high, _HALF)
    least = int(exponent.min())
    total = 0
    for half, shift in ((high, -_HALF), (low, -2 * _HALF)):
        sums = np.bincount(exponent - least, weights=half)
        for offset in np.flatnonzero(sums).tolist():
            total += int(sums[offset]) << (offset + least + shift - _LEAST_EXPONENT)
    return total


def _to_float(total: int) -> float:
    """Return total * 2**_LEAST_EXPONENT, rounded once."""
    extra = max(total.bit_length() - 64, 0)
    sticky = 1 if total & ((1 << extra) - 1) else 0
    try:
        return math.ldexp((total >> extra) | sticky, extra + _LEAST_EXPONENT)
    except OverflowError:
        return math.inf
