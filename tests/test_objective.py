"""Objectives: sums of terms, warm starts, and what is refused."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Objective, TimeGrid, value_and_gradient
from pint.models.dahlquist import Dahlquist

MEAN_SQUARE = Objective(running=lambda u, index, times: (u**2 / 50, u / 25))


def solver(**options):
    options = MGRITOptions(**{"tolerance": 1e-13, **options})
    return AdjointSolver(MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0.0, 25.0, 50), options))


def test_terms_and_their_derivatives_add_up():
    every = Objective(
        running=lambda u, index, times: (-times * u, -times),
        terminal=lambda u: (u**3, 3 * u**2),
        of_parameters=lambda theta: (theta[0] ** 4, 4 * theta**3),
    )
    found = value_and_gradient(every, solver(), 2.0)
    i = np.arange(51)
    u, times = 2 * (2 / 3.0) ** i, i / 2
    assert found.value == pytest.approx(-times @ u + u[-1] ** 3 + 1, rel=1e-12)
    # du_i/du_0 = (2/3)^i and du_i/dlambda = i dt u_i (2/3)
    assert found.initial_gradient == pytest.approx(-times @ u / 2 + 3 * u[-1] ** 3 / 2, rel=1e-12)
    by_rate = i / 3 * u
    expected = -times @ by_rate + 3 * u[-1] ** 2 * by_rate[-1] - 4
    assert found.parameter_gradient == pytest.approx([expected], rel=1e-12)


def test_a_warm_start_at_the_solution_leaves_nothing_to_do():
    warm = solver(skip_first_down=False)
    first = value_and_gradient(MEAN_SQUARE, warm, 1.0)
    again = value_and_gradient(MEAN_SQUARE, warm, 1.0, first)
    assert first.forward.num_iterations > 4
    assert first.backward.residuals.size > 4
    assert again.forward.num_iterations == 1
    assert again.backward.residuals.size == 1
    assert again.value == pytest.approx(first.value, rel=1e-12)


def test_warm_starts_that_nobody_would_look_at_are_refused():
    cold = solver()
    first = value_and_gradient(MEAN_SQUARE, cold, 1.0)
    with pytest.raises(ValueError, match="the forward solver starts without a guess"):
        value_and_gradient(MEAN_SQUARE, cold, 1.0, first)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"running": lambda u, i, t: (u, u[:-1])}, r"running's derivatives have shape \(50,\)"),
        ({"running": lambda u, i, t: (1.0, u)}, r"running's values have shape \(\), expected \(51"),
        ({"terminal": lambda u: (u, np.ones(2))}, r"terminal's derivative have shape \(2,\)"),
        ({"of_parameters": lambda p: (1.0, 1.0)}, r"of_parameters' derivative have shape \(\)"),
    ],
)
def test_wrong_shapes_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        value_and_gradient(Objective(**objective), solver(), 1.0)


def test_an_objective_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one of its terms"):
        Objective()
