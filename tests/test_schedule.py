"""The table of gate evaluations of a coarse step: exact values, and what every table keeps."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pint.rnn.schedule import Phase, phases

KINDS = ["implicit", "matched", "midpoint"]


def end_of_part(offset, length):
    """The evaluations of the part of `length` fine steps that ends `offset` before the end."""
    if length <= 2:
        return tuple(Phase(offset + i, 1, 2, is_middle=False) for i in reversed(range(length)))
    return (
        Phase(offset + length // 2, 1, length, is_middle=True),
        Phase(offset, 1, 2 * length, is_middle=False),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("substep", [1, 8])
def test_a_finest_step_is_one_evaluation(kind, substep):
    assert phases(1, kind, substep) == (Phase(0, 1, 2, is_middle=False),)


@pytest.mark.parametrize("num_fine", [2, 3, 4, 16])
def test_implicit_multiplies_gamma(num_fine):
    assert phases(num_fine, "implicit", 1) == (Phase(0, num_fine, 2, is_middle=False),)


@pytest.mark.parametrize("num_fine", [2, 3, 4, 16])
def test_matched_takes_a_power(num_fine):
    assert phases(num_fine, "matched", 1) == (Phase(0, 1, 2 * num_fine, is_middle=False),)


@pytest.mark.parametrize(
    ("num_fine", "substep", "parts"),
    [  # (offset, length) of each part
        (2, 8, [(0, 2)]),
        (3, 8, [(0, 3)]),
        (8, 8, [(0, 8)]),
        (16, 8, [(8, 8), (0, 8)]),
        (16, 4, [(12, 4), (8, 4), (4, 4), (0, 4)]),
        (7, 4, [(4, 3), (0, 4)]),
        (8, 3, [(6, 2), (3, 3), (0, 3)]),
        (9, 8, [(5, 4), (0, 5)]),
        (2, 1, [(1, 1), (0, 1)]),
    ],
)
def test_midpoint_parts(num_fine, substep, parts):
    expected = tuple(phase for part in parts for phase in end_of_part(*part))
    assert phases(num_fine, "midpoint", substep) == expected


def test_midpoint_of_three_reads_the_second_input_in_its_middle():
    # floor(3 / 2) = 1 before the end, and half of three steps: q = t^(3/2)
    middle, end = phases(3, "midpoint", 8)
    assert middle == Phase(offset=1, gamma=1, power2=3, is_middle=True)
    assert end == Phase(offset=0, gamma=1, power2=6, is_middle=False)


@given(num_fine=st.integers(2, 300), substep=st.integers(1, 300))
def test_midpoint_parts_cover_the_step_evenly(num_fine, substep):
    table = phases(num_fine, "midpoint", substep)
    count = -(-num_fine // substep)
    ends = [part * num_fine // count for part in range(count + 1)]
    lengths = [stop - start for start, stop in pairwise(ends)]
    assert max(lengths) <= substep
    assert max(lengths) - min(lengths) <= 1
    expected = [end_of_part(num_fine - stop, stop - start) for start, stop in pairwise(ends)]
    assert table == tuple(phase for part in expected for phase in part)


@given(num_fine=st.integers(1, 300), substep=st.integers(1, 300), kind=st.sampled_from(KINDS))
def test_every_input_lies_in_the_step(num_fine, substep, kind):
    offsets = [phase.offset for phase in phases(num_fine, kind, substep)]
    assert offsets[-1] == 0
    assert all(0 <= offset < num_fine for offset in offsets)
    assert offsets == sorted(offsets, reverse=True)
