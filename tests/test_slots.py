"""Places in the arrays of a level."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pint.grid.slots import even_runs, shifted, slots_of


@given(st.sets(st.integers(0, 60)))
def test_runs_are_even_and_cover_the_slots_in_order(chosen):
    slots = np.array(sorted(chosen), dtype=np.int64)
    runs = list(even_runs(slots, 61))
    assert [slot for _, run in runs for slot in run] == slots.tolist()
    assert [before for before, _ in runs] == np.cumsum(
        [0, *(len(run) for _, run in runs)]
    ).tolist()[: len(runs)]


def test_runs_are_long():
    slots = np.array([*range(0, 30, 3), *range(40, 50)])
    assert list(even_runs(slots, 50)) == [(0, range(0, 28, 3)), (10, range(40, 50))]
    assert list(even_runs(slice(2, 9, 4), 9)) == [(0, range(2, 9, 4))]


def test_shifted_slots():
    assert list(slots_of(shifted(slice(1, 10, 4), 2), 10)) == [3, 7]
    assert slots_of(shifted(np.array([1, 4, 5]), 2), 10).tolist() == [3, 6, 7]
