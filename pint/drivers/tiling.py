"""Reorders a program of sweeps so that what it reads again is still in the cache.

The operations on a level, one after another, each go through all of its points. Cut into chunks of
intervals, they can follow each other closely: operation j takes chunk c when the one before it is
done with chunk c + 1. No result changes, because

- the item k of every operation is the interval that starts at the k-th C-point (sweeps), that
  C-point (restriction, correction), or the next one (residual, what is made of it, coarse
  right-hand side);
- an item reads nothing but what earlier operations left at the items up to k + 1, and later ones
  have not changed at the items from k - 1 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pint.drivers.operations import (
    ADD_RESIDUAL,
    CHAIN,
    COARSE_RHS,
    CORRECT,
    RESIDUAL_AT,
    RESTRICT,
    SWEEP,
)

Line = tuple[int, ...]
"""An operation of `pint.drivers.operations`; entries after its fields belong to all its chunks."""

CHUNK_BYTES = 1 << 16
"""States of a chunk; several chunks of a level are in the cache at once."""


def tiled(lines: Sequence[Line], bytes_per_state: int) -> list[Line]:
    """Return the same operations, those on long levels cut and interleaved.

    Parameters
    ----------
    lines : sequence of tuple of int
        Operations of one rank that owns all points.
    bytes_per_state : int
        What a point takes in memory.
    """
    program: list[Line] = []
    for group in _groups(lines):
        stride = max((line[4] for line in group if line[0] == SWEEP), default=0)
        per_chunk = max(CHUNK_BYTES // max(bytes_per_state * stride, 1), 1)
        num_chunks = -(-max(map(num_items, group)) // per_chunk)
        if stride == 0 or num_chunks < 2:
            program += group
            continue
        for now in range(num_chunks + len(group) - 1):
            for behind, line in enumerate(group):
                chunk = now - behind
                part = items(line, chunk * per_chunk, (chunk + 1) * per_chunk)
                if chunk >= 0 and part[2] < part[3]:
                    program.append(part)
    return program


def num_items(line: Line) -> int:
    """Return how many places an operation goes through."""
    code, _, begin, end, stride, *_ = line
    return 1 if code == CHAIN else len(range(begin, end, stride))


def items(line: Line, first: int, last: int) -> Line:
    """Return the part of an operation from item `first` to before `last`; it may be empty."""
    code, row, begin, end, stride, more, *rest = line
    if code in (RESIDUAL_AT, ADD_RESIDUAL, RESTRICT, CORRECT):
        more += first
    return code, row, begin + first * stride, min(begin + last * stride, end), stride, more, *rest


def _groups(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield runs of operations on one level: its way down, or the correction and what follows."""
    group: list[Line] = []
    for line in lines:
        alone = line[0] == CHAIN or (bool(group) and group[-1][0] == CHAIN)
        if group and (alone or line[0] == CORRECT or _level(line) != _level(group[-1])):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _level(line: Line) -> int:
    """Return the level whose intervals an operation goes through."""
    code, row, *_ = line
    return row - 1 if code == COARSE_RHS else row
