"""Time points: where they lie, which are kept, and which fine steps a coarse step stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pint import Step, TimeGrid
from pint.grid.timegrid import as_grid

FACTORS = st.lists(st.integers(2, 9), max_size=4)


def levels_of(num_steps, factors):
    grids = [TimeGrid(np.cumsum(np.arange(1.0, num_steps + 2)))]
    for m in factors:
        grids.append(grids[-1].coarsen(m))
    return grids


def test_uniform_points():
    grid = TimeGrid.uniform(1.0, 3.0, 4)
    assert grid.times.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert grid.times.dtype == np.float64
    assert grid.fine_index.tolist() == [0, 1, 2, 3, 4]
    assert (grid.num_steps, grid.level) == (4, 0)


@given(st.integers(1, 500), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_uniform_rounds_as_the_published_formula(num_steps, start, length):
    stop = start + length
    times = TimeGrid.uniform(start, stop, num_steps).times
    assert times.tolist() == [
        start + (i / num_steps) * (stop - start) for i in range(num_steps + 1)
    ]


def test_coarsen_keeps_multiples_and_drops_the_rest():
    coarse = TimeGrid([0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8]).coarsen(3)
    assert coarse.times.tolist() == [0.0, 0.6, 2.1]
    assert coarse.fine_index.tolist() == [0, 3, 6]
    assert (coarse.num_steps, coarse.level) == (2, 1)


def test_coarsen_beyond_the_grid_leaves_one_point():
    coarse = TimeGrid.uniform(0, 1, 3).coarsen(4)
    assert coarse.times.tolist() == [0.0]
    assert coarse.num_steps == 0


@settings(deadline=None)
@given(st.integers(1, 300), FACTORS)
def test_every_level_holds_the_multiples_of_all_factors(num_steps, factors):
    for level, grid in enumerate(levels_of(num_steps, factors)):
        stride = int(np.prod(factors[:level], dtype=np.int64))
        kept = list(range(0, num_steps + 1, stride))
        assert grid.level == level
        assert grid.fine_index.tolist() == kept
        assert grid.times.tolist() == [(i + 1) * (i + 2) / 2 for i in kept]


@settings(deadline=None)
@given(st.integers(1, 300), FACTORS)
def test_coarse_steps_cover_every_fine_step_once(num_steps, factors):
    for grid in levels_of(num_steps, factors):
        covered = []
        for index in range(1, grid.num_steps + 1):
            step = grid.steps(index)
            assert step.num_fine == grid.fine_index[1]
            assert step.dt == grid.times[index] - grid.times[index - 1] > 0
            covered.extend(range(step.first, step.last + 1))
        assert covered == list(range(1, grid.fine_index[-1] + 1))


def test_one_step_has_plain_numbers():
    step = TimeGrid.uniform(0, 4, 8).coarsen(2).steps(3)
    assert step == Step(level=1, start=2.0, stop=3.0, first=5, last=6)
    assert [type(field) for field in step] == [int, float, float, int, int]


@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 20),
    st.integers(0, 70),
    st.integers(1, 4),
)
def test_stack_of_steps_is_its_steps(num_steps, m, start, length, stride):
    grid = TimeGrid(np.cumsum(np.arange(1.0, num_steps + 2))).coarsen(m)
    points = slice(start, min(start + length, grid.num_steps + 1), stride)
    stack = grid.steps(points)
    indices = range(points.start, points.stop, stride)
    assert all(len(field) == len(indices) for field in stack[1:])
    for row, index in enumerate(indices):
        one = grid.steps(index)
        assert stack.at(row) == one
        assert (stack.dt[row], stack.num_fine[row]) == (one.dt, one.num_fine)


def test_some_rows_of_a_stack():
    stack = TimeGrid.uniform(0, 8, 8).steps(slice(1, 8, 2))
    some = stack.at(slice(1, 3))
    assert some.level == 0
    assert (some.start.tolist(), some.stop.tolist()) == ([2.0, 4.0], [3.0, 5.0])
    assert (some.first.tolist(), some.last.tolist()) == ([3, 5], [3, 5])


def test_reversed_runs_the_same_steps_backwards():
    grid = TimeGrid([1.0, 1.5, 3.5, 4.0]).reversed()
    assert grid.times.tolist() == [1.0, 1.5, 3.5, 4.0]
    assert TimeGrid([1.0, 1.25, 4.0]).reversed().times.tolist() == [1.0, 3.75, 4.0]
    assert grid.fine_index.tolist() == [0, 1, 2, 3]


def test_reversed_accepts_points_that_rounding_joins():
    times = TimeGrid([0.0, 1e-20, 1.0]).reversed().times
    assert times.tolist() == [0.0, 1.0, 1.0]


def test_as_grid_takes_grids_and_sequences():
    grid = TimeGrid.uniform(0, 1, 3)
    assert as_grid(grid) is grid
    assert as_grid([0, 1, 3]).times.tolist() == [0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 1.0, 1.0, 2.0], "times must increase: point 1 is at 1.0, point 2 at 1.0"),
        ([0.0, 2.0, 1.0], "times must increase: point 1 is at 2.0, point 2 at 1.0"),
        ([0.0, np.nan, 1.0], "time 1 is not finite"),
        ([0.0, 1.0, np.inf], "time 2 is not finite"),
        ([0.0], r"at least 2 points in 1 dimension, got \(1,\)"),
        ([], r"at least 2 points in 1 dimension, got \(0,\)"),
        (3.0, r"at least 2 points in 1 dimension, got \(\)"),
        ([[0.0, 1.0]], r"at least 2 points in 1 dimension, got \(1, 2\)"),
    ],
)
def test_bad_times_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        TimeGrid(times)


def test_bad_uniform_grids_are_refused():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        TimeGrid.uniform(0, 1, 0)
    with pytest.raises(ValueError, match=r"stop must be later than start, got start=2\.0, stop=2"):
        TimeGrid.uniform(2.0, 2, 5)
    with pytest.raises(ValueError, match="stop must be later than start"):
        TimeGrid.uniform(0.0, float("nan"), 5)
