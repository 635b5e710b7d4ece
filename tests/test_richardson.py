"""Richardson extrapolation and error estimates, against plain loops and closed solutions."""

from itertools import pairwise

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, Delta, MGRITOptions, Propagator, Richardson, TimeGrid
from pint.models.dahlquist import Dahlquist
from tests.engine_models import Drift, Forced, uneven_times
from tests.test_implicit import Own


def extrapolated(model, times, points, order):
    """Return the states at the C-points by extrapolating interval after interval."""
    states = [1.0]
    for begin, end in pairwise(points):
        fine = coarse = states[-1]
        for start, stop in zip(times[begin:end], times[begin + 1 : end + 1], strict=True):
            fine = fine * model.factor(stop - start)
        length = times[end] - times[begin]
        coarse = coarse * model.factor(length)
        error = np.sum(np.diff(times[begin : end + 1]) ** (order + 1))
        a = length ** (order + 1) / (length ** (order + 1) - error)
        states.append(a * fine + (1 - a) * coarse)
    return np.array(states)


class Decay(Propagator):
    """u' = -u by backward Euler or the trapezoidal rule."""

    state_shape, dtype, batched = (), np.dtype(float), True

    def __init__(self, order):
        self.order = order

    def factor(self, dt):
        return 1 / (1 + dt) if self.order == 1 else (1 - dt / 2) / (1 + dt / 2)

    def step(self, u, step):
        return u * self.factor(step.dt)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "ways",
    [
        {"coarsening": 2},
        {"coarsening": (3, 2), "levels": 3, "cycle": "F", "relax_weight": 0.9},
        {"coarsening": ((0, 2, 5, 9, 12, 16, 21, 23, 27), 2), "levels": 3, "relax": 0},
        {"coarsening": 4, "skip_first_down": False, "residual_points": "all_points"},
    ],
    ids=str,
)
def test_solution_is_that_of_extrapolated_intervals(ways, order):
    times, model = uneven_times(29), Decay(order)
    options = MGRITOptions(
        richardson=Richardson(order, extrapolate=True), **{"tolerance": 1e-14} | ways
    )
    result = MGRIT(model, times, options).solve(1.0)
    given = options.coarsening_of(0)
    points = given if isinstance(given, tuple) else range(0, 30, given)
    expected = extrapolated(model, times, list(points), order)
    np.testing.assert_allclose(result.u[list(points)], expected, rtol=1e-12)
    f_points = [i for i in range(1, 30) if i not in points]
    phi = [result.u[i - 1] * model.factor(times[i] - times[i - 1]) for i in f_points]
    np.testing.assert_allclose(result.u[f_points], phi, rtol=1e-14)


@pytest.mark.parametrize("weight", [1.0, 0.8])
def test_cycles_are_those_of_plain_loops(weight):
    """Two levels, every second point; C-relaxation extrapolates from the second cycle on."""
    t, residuals = uneven_times(20), []
    dt, every = np.diff(t), np.arange(2, 21, 2)
    DT = t[every] - t[every - 2]
    a = DT**2 / (DT**2 - dt[every - 2] ** 2 - dt[every - 1] ** 2)
    u = np.full(21, 0.3)
    u[0] = 1.0
    for k in range(3):
        u[1::2] = u[:-1:2] / (1 + dt[::2])
        fine, coarse = u[1::2] / (1 + dt[1::2]), u[:-1:2] / (1 + DT)
        u[2::2] += weight * ((a * fine + (1 - a) * coarse if k else fine) - u[2::2])
        u[1::2] = u[:-1:2] / (1 + dt[::2])
        fine, coarse = u[1::2] / (1 + dt[1::2]), u[:-1:2] / (1 + DT)
        residuals.append(np.linalg.norm(a * fine + (1 - a) * coarse - u[2::2]))
        for c, g in enumerate(a * (fine - coarse)):
            u[2 * c + 2] = u[2 * c] / (1 + DT[c]) + g
    options = MGRITOptions(
        richardson=Richardson(1, extrapolate=True),
        max_iterations=3,
        skip_first_down=False,
        relax_weight=weight,
    )
    result = MGRIT(Decay(1), t, options).solve(1.0, 0.3)
    np.testing.assert_allclose(result.residuals, residuals, rtol=1e-10)


