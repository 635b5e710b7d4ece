"""Fingerprints of states: whether a state is one that was seen before, without a copy of it.

A fingerprint is the sum of a state's words of 32 bits, each times a random number of 32 bits that
belongs to its place, modulo 2^64 (multilinear hashing: Carter & Wegman, "Universal classes of hash
functions", 1979). States that differ in one word never have the same one. Any others have it with a
chance of 1 in 2^32: given the other words, one of the numbers for a word that differs does it.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.parallel.thread_team import ThreadTeam
from pint.simd.vectors import kernel

Array = NDArray[Any]
Fingerprints = NDArray[np.uint64]
"""Of some states, shape (n,)."""


def fingerprints(u: Array, team: ThreadTeam) -> Fingerprints:
    """Return the fingerprint of each of a stack of states, shape (n, ...); threads share them."""
    if u.shape[0] > 1 and u.strides[0] < 0:  # so that it need not be copied
        return fingerprints(u[::-1], team)[::-1]
    words = np.ascontiguousarray(u).reshape(u.shape[0], prod(u.shape[1:])).view(np.uint32)
    out, numbers = np.empty(u.shape[0], dtype=np.uint64), _numbers(words.shape[1])
    team.share(u.shape[0], lambda own: _sum(words[own], numbers, out[own]), least=16)
    return out


@lru_cache(maxsize=8)
def _numbers(count: int) -> NDArray[np.uint32]:
    return np.random.default_rng(0).integers(1, 2**32, count, dtype=np.uint32)


_AT_ONCE = 2048
"""Words of each state, so that their numbers stay in the nearest cache for all states."""


@kernel
def _sum(words: NDArray[np.uint32], numbers: NDArray[np.uint32], out: Fingerprints) -> None:
    out[:] = 0
    for begin in range(0, words.shape[1], _AT_ONCE):
        own = numbers[begin : begin + _AT_ONCE]
        for i in range(words.shape[0]):
            row, total = words[i, begin : begin + _AT_ONCE], np.uint64(0)
            for j in range(own.size):
                total += np.uint64(row[j]) * np.uint64(own[j])
            out[i] += total
