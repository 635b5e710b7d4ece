"""The adjoint with every option of the cycle: solved as the forward problem is."""

import math

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Status, TimeGrid
from pint.models.dahlquist import Dahlquist
from tests.engine_models import Drift, Swirl, uneven_times
from tests.option_choices import CHOICES, POINTS

NUM_STEPS = 41
TIMES = uneven_times(NUM_STEPS)
START = np.array([0.5, -0.3, 0.8])


def options_of(choice, **changes):
    return MGRITOptions(**{"levels": 3, "skip_first_down": False} | CHOICES[choice] | changes)


@pytest.mark.parametrize("choice", CHOICES)
def test_cycles_backwards_are_those_forwards(choice):
    """A number times the state is its own transpose: both ways have equal residuals."""
    grid = TimeGrid.uniform(0.0, 0.3 * NUM_STEPS, NUM_STEPS)
    options = options_of(choice, max_iterations=5, driver="loop")
    solver = MGRIT(Dahlquist(-1.3), grid, options)
    guess = np.random.default_rng(2).normal(size=NUM_STEPS + 1)
    forward = solver.solve(1.0, guess)
    backward = AdjointSolver(solver).solve(forward, 1.0, guess=guess)
    np.testing.assert_allclose(backward.residuals, forward.residuals, rtol=1e-10, atol=1e-14)
    assert np.isfinite(forward.residuals[1:]).all()
    assert backward.initial_gradient == pytest.approx(float(forward.u[-1]), rel=1e-12)


@pytest.mark.parametrize("driver", ["loop", "stack"])
@pytest.mark.parametrize("choice", CHOICES)
def test_gradients_are_those_of_stepping(choice, driver):
    model = Swirl(0.6, batched=driver == "stack")
    stepping = MGRIT(model, TIMES, MGRITOptions(levels=1))
    result = stepping.solve(START)
    sources = np.cos(np.arange(3 * result.u.shape[0])).reshape(-1, 3)
    exact = AdjointSolver(stepping).solve(result, START, sources)
    options = options_of(choice, driver=driver, tolerance=1e-12, max_iterations=60)
    solver = MGRIT(model, TIMES, options)
    found = AdjointSolver(solver).solve(solver.solve(START), START, sources)
    # Points that are left alone keep the residual that the local tolerance allows them.
    atol = 1e-2 if "local_tolerance" in CHOICES[choice] else 1e-10
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.initial_gradient, exact.initial_gradient, atol=atol)
    np.testing.assert_allclose(found.parameter_gradient, exact.parameter_gradient, atol=10 * atol)


@pytest.mark.parametrize("choice", [name for name in CHOICES if "tolerance" not in name])
def test_levels_in_space(choice):
    """Drift is not symmetric, and every level has half the nodes of the one above it.

    F-relaxation alone would leave what coarse nodes cannot see.
    """
    model, times = Drift(15), np.linspace(0, 0.2, NUM_STEPS + 1)
    settings = CHOICES[choice] | {"levels": 3, "tolerance": 1e-12, "max_iterations": 80}
    settings["relax"] = settings.get("relax", 1) or 1
    options = MGRITOptions(**{"skip_first_down": False} | settings)
    start, end = np.sin(np.arange(15.0)), np.cos(np.arange(15.0))
    solver = MGRIT(model, times, options)
    found = AdjointSolver(solver).solve(solver.solve(start), end)
    w = end
    for i in range(NUM_STEPS, 0, -1):
        w = model.adjoint_step(w, start, TimeGrid(times).steps(i))
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.initial_gradient, w, atol=1e-11)


def test_norms_of_a_model_are_not_those_of_its_adjoint():
    class Weighing(Swirl):
        def norm(self, u):
            return math.sqrt(u @ np.diag([2.0, 1.0, 3.0]) @ u)

    found = {}
    for model in (Swirl(), Weighing()):
        solver = MGRIT(model, TIMES, options_of("F-cycles", max_iterations=2))
        found[type(model)] = AdjointSolver(solver).solve(solver.solve(START), START).residuals
    assert np.array_equal(found[Swirl], found[Weighing])


def test_chosen_points_are_refused():
    options = MGRITOptions(levels=3, **POINTS["chosen C-points"])
    with pytest.raises(ValueError, match="the adjoint needs coarsening factors, not indices"):
        AdjointSolver(MGRIT(Swirl(), TIMES, options))