@pytest.mark.parametrize(("order", "raised"), [(1, 2), (2, 4)])
def test_extrapolation_raises_the_order(order, raised):
    """By one; by two for the trapezoidal rule, whose errors have even powers of dt only."""
    errors = []
    for num_steps in (32, 64, 128, 256):
        options = MGRITOptions(richardson=Richardson(order, extrapolate=True), tolerance=1e-14)
        grid = TimeGrid.uniform(0, 1, num_steps)
        result = MGRIT(Decay(order), grid, options).solve(1.0)
        errors.append(abs(result.u[-1] - np.exp(-1)))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(slopes - raised).max() < 0.1, slopes


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("richardson", [False, True])
def test_estimates_are_the_errors_of_steps(richardson, driver):
    """Of backward Euler u (1 / (1 + dt) - exp(-dt)), also behind the last C-point."""
    times = np.cumsum(np.concatenate([[0.0], 1e-3 * (1.5 + np.sin(np.arange(41.0)))]))
    options = MGRITOptions(
        coarsening=3, richardson=Richardson(1, richardson), tolerance=1e-13, driver=driver
    )
    result = MGRIT(Dahlquist(), times, options).solve(1.0)
    dt = np.diff(times)
    exact = result.u[:-1] * (1 / (1 + dt) - np.exp(-dt))
    assert result.error_estimates.shape == (41,)
    np.testing.assert_allclose(result.error_estimates, exact, rtol=0.02)


def test_estimates_are_in_the_norm_of_the_model():
    class Scaled(Decay):
        def norm(self, u):
            return 7 * abs(float(u))

    options, times = MGRITOptions(richardson=Richardson(2), tolerance=1e-13), uneven_times(20)
    plain = MGRIT(Decay(2), times, options).solve(1.0)
    scaled = MGRIT(Scaled(2), times, options).solve(1.0)
    np.testing.assert_allclose(scaled.error_estimates, 7 * plain.error_estimates, rtol=1e-12)


def test_estimating_changes_no_state():
    times = uneven_times(40)
    plain = MGRIT(Forced(), times, MGRITOptions(levels=3)).solve(1.0)
    estimating = MGRIT(Forced(), times, MGRITOptions(levels=3, richardson=Richardson(1))).solve(1.0)
    assert np.array_equal(plain.u, estimating.u)
    assert np.array_equal(plain.residuals, estimating.residuals, equal_nan=True)
    assert plain.error_estimates is None


def test_the_adjoint_is_one_of_plain_steps():
    grid = TimeGrid.uniform(0, 1, 8)
    forward = MGRIT(Dahlquist(), grid, MGRITOptions(richardson=Richardson(1), tolerance=1e-13))
    gradient = AdjointSolver(forward).solve(forward.solve(1.0), 1.0)
    assert gradient.initial_gradient == pytest.approx((8 / 9) ** 8, rel=1e-12)
    extrapolating = MGRIT(
        Dahlquist(), grid, MGRITOptions(richardson=Richardson(1, extrapolate=True))
    )
    with pytest.raises(ValueError, match="set extrapolate=False"):
        AdjointSolver(extrapolating)


@pytest.mark.parametrize(
    ("model", "num_steps", "changes", "message"),
    [
        (Drift(), 20, {}, "Drift's states differ in space"),
        (Own(), 20, {}, "Own has a residual of its own"),
        (Dahlquist(), 3, {}, "3 steps give one"),
        (Dahlquist(), 20, {"coarsening": ((0, 2, 3, 8),)}, "and there is 1: use a coarsening"),
    ],
    ids=["space", "own", "short", "neighbours"],
)
def test_where_errors_cannot_be_estimated(model, num_steps, changes, message):
    with pytest.raises(ValueError, match=message):
        MGRIT(model, np.arange(num_steps + 1.0), MGRITOptions(richardson=Richardson(1), **changes))


def test_sources_are_no_errors_of_steps():
    with pytest.raises(ValueError, match="coarse steps have no sources"):
        MGRIT(Dahlquist(), np.arange(9.0), MGRITOptions(richardson=Richardson(1))).solve(
            1.0, sources=np.zeros(9)
        )


@pytest.mark.parametrize(("order", "message"), [(0, "at least 1, got 0"), (1.5, "an integer")])
def test_bad_orders(order, message):
    with pytest.raises(ValueError, match=f"integrator_order must be {message}"):
        Richardson(order)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"levels": 1}, "richardson and levels 1"),
        ({"coarsening": (1, 2)}, "richardson and coarsening 1 on the finest level"),
        ({"delta": Delta(1)}, "richardson and delta"),
        ({"local_tolerance": 1e-3}, "richardson and local_tolerance"),
    ],
)
def test_bad_options(other, message):
    with pytest.raises(ValueError, match=message):
        MGRITOptions(richardson=Richardson(1), **other)
