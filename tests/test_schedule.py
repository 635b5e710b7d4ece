"""The table of gate evaluations of a coarse step: exact values, and what every table keeps."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pint.rnn.coarse_step import GateEvaluation, gate_evaluations

HALVED = ["midpoint", "averaged"]
KINDS = ["implicit", "matched", *HALVED]
LENGTHS = st.integers(1, 300)


def end_of_part(kind, end, span):
    """The evaluations of the part of `span` fine steps that ends `end` before the last."""
    if span <= 2:
        return tuple(
            GateEvaluation(end=end + i, span=1, read=end + i, length=1) for i in range(span)
        )[::-1]
    second = span // 2
    first, last = (span - second, second) if kind == "averaged" else (1, 1)
    return (
        GateEvaluation(end=end, span=span, read=end + second, length=first, is_middle=True),
        GateEvaluation(end=end, span=span, read=end, length=last),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("substep", [1, 8])
def test_a_finest_step_is_one_evaluation(kind, substep):
    assert gate_evaluations(1, kind, substep) == (GateEvaluation(end=0, span=1, read=0, length=1),)


@pytest.mark.parametrize("kind", ["implicit", "matched"])
@pytest.mark.parametrize("num_fine", [2, 3, 4, 16])
def test_one_evaluation_over_all_of_the_step(kind, num_fine):
    assert gate_evaluations(num_fine, kind, 1) == (
        GateEvaluation(end=0, span=num_fine, read=0, length=1),
    )


@pytest.mark.parametrize("kind", HALVED)
@pytest.mark.parametrize(
    ("num_fine", "substep", "parts"),
    [  # (end, span) of each part
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
def test_parts(kind, num_fine, substep, parts):
    expected = tuple(phase for part in parts for phase in end_of_part(kind, *part))
    assert gate_evaluations(num_fine, kind, substep) == expected


def test_midpoint_of_three_reads_the_second_input_in_its_middle():
    middle, end = gate_evaluations(3, "midpoint", 8)
    assert middle == GateEvaluation(end=0, span=3, read=1, length=1, is_middle=True)
    assert end == GateEvaluation(end=0, span=3, read=0, length=1)


def test_averages_of_seven_are_over_the_first_four_and_the_last_three():
    middle, end = gate_evaluations(7, "averaged", 8)
    assert middle == GateEvaluation(end=0, span=7, read=3, length=4, is_middle=True)
    assert end == GateEvaluation(end=0, span=7, read=0, length=3)


def test_twice_the_exponent_of_a_middle_is_half_of_the_other():
    middle, end = gate_evaluations(3, "midpoint", 8)
    assert (middle.factor * middle.span, end.factor * end.span) == (3, 6)  # q = t^(3/2), t^3


@given(num_fine=LENGTHS, substep=LENGTHS, kind=st.sampled_from(KINDS))
def test_parts_cover_the_step_once(num_fine, substep, kind):
    ends = [phase for phase in gate_evaluations(num_fine, kind, substep) if not phase.is_middle]
    covered = [end + i for end, span, *_ in ends for i in range(span - 1, -1, -1)]
    assert covered == list(range(num_fine - 1, -1, -1))


@given(num_fine=st.integers(2, 300), substep=LENGTHS, kind=st.sampled_from(HALVED))
def test_parts_are_short_and_even(num_fine, substep, kind):
    count = -(-num_fine // substep)
    stops = [part * num_fine // count for part in range(count + 1)]
    spans = [stop - start for start, stop in pairwise(stops)]
    assert max(spans) <= substep
    assert max(spans) - min(spans) <= 1
    expected = [end_of_part(kind, num_fine - b, b - a) for a, b in pairwise(stops)]
    assert gate_evaluations(num_fine, kind, substep) == tuple(
        phase for part in expected for phase in part
    )


@given(num_fine=LENGTHS, substep=LENGTHS)
def test_averages_tile_every_part_once(num_fine, substep):
    table = gate_evaluations(num_fine, "averaged", substep)
    read = [phase.read + i for phase in table for i in range(phase.length - 1, -1, -1)]
    assert read == list(range(num_fine - 1, -1, -1))
    for middle, end in pairwise(table):
        if middle.is_middle:
            assert (end.end, end.span) == (middle.end, middle.span)
            assert middle.read - end.read == end.length
            assert 0 <= middle.length - end.length <= 1
            assert middle.length + end.length == end.span


@given(num_fine=LENGTHS, substep=LENGTHS, kind=st.sampled_from(KINDS))
def test_every_input_lies_in_its_part(num_fine, substep, kind):
    table = gate_evaluations(num_fine, kind, substep)
    for phase in table:
        assert phase.end <= phase.read
        assert phase.read + phase.length <= phase.end + phase.span <= num_fine
    reads = [phase.read for phase in table]
    assert reads == sorted(reads, reverse=True)
    assert reads[-1] == 0


@given(num_fine=LENGTHS, substep=LENGTHS, kind=st.sampled_from(KINDS))
def test_a_middle_is_followed_by_the_end_of_its_part(num_fine, substep, kind):
    table = gate_evaluations(num_fine, kind, substep)
    assert not table[-1].is_middle
    for phase, after in pairwise(table):
        assert not (phase.is_middle and after.is_middle)
