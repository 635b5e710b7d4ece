"""Slots, the places in the arrays of a level: evenly spaced, or anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Slots: TypeAlias = slice | NDArray[np.int64]
"""A slice with start, stop and step, or increasing indices."""


def slots_of(slots: Slots, num_slots: int) -> range | NDArray[np.int64]:
    """Return the slots as indices; a slice ends with the array."""
    return range(*slots.indices(num_slots)) if isinstance(slots, slice) else slots


def shifted(slots: Slots, by: int) -> Slots:
    """Return the slots `places` further to the right."""
    if isinstance(slots, slice):
        return slice(slots.start + by, slots.stop + by, slots.step)
    return slots + by


def even_runs(slots: Slots, num_slots: int) -> Iterator[tuple[int, range]]:
    """Yield runs of evenly spaced slots, each with the number of slots before it."""
    if isinstance(slots, slice):
        yield 0, range(*slots.indices(num_slots))
        return
    gaps = np.diff(slots)
    changes = np.append(np.flatnonzero(np.diff(gaps)) + 1, slots.size - 1)
    begin = 0
    while begin < slots.size:
        change = min(int(np.searchsorted(changes, begin, "right")), changes.size - 1)
        last = int(changes[change])
        spacing = int(gaps[begin]) if last > begin else 1
        yield begin, range(int(slots[begin]), int(slots[last]) + 1, spacing)
        begin = last + 1
