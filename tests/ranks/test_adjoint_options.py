"""The adjoint with every option of the cycle on many processes: the bits of one process."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, LocalGrids, MGRITOptions
from pint.parallel.comm import world
from tests.engine_models import Swirl, uneven_times
from tests.option_choices import CHOICES, POINTS

START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(41)


def solve(options, comm, batched=False):
    solver = MGRIT(Swirl(0.9, batched=batched), TIMES, options, comm)
    return AdjointSolver(solver).solve(solver.solve(START), START)


@pytest.mark.parametrize("choice", CHOICES)
def test_bits(choice):
    plain = {"levels": 3, "max_iterations": 4, "skip_first_down": False, "driver": "loop"}
    options = MGRITOptions(**plain | CHOICES[choice])
    serial, parallel = solve(options, None), solve(options, world())
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.initial_gradient, serial.initial_gradient)
    np.testing.assert_allclose(parallel.parameter_gradient, serial.parameter_gradient, rtol=1e-12)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("truncation", [2, 3, 6, 40])
def test_truncated_grids_are_linearized_where_they_are(truncation, batched):
    options = MGRITOptions(
        levels=2, coarsening=2, max_iterations=3, coarsest=LocalGrids(truncation)
    )
    serial, parallel = (solve(options, comm, batched=batched) for comm in (None, world()))
    assert np.array_equal(parallel.initial_gradient, serial.initial_gradient)
    np.testing.assert_allclose(parallel.parameter_gradient, serial.parameter_gradient, rtol=1e-12)


@pytest.mark.parametrize("truncation", [2, 3, 6, 40])
def test_a_rank_linearizes_the_points_of_its_own_grids(truncation):
    linearized = []

    class Noting(Swirl):
        def linearize(self, u, step):
            linearized.append((step.level, np.size(step.last)))
            return super().linearize(u, step)

    options = MGRITOptions(
        levels=2, coarsening=2, max_iterations=2, coarsest=LocalGrids(truncation)
    )
    forward = MGRIT(Noting(0.9, batched=True), TIMES, options, world())
    adjoint = AdjointSolver(forward)
    adjoint.solve(forward.solve(START), START)
    block = adjoint.solver.hierarchy.levels[1].block
    begin = max(block.start - truncation + 1, 0) if block else block.start
    steps = max(block.stop - begin - 1, 0)  # no step leads to the first of them
    assert sum(count for level, count in linearized if level == 1) == steps
    assert adjoint.own_steps()[1].last.size == steps


def test_chosen_points_are_refused_on_every_rank():
    with pytest.raises(ValueError, match="the adjoint needs coarsening factors"):
        solve(MGRITOptions(levels=3, **POINTS["chosen C-points"]), world())
    assert world().sum(np.array([1])).tolist() == [world().size]  # and no rank waits for a message
