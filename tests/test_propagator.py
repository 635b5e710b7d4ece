"""A model is one method: everything works with `step` alone, and each more is a capability."""

import numpy as np
import pytest

import pint
from pint import MGRIT, AdjointSolver, Delta, MGRITOptions, Propagator, Refinement, TimeGrid
from pint.models.dahlquist import Dahlquist
from pint.propagator import CAPABILITIES, HasAdjoint, HasNorm, capabilities, has

GRID, START = TimeGrid.uniform(0, 4, 200), np.array([1, 0])


class Pendulum(Propagator):
    def step(self, u, step):
        velocity = (u[1] - step.dt * np.sin(u[0])) / (1 + step.dt / 5)
        return np.array([u[0] + step.dt * velocity, velocity])


class Splitting(Pendulum):
    def refine(self, new, u, step, error):
        return 2 if step.start < 1 else 1


class Differentiable(Pendulum):
    def tangent_step(self, v, u, step):
        slope = (v[1] - step.dt * np.cos(u[0]) * v[0]) / (1 + step.dt / 5)
        return np.array([v[0] + step.dt * slope, slope])

    def adjoint_step(self, w, u, step):
        slope = (w[1] + step.dt * w[0]) / (1 + step.dt / 5)
        return np.array([w[0] - step.dt * np.cos(u[0]) * slope, slope])


def stepped(grid=GRID):
    return MGRIT(Pendulum(), grid, MGRITOptions(levels=1)).solve(START)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Pendulum, {"levels": 3}),
        (Pendulum, {"storage": "c_points"}),
        (Differentiable, {"delta": Delta()}),
        (Differentiable, {"delta": Delta(1), "storage": "c_points"}),
    ],
)
def test_a_solve(model, options):
    options = MGRITOptions(**{"coarsening": 8, "tolerance": 1e-11} | options)
    result = pint.solve(model(), GRID, START, options)
    assert result.u.dtype == np.float64
    np.testing.assert_allclose(result.final_state(), stepped().final_state(), atol=1e-9)


def test_refinement_periodic_problems_and_windows():
    options = MGRITOptions(tolerance=1e-11, refinement=Refinement(1))
    refined = pint.solve(Splitting(), GRID, START, options)
    expected = stepped(TimeGrid(refined.times)).final_state()
    np.testing.assert_allclose(refined.final_state(), expected, atol=1e-9)
    assert refined.times.size == 251
    ring = pint.solve(Pendulum(), GRID, START, MGRITOptions(periodic=True, tolerance=1e-9))
    np.testing.assert_allclose(ring.u[0], ring.u[-1])
    options = MGRITOptions(tolerance=1e-11, skip_first_down=False)
    windows = pint.solve_in_windows(Pendulum(), GRID, START, 50, options, guess="shift")
    *_, last = windows
    np.testing.assert_allclose(last.final_state(), stepped().final_state(), atol=1e-9)


def test_the_adjoint():
    forward = MGRIT(Differentiable(), GRID, MGRITOptions(coarsening=8, tolerance=1e-12))
    gradient = AdjointSolver(forward).solve(forward.solve(START), [1, 0]).initial_gradient
    ends = [
        MGRIT(Pendulum(), GRID, MGRITOptions(levels=1)).solve([1 + h, 0]).final_state()[0]
        for h in (1e-5, -1e-5)
    ]
    assert gradient[0] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


def test_ranks_must_agree_about_the_shape():
    def final(comm, other):
        start = START if comm.rank == 0 else other
        return pint.solve(Pendulum(), GRID, start, MGRITOptions(tolerance=1e-11), comm).u[-1]

    *_, last = pint.run_on_threads(3, lambda comm: final(comm, [0, 0]))
    np.testing.assert_allclose(last, stepped().final_state(), atol=1e-9)
    with pytest.raises(ValueError, match="the ranks differ in shape or dtype"):
        pint.run_on_threads(3, lambda comm: final(comm, np.zeros(3)))


def test_states_may_change_their_shape_from_solve_to_solve():
    class Decay(Propagator):
        def step(self, u, step):
            return u / (1 + step.dt)

    solver = MGRIT(Decay(), GRID, MGRITOptions(tolerance=1e-11))
    assert solver.solve(1).u.shape == (201,)
    assert solver.solve(np.ones((2, 3), np.float32)).u.dtype == np.float32


def test_what_a_model_can_do():
    present, missing = capabilities(Differentiable())
    assert present == ["adjoint_step", "tangent_step"]
    assert len(present) + len(missing) == len(CAPABILITIES) + 4
    assert isinstance(Differentiable(), HasAdjoint)
    assert not has(Differentiable(), HasNorm)
    assert "kernel" in capabilities(Dahlquist())[0]
    text = str(pint.check_propagator(Pendulum(), START))
    assert text.startswith("step on level 0\n")
    assert "without adjoint_step: no gradients (AdjointSolver)" in text
    assert repr(Pendulum()) in text


def test_half_a_capability_is_refused():
    class Half(Pendulum):
        def restrict(self, u, level):
            return u

    for test in (lambda: MGRIT(Half(), GRID), lambda: pint.check_propagator(Half(), START)):
        with pytest.raises(ValueError, match="Half has restrict but no interpolate"):
            test()


def test_without_a_declared_shape_a_check_needs_a_state():
    with pytest.raises(TypeError, match="give check_propagator an initial value"):
        pint.check_propagator(Pendulum())
