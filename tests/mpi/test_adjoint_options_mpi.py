"""The adjoint with every option of the cycle on many processes: the bits of one process."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions
from pint.comm import world
from tests.engine_models import Swirl, uneven_times
from tests.option_choices import CHOICES, POINTS

COMM = world()
START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(41)


def solve(options, comm):
    solver = MGRIT(Swirl(0.9), TIMES, options, comm)
    return AdjointSolver(solver).solve(solver.solve(START), START)


@pytest.mark.parametrize("choice", CHOICES)
def test_bits(choice):
    plain = {"levels": 3, "max_iterations": 4, "skip_first_down": False, "driver": "loop"}
    options = MGRITOptions(**plain | CHOICES[choice])
    serial, parallel = solve(options, None), solve(options, COMM)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.initial_gradient, serial.initial_gradient)
    np.testing.assert_allclose(parallel.parameter_gradient, serial.parameter_gradient, rtol=1e-12)


def test_chosen_points_are_refused_on_every_rank():
    with pytest.raises(ValueError, match="the adjoint needs coarsening factors"):
        solve(MGRITOptions(levels=3, **POINTS["chosen C-points"]), COMM)
    assert COMM.sum(np.array([1])).tolist() == [COMM.size]  # and nobody waits for a message
