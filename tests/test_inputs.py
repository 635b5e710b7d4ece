"""Sequences bound to a time grid: rows of inputs and means, counts of steps, masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pint.rnn.coarse_step import GateEvaluation, gate_evaluations
from pint.rnn.inputs import BoundInputs
from tests.recurrent_models import stack
from tests.recurrent_reference import Sequences

T = 10


def read(last, length):
    """A table of one evaluation that reads one window of the step that ends at `last`."""
    return (GateEvaluation(end=0, span=length, read=0, length=length),), stack([last], length)


@st.composite
def sequences(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch, features = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    mask = rng.random((batch, T)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    return Sequences(rng.standard_normal((batch, T, features)), draw(st.sampled_from([None, mask])))


@given(given_=sequences(), last=st.integers(1, T), length=st.integers(1, T))
def test_every_window(given_, last, length):
    """Means over the elements there are; without any, or for one step, the one before."""
    length = min(length, last)
    bound = BoundInputs(given_.x, np.array([[last, length]]), given_.mask, np.float64)
    table, step = read(last, length)
    ((row,),) = bound.rows_of(table, step)
    expected = given_.mean(last - length + 1, last)
    np.testing.assert_allclose(bound.rows[row], expected, rtol=0, atol=1e-15)
    if length == 1:
        np.testing.assert_array_equal(bound.rows[row], given_.at(last))


@given(given_=sequences(), kind=st.sampled_from(["matched", "averaged"]), m=st.integers(1, T))
def test_steps_are_the_elements_of_the_part(given_, kind, m):
    bound = BoundInputs(given_.x, None, given_.mask, np.float64)
    table, step = gate_evaluations(m, kind, 4), stack([m, T], m)
    steps = bound.steps_of(table, step)
    assert steps.dtype == np.int64
    for i, last in enumerate(step.last):
        for p, phase in enumerate(table):
            end = last - phase.end
            expected = given_.count(end - phase.span + 1, end)[:, 0]
            np.testing.assert_array_equal(steps[i, p], expected)


def test_a_mean_by_hand():
    x = np.arange(1.0, 11).reshape(1, T, 1)
    mask = np.array([[False, True, True, False, True, False, False, False, True, True]])
    windows = np.array([[5, 4], [8, 2], [8, 4], [1, 1], [4, 1]])
    bound = BoundInputs(x, windows, mask, np.float64)
    rows = [bound.rows_of(*read(*window))[0, 0] for window in windows]
    # elements 2, 3, 5; none in 7..8, so 5; 5; none at all; 3
    np.testing.assert_allclose(bound.rows[rows, 0, 0], [10 / 3, 5, 5, 0, 3])


def test_windows_are_sorted_by_length_and_held_once():
    x = np.arange(20.0).reshape(2, T, 1)
    windows = np.array([[4, 3], [2, 1], [4, 3], [9, 1], [2, 1], [5, 3]])
    bound = BoundInputs(x, windows, None, np.float64)
    np.testing.assert_array_equal(bound.rows[:, 0, 0], [1, 8, 2, 3])
    assert bound.num_points == 2
    for last, length, row in ((2, 1, 0), (9, 1, 1), (4, 3, 2), (5, 3, 3)):
        assert bound.rows_of(*read(last, length)) == row


def test_every_finest_step_unless_told():
    x = np.random.default_rng(0).standard_normal((3, T, 2))
    bound = BoundInputs(x, None, None, np.float64)
    np.testing.assert_array_equal(bound.rows, x.swapaxes(0, 1))
    assert (bound.num_points, bound.batch, bound.num_steps) == (T, 3, T)
    table, step = gate_evaluations(1, "averaged", 4), stack([3, 10, 1], 1)
    np.testing.assert_array_equal(bound.rows_of(table, step), [[2], [9], [0]])


def test_no_window():
    bound = BoundInputs(np.zeros((3, T, 2)), np.zeros((0, 2), np.int64), None, np.float32)
    assert bound.rows.shape == (0, 3, 2)
    assert bound.rows.dtype == np.float32
    with pytest.raises(ValueError, match=r"left out the input of finest step 4$"):
        bound.rows_of(*read(4, 1))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("given_type", [np.int64, np.float32, np.float64])
def test_rows_have_the_models_type(given_type, masked):
    x = np.arange(20).reshape(1, T, 2).astype(given_type)
    mask = np.ones((1, T), bool) if masked else None
    bound = BoundInputs(x, np.array([[1, 1], [4, 4]]), mask, np.float32)
    assert bound.rows.dtype == np.float32
    np.testing.assert_array_equal(bound.rows[:, 0], [[0, 1], [3, 4]])


@pytest.mark.parametrize("window", [(0, 1), (11, 1), (3, 4), (0, 0), (5, 0), (5, -1), (-1, 1)])
def test_windows_must_lie_in_the_sequences(window):
    with pytest.raises(ValueError, match=r"windows must lie within 1\.\.10, got"):
        BoundInputs(np.zeros((2, T, 1)), np.array([(1, 1), window]), None, np.float64)


@pytest.mark.parametrize(
    "mask", [np.ones((2, T + 1), bool), np.ones(T, bool), np.ones((2, T)), np.ones((3, T), bool)]
)
def test_masks_must_fit(mask):
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(2, 10\), got"):
        BoundInputs(np.zeros((2, T, 1)), None, mask, np.float64)


def test_no_sequence():
    with pytest.raises(ValueError, match="at least one sequence, got none"):
        BoundInputs(np.zeros((0, T, 1)), None, None, np.float64)


def test_arguments_stay_unchanged():
    rng = np.random.default_rng(1)
    x, mask = rng.standard_normal((2, T, 1)), rng.random((2, T)) < 0.5
    windows = np.array([[4, 3], [2, 1]])
    before = x.copy(), mask.copy(), windows.copy()
    bound = BoundInputs(x, windows, mask, np.float64)
    bound.rows[...] = np.nan
    for array, old in zip((x, mask, windows), before, strict=True):
        np.testing.assert_array_equal(array, old)
