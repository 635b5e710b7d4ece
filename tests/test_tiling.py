"""Tiled programs: the same operations, and the same bits."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pint import MGRIT, MGRITOptions
from pint.drivers import tiling
from pint.drivers.operations import CHAIN, COARSE_RHS, CORRECT, NORM, RESIDUAL_AT, RESTRICT, SWEEP
from pint.drivers.tiling import items, num_items, tiled
from tests.engine_models import CompiledSwirl, uneven_times

WAY_DOWN = [
    (SWEEP, 0, 1, 102, 4, 3),
    (SWEEP, 0, 4, 102, 4, 1),
    (SWEEP, 0, 1, 102, 4, 3),
    (RESIDUAL_AT, 0, 5, 102, 4, 2),
    (NORM, 0, 2, 27, 1, 0),
    (RESTRICT, 0, 1, 102, 4, 1),
    (COARSE_RHS, 1, 2, 27, 1, 0),
]
BOTTOM = [(CHAIN, 1, 1, 26, 1, 0)]
WAY_UP = [(CORRECT, 0, 1, 102, 4, 1), (SWEEP, 0, 1, 102, 4, 3)]
PLACE_OF_FIRST = {SWEEP: 1, RESIDUAL_AT: 5, NORM: 2, RESTRICT: 1, COARSE_RHS: 2, CORRECT: 1}


def places(line):
    """What an operation goes through, one by one."""
    return [items(line, k, k + 1)[2:3] + items(line, k, k + 1)[5:] for k in range(num_items(line))]


def test_a_short_program_stays_as_it_is():
    program = WAY_DOWN + BOTTOM + WAY_UP
    assert tiled(program, 16) == program


@pytest.mark.parametrize("per_chunk", [1, 2, 7, 26])
def test_every_place_is_visited_once_by_every_operation(monkeypatch, per_chunk):
    monkeypatch.setattr(tiling, "CHUNK_BYTES", per_chunk * 4 * 16)
    program = tiled(WAY_DOWN + BOTTOM + WAY_UP, 16)
    assert len(program) > 20 or per_chunk == 26
    visited, expected = Counter(), Counter()
    for count, lines in ((visited, program), (expected, WAY_DOWN + BOTTOM + WAY_UP)):
        for line in lines:
            count.update((line[0], line[1], *place) for place in places(line))
    assert visited == expected


def test_chunks_follow_each_other_closely(monkeypatch):
    """When an operation takes a chunk, the one before it has just taken the chunk after it."""
    monkeypatch.setattr(tiling, "CHUNK_BYTES", 5 * 4 * 16)
    program = tiled(WAY_UP, 16)
    assert program[:5] == [
        (CORRECT, 0, 1, 21, 4, 1),
        (CORRECT, 0, 21, 41, 4, 6),
        (SWEEP, 0, 1, 21, 4, 3),
        (CORRECT, 0, 41, 61, 4, 11),
        (SWEEP, 0, 21, 41, 4, 3),
    ]


def test_levels_are_not_mixed(monkeypatch):
    """Without a way down, restrictions of all levels and the coarsest sweep follow one another."""
    monkeypatch.setattr(tiling, "CHUNK_BYTES", 64)
    ups = [(RESTRICT, 0, 1, 102, 2, 1), (RESTRICT, 1, 1, 52, 2, 1), (SWEEP, 2, 1, 27, 2, 1)]
    program = tiled(ups, 16)
    assert program[:2] == ups[:2]
    assert len(program) > 3


@settings(deadline=None, max_examples=60)
@example(20, (2,), (0,), True, "relaxation", 1)
@given(
    st.integers(20, 150),
    st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple),
    st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.sampled_from(["gather", "relaxation"]),
    st.integers(1, 5),
)
def test_tiling_changes_no_bit(num_steps, coarsening, relax, skip, coarsest, per_chunk):
    times = uneven_times(num_steps)
    options = MGRITOptions(
        levels=4,
        coarsening=coarsening,
        relax=relax,
        max_iterations=4,
        skip_first_down=skip,
        coarsest=coarsest,
    )
    factors = options.factors(num_steps)
    start, guess = np.array([0.5, -0.3, 0.8]), 0.3
    sources = np.random.default_rng(0).normal(size=(num_steps + 1, 3))

    def solve():
        solver = MGRIT(CompiledSwirl(1.0, coarsening=factors), times, options)
        solver.solve(start, guess, sources)  # notes the cycles down
        return solver.solve(start, guess, sources)

    whole = solve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "CHUNK_BYTES", per_chunk * 4 * 32)
        cut = solve()
    assert np.array_equal(cut.u, whole.u)
    assert np.array_equal(cut.residuals, whole.residuals, equal_nan=True)
