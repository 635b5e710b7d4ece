"""Owners of points: blocks cover every point once, for all sizes and all coarsenings."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pint.grid.layout import Layout

SIZES = st.integers(1, 40)
NUM_STEPS = st.integers(1, 400)
FACTORS = st.lists(st.integers(2, 9), max_size=4)


@st.composite
def any_layout(draw):
    """Blocks of any length, empty ones among them."""
    num_steps, size = draw(NUM_STEPS), draw(SIZES)
    inner = st.lists(st.integers(0, num_steps + 1), min_size=size - 1, max_size=size - 1)
    return Layout(np.array([0, *sorted(draw(inner)), num_steps + 1]))


@st.composite
def balanced_layout(draw):
    factors = draw(FACTORS)
    return Layout.balanced(draw(NUM_STEPS), draw(SIZES), factors), factors


def blocks(layout):
    return [layout.block(rank) for rank in range(layout.size)]


def owners(layout):
    """The owner of every point, read off the blocks."""
    return {point: rank for rank, block in enumerate(blocks(layout)) for point in block}


def assert_covers_once(layout, num_points):
    points = [point for block in blocks(layout) for point in block]
    assert points == list(range(num_points))
    assert layout.num_points == num_points


def assert_neighbours_agree(layout):
    owner = owners(layout)
    assert all(layout.owner(point) == rank for point, rank in owner.items())
    for rank, block in enumerate(blocks(layout)):
        left = owner.get(block.start - 1) if block else None
        right = owner.get(block.stop) if block else None
        assert (layout.left(rank), layout.right(rank)) == (left, right)


@settings(deadline=None)
@given(any_layout())
def test_owner_and_neighbours_agree_with_blocks(layout):
    assert_covers_once(layout, layout.num_points)
    assert_neighbours_agree(layout)


@settings(deadline=None)
@given(NUM_STEPS, SIZES, FACTORS)
@example(77, 21, [4])  # rounded up to blocks of 4, the last bound but one lies beyond the end
def test_balanced_blocks_cover_every_point_once_on_every_level(num_steps, size, factors):
    layout = Layout.balanced(num_steps, size, factors)
    assert layout.size == size
    assert 0 in layout.block(0)
    assert_covers_once(layout, num_steps + 1)
    for m in factors:
        num_steps //= m
        layout = layout.coarsen(m)
        assert_covers_once(layout, num_steps + 1)
        assert_neighbours_agree(layout)


@settings(deadline=None)
@given(any_layout(), FACTORS)
def test_coarse_points_stay_with_their_owner(layout, factors):
    for m in factors:
        coarse = layout.coarsen(m)
        expected = [[point // m for point in block if point % m == 0] for block in blocks(layout)]
        assert [list(block) for block in blocks(coarse)] == expected
        layout = coarse


@settings(deadline=None)
@given(NUM_STEPS, SIZES, FACTORS)
def test_no_block_is_much_longer_than_the_mean(num_steps, size, factors):
    """The last block has the last point on top of its share."""
    longest = max(len(block) for block in blocks(Layout.balanced(num_steps, size, factors)))
    assert longest <= max(-(-num_steps // size), 1.1 * num_steps / size) + 1


@settings(deadline=None)
@given(st.integers(1, 60), SIZES, FACTORS)
def test_blocks_start_at_coarse_points_where_that_costs_nothing(units, size, factors):
    unit = int(np.prod(factors, dtype=np.int64))
    layout = Layout.balanced(units * size * unit, size, factors)
    assert layout.bounds[:-1].tolist() == [rank * units * unit for rank in range(size)]


@settings(deadline=None)
@given(balanced_layout())
def test_reversed_points_go_to_the_rank_that_has_their_linearisation(drawn):
    """An owner of a..b-1 forwards owns the reversed points of a+1..b, rank 0 also point 0."""
    layout, _ = drawn
    num_steps = layout.num_points - 1
    turned = layout.reversed()
    assert_covers_once(turned, num_steps + 1)
    assert_neighbours_agree(turned)
    for rank, block in enumerate(blocks(layout)):
        forward = set(range(block.start + 1, min(block.stop, num_steps) + 1)) if block else set()
        if rank == 0:
            forward.add(0)
        mirrored = {num_steps - point for point in turned.block(layout.size - 1 - rank)}
        assert mirrored == forward


@settings(deadline=None)
@given(st.integers(1, 60), SIZES, FACTORS)
def test_reversed_blocks_start_at_coarse_points_too(units, size, factors):
    unit = int(np.prod(factors, dtype=np.int64))
    turned = Layout.balanced(units * size * unit, size, factors).reversed()
    assert all(bound % unit == 0 for bound in turned.bounds[:-1])


@pytest.mark.parametrize(
    ("num_steps", "size", "factors", "bounds"),
    [
        (128, 4, (4, 4), [0, 32, 64, 96, 129]),
        (128, 3, (4,), [0, 44, 88, 129]),
        (1, 4, (2,), [0, 1, 1, 1, 2]),
        (2, 1, (), [0, 3]),
    ],
    ids=["aligned", "aligned-on-one-level", "more-ranks-than-points", "one-rank"],
)
def test_balanced_bounds(num_steps, size, factors, bounds):
    assert Layout.balanced(num_steps, size, factors).bounds.tolist() == bounds


def test_empty_blocks_have_no_neighbours_and_are_nobodys():
    layout = Layout(np.array([0, 3, 3, 3, 5]))
    assert [list(block) for block in blocks(layout)] == [[0, 1, 2], [], [], [3, 4]]
    assert [layout.left(rank) for rank in range(4)] == [None, None, None, 0]
    assert [layout.right(rank) for rank in range(4)] == [3, None, None, None]
    assert [layout.owner(point) for point in range(5)] == [0, 0, 0, 3, 3]


@pytest.mark.parametrize("bounds", [[0, 5], [0, 3, 8], [1, 4, 9], [0, 7, 4, 9]])
def test_layouts_that_do_not_fit_are_refused(bounds):
    message = r"layout must split points 0\.\.8 over \d ranks, got bounds \["
    layout = Layout(np.array(bounds))
    with pytest.raises(ValueError, match=message):
        layout.check(num_steps=8, size=layout.size)
    with pytest.raises(ValueError, match=message):
        Layout(np.array([0, 4, 9])).check(num_steps=8, size=3)


def test_layouts_that_fit_are_accepted():
    Layout(np.array([0, 0, 4, 4, 9])).check(num_steps=8, size=4)
