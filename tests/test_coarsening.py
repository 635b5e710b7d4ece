"""Coarse points that lie anywhere, levels with the same points, weighted relaxation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pint import MGRIT, AdjointSolver, MGRITOptions, Status, TimeGrid
from pint.grid.layout import Layout
from pint.models.dahlquist import Dahlquist
from tests.engine_models import Drift, Swirl, naive_mgrit, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
ANYWHERE = (0, 1, 2, 7, 10, 13, 14, 20, 26)
WAYS = [
    {"coarsening": (ANYWHERE, 2)},
    {"coarsening": (2, (0, 4, 5, 6, 11, 14))},
    {"coarsening": ((0, 3, 6, 9, 12, 20, 29), (0, 1, 2, 5))},
    {"coarsening": (1, 3)},
    {"coarsening": (2, 1), "relax_weight": (0.8, 1.2)},
    {"coarsening": 3, "relax_weight": 1.3, "relax": 2},
]


@pytest.mark.parametrize("coarsest", ["gather", "relaxation"])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("batched", [False, True], ids=["loop", "stack"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_iterates_are_those_of_the_naive_solver(way, batched, skip, coarsest):
    times = uneven_times(29)
    options = MGRITOptions(
        levels=3, max_iterations=3, skip_first_down=skip, coarsest=coarsest, **way
    )
    guess = np.full((30, 3), 0.1)
    guess[0] = START
    expected, residuals = naive_mgrit(Swirl(), times, options, guess)
    result = MGRIT(Swirl(batched=batched), times, options).solve(START, 0.1)
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-13)
    norms = [np.linalg.norm(r) for r in residuals]
    np.testing.assert_allclose(result.residuals[-len(norms) :], norms, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_compiled_sweeps_give_the_bits_of_the_loop(way):
    """Numbers, whose division and multiplication round alike; cycles are replayed."""
    grid = TimeGrid(uneven_times(29))
    one, other = (
        MGRIT(
            Dahlquist(-2.0),
            grid,
            MGRITOptions(levels=3, max_iterations=5, skip_first_down=False, driver=driver, **way),
        ).solve(1.0, 0.3)
        for driver in ("loop", "compiled")
    )
    assert np.array_equal(one.u, other.u)
    assert np.array_equal(one.residuals, other.residuals)
    assert one.num_steps == other.num_steps
    assert one.coarsening == other.coarsening


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_points_converge_to_the_sequential_solution(data):
    """After at most one iteration per C-point, whatever the blocks."""
    num_steps = data.draw(st.integers(2, 25))
    kept = data.draw(st.sets(st.integers(1, num_steps), min_size=1))
    points = (0, *sorted(kept))
    options = MGRITOptions(
        coarsening=(points,),
        min_coarse=1,
        relax=data.draw(st.integers(0, 2)),
        max_iterations=len(points),
        skip_first_down=False,
    )
    times = uneven_times(num_steps)
    result = MGRIT(Swirl(1.0), times, options).solve(START)
    np.testing.assert_allclose(result.u, stepped(Swirl(1.0), times, START), atol=1e-12)


def test_a_level_that_coarsens_space_only():
    """Factor 1: the next level has the same times and every other node."""
    times = np.linspace(0, 0.2, 38)
    start = np.random.default_rng(4).normal(size=15)
    options = MGRITOptions(levels=3, coarsening=(1, 2), tolerance=1e-11, skip_first_down=False)
    seen = set()

    class Noting(Drift):
        def step(self, u, step):
            seen.add((step.level, u.shape[-1], step.num_fine))
            return super().step(u, step)

    result = MGRIT(Noting(), times, options).solve(start)
    assert result.status is Status.CONVERGED
    assert seen == {(0, 15, 1), (1, 7, 1), (2, 3, 2)}
    np.testing.assert_allclose(result.u, stepped(Drift(), times, start), rtol=0, atol=1e-10)


def test_layout_keeps_the_owners_of_chosen_points():
    layout = Layout(np.array([0, 4, 4, 11, 30]))
    coarse = layout.coarsen(np.array(ANYWHERE))
    assert [list(coarse.block(rank)) for rank in range(4)] == [[0, 1, 2], [], [3, 4], [5, 6, 7, 8]]
    assert Layout.balanced(64, 4, (4, (0, 2, 3))).bounds.tolist() == [0, 16, 32, 48, 65]


def test_grid_of_chosen_points():
    grid = TimeGrid(uneven_times(29)).coarsen(np.array(ANYWHERE))
    assert grid.fine_index.tolist() == list(ANYWHERE)
    step = grid.steps(3)
    assert (step.first, step.last, step.num_fine) == (3, 7, 5)
    assert (step.start, step.stop) == (uneven_times(29)[2], uneven_times(29)[7])
    below = grid.coarsen(3)
    assert below.fine_index.tolist() == [0, 7, 14]
    assert below.steps(np.array([1, 2])).num_fine.tolist() == [7, 7]
    assert below.steps(slice(1, 3)).last.tolist() == [7, 14]


def test_points_beyond_the_grid_are_refused():
    with pytest.raises(ValueError, match="C-point 26 on level 0, whose points are 0\\.\\.20"):
        MGRIT(Swirl(), uneven_times(20), MGRITOptions(coarsening=(ANYWHERE,)))


def test_adjoint_with_factor_one_and_weights():
    options = MGRITOptions(levels=3, coarsening=(1, 2), relax_weight=0.9, tolerance=1e-14)
    forward = MGRIT(Dahlquist(-1.0), np.arange(9.0), options)
    gradient = AdjointSolver(forward).solve(forward.solve(1.0), 1.0)
    assert gradient.initial_gradient == pytest.approx(2.0**-8, rel=1e-13)
