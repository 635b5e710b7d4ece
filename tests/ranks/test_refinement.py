"""Refinement on many processes: grids and bits of one process, and errors on all ranks."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Refinement, Richardson
from pint.grid.layout import Layout
from pint.models.dahlquist import Dahlquist
from pint.parallel.comm import world
from tests.engine_models import uneven_times
from tests.test_refinement import (
    START,
    WAYS,
    Answering,
    Between,
    GrowingBoth,
    SplittingDahlquist,
    SplittingSwirl,
)


def same_bits(parallel, serial):
    """Compare a result with the result of one process, to the last bit; collective."""
    assert np.array_equal(parallel.times, serial.times)
    assert np.array_equal(parallel.gather(), serial.u)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.grid_steps, serial.grid_steps)
    assert parallel.status is serial.status


@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_grids_and_states_do_not_depend_on_the_number_of_ranks(ways, driver):
    loop = driver == "loop"
    model, start = (SplittingSwirl(0.5), START) if loop else (SplittingDahlquist(), 1.0)
    options = MGRITOptions(
        **{"refinement": Refinement(3), "tolerance": 1e-10, "driver": driver} | ways
    )
    for num_steps in (1, 5, 23):
        times = uneven_times(num_steps)
        parallel = MGRIT(model, times, options, world()).solve(start)
        same_bits(parallel, MGRIT(model, times, options).solve(start))
        blocks = np.diff(parallel.layout.bounds)
        assert blocks.sum() == parallel.times.size
        assert blocks.max() <= max(1.1 * parallel.times.size / world().size + 1, blocks.mean() + 1)


def test_many_new_points_in_few_steps_are_spread_over_all_ranks():
    options = MGRITOptions(levels=4, refinement=Refinement(2), tolerance=1e-10)
    model = Between(50, 0.9, 1.1, longest=1e-3)
    parallel = MGRIT(model, np.linspace(0, 2, 41), options, world()).solve(1.0)
    same_bits(parallel, MGRIT(model, np.linspace(0, 2, 41), options).solve(1.0))
    assert parallel.times.size > 200
    assert np.ptp(np.diff(parallel.layout.bounds)) <= 0.2 * parallel.times.size / world().size + 8


def test_blocks_that_are_uneven_or_empty_at_first():
    options = MGRITOptions(levels=3, refinement=Refinement(2), tolerance=1e-10, driver="loop")
    bounds = np.array([0] * world().size + [24])
    if world().size > 2:
        bounds[2:-1] = 17
    times = uneven_times(23)
    parallel = MGRIT(SplittingSwirl(0.5), times, options, world(), Layout(bounds)).solve(START)
    same_bits(parallel, MGRIT(SplittingSwirl(0.5), times, options).solve(START))


@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_estimated_errors(driver):
    options = MGRITOptions(
        levels=3,
        richardson=Richardson(1),
        refinement=Refinement(4, error_tolerance=1e-3, factor=5),
        tolerance=1e-9,
        driver=driver,
    )
    parallel = MGRIT(Dahlquist(-9.0), uneven_times(30), options, world()).solve(1.0)
    serial = MGRIT(Dahlquist(-9.0), uneven_times(30), options).solve(1.0)
    same_bits(parallel, serial)
    assert np.array_equal(parallel.error_estimates, serial.error_estimates)
    assert serial.times.size > 31


@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_states_grow(driver):
    options = MGRITOptions(levels=3, refinement=Refinement(3), tolerance=1e-9, driver=driver)
    start = np.sin(np.linspace(0, np.pi, 9))
    parallel = MGRIT(GrowingBoth(9), np.linspace(0, 1, 41), options, world()).solve(start)
    serial = MGRIT(GrowingBoth(9), np.linspace(0, 1, 41), options).solve(start)
    same_bits(parallel, serial)
    assert parallel.u.shape[1:] == (33,)
    profile = parallel.profile()
    totals = [serial.num_steps[level] for level in (0, 1)]
    assert profile.num_steps[:, :2].sum(axis=0).tolist() == totals


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (0, ValueError, "the factor must be at least 1, got 0"),
        (None, TypeError, "expected an integer or the ends"),
        ([0.1, 0.05], ValueError, "ends of sub-steps must increase"),
    ],
    ids=["0", "None", "ends"],
)
def test_a_wrong_answer_on_one_rank_is_raised_on_all(answer, kind, message):
    mine = answer if world().rank == world().size - 1 else 2
    solver = MGRIT(
        Answering(mine), uneven_times(23), MGRITOptions(refinement=Refinement(1)), world()
    )
    with pytest.raises(kind, match=message):
        solver.solve(1.0)
    assert world().sum(np.array([1])).tolist() == [world().size]  # and no rank waits for a message


def test_ranks_that_differ_in_their_space_are_told():
    class Some(GrowingBoth):
        def refined_model(self, refinement):
            return None if world().rank == 0 else super().refined_model(refinement)

    solver = MGRIT(Some(9), uneven_times(23), MGRITOptions(refinement=Refinement(1)), world())
    with pytest.raises(ValueError, match="None on some ranks only"):
        solver.solve(np.zeros(9))
