"""Results in memory that earlier ones have left, and in nobody else's."""

import gc

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, TimeGrid
from pint.mgrit.recycling import Recycler
from pint.models.heat import Heat

LIKE = np.zeros(3)


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_serves_again_when_the_last_view_is_gone():
    recycler = Recycler()
    first = recycler.empty((100, 3), LIKE)
    begin, view = place(first), first[50:, 1]
    assert first.dtype == LIKE.dtype
    assert first.shape == (100, 3)
    assert begin % 64 == 0
    del first
    other = recycler.empty((100, 3), LIKE)
    assert not np.shares_memory(other, view)
    del view
    assert place(recycler.empty((100, 3), LIKE)) == begin


@pytest.mark.parametrize(("rows", "is_same"), [(101, False), (100, True), (60, True), (40, False)])
def test_memory_serves_for_what_fills_half_of_it(rows, is_same):
    recycler = Recycler()
    recycler.empty((100, 3), LIKE)
    memory = recycler.free
    again = recycler.empty((rows, 3), LIKE)
    assert np.shares_memory(again, memory) is is_same
    assert again.shape == (rows, 3)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128, bool])
def test_any_shape_and_dtype(shape, dtype):
    made = Recycler().empty(shape, np.zeros(1, dtype=dtype))
    made[...] = 1
    assert made.shape == shape
    assert made.dtype == dtype
    assert made.flags.c_contiguous
    assert made.flags.writeable


def test_other_libraries_make_their_own():
    torch = pytest.importorskip("torch")
    made = Recycler().empty((2, 3), torch.zeros(3, dtype=torch.float32))
    assert isinstance(made, torch.Tensor)
    assert (made.shape, made.dtype) == ((2, 3), torch.float32)


@pytest.mark.parametrize("levels", [1, 2])
def test_results_that_are_held_stay_as_they_are(levels):
    options = MGRITOptions(levels=levels, coarsening=4, max_iterations=2)
    solver = MGRIT(Heat(15), TimeGrid.uniform(0, 1, 32), options)
    starts = [np.full(15, float(k)) for k in range(1, 6)]
    fresh = [solver.solve(start) for start in starts]
    kept = [result.u.copy() for result in fresh]
    for result, own in zip(fresh, kept, strict=True):
        np.testing.assert_array_equal(result.u, own)
    places = {place(result.u) for result in fresh}
    assert len(places) == len(starts)
    fresh[0].u[...] = np.nan  # nothing of it is found by who gets its memory
    del fresh, result
    gc.collect()
    again = [solver.solve(start).u.copy() for start in starts]
    np.testing.assert_array_equal(again, kept)
