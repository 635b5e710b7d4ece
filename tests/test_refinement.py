"""Refinement during a solve: the grids it makes, what it solves there, and what it refuses."""

import numpy as np
import pytest

from pint import (
    MGRIT,
    AdjointSolver,
    Delta,
    MGRITOptions,
    Refinement,
    Richardson,
    Status,
    TimeGrid,
    open_run,
    solve,
)
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat
from pint.results import write_result
from tests.engine_models import CompiledSwirl, Drift, Swirl, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(23)


class Splitting:
    """Splits steps by their state: into none, two or three parts, or at a golden section."""

    def refine(self, new, u, step, error):
        way = int(abs(np.sum(new) + np.sum(u)) * 8) % 4
        if step.dt < 0.02 or way == 0:
            return 1
        return (step.start + 0.382 * step.dt, step.stop) if way == 1 else way


class SplittingSwirl(Splitting, Swirl):
    pass


class SplittingDahlquist(Splitting, Dahlquist):
    pass


class Between(Dahlquist):
    """Splits the steps between two times into `parts` parts, once."""

    def __init__(self, parts=2, begin=-np.inf, end=np.inf, longest=0.0):
        super().__init__(-1.0)
        self.parts, self.begin, self.end, self.longest = parts, begin, end, longest

    def refine(self, new, u, step, error):
        inside = self.begin <= step.start < self.end and step.dt > self.longest
        return self.parts if inside else 1


WAYS = [
    {"levels": 2, "coarsening": 4},
    {"levels": 5, "cycle": "F", "skip_first_down": False},
    {"levels": 3, "coarsening": (1, 3), "relax": 0, "coarsest": "pipelined"},
    {"levels": 3, "residual_points": "all_points", "coarsest": "relaxation", "relax": 2},
    {"levels": 1},
    {"levels": 3, "refinement": Refinement(3, below_residual=1e-3)},
]


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_solution_is_that_of_the_last_grid(ways, driver):
    if driver == "compiled":
        model, start = SplittingDahlquist(-1.0), 1.0
    else:
        model, start = SplittingSwirl(0.5, batched=driver == "stack"), START
    options = MGRITOptions(
        **{"refinement": Refinement(3), "tolerance": 1e-13, "driver": driver} | ways
    )
    result = MGRIT(model, TIMES, options).solve(start)
    assert result.status is (Status.STEPPED if options.levels == 1 else Status.CONVERGED)
    assert np.unique(result.grid_steps).size == 4
    assert result.grid_steps[-1] == result.times.size - 1 > 40
    assert np.isin(TIMES, result.times).all()
    assert result.grid_steps.size == result.num_iterations
    exact = stepped(model, result.times, start)
    np.testing.assert_allclose(result.u.ravel(), exact.ravel(), rtol=0, atol=1e-11)
    again = MGRIT(model, result.times, options).solve(start)
    assert result.coarsening == again.coarsening[: len(result.coarsening)]


@pytest.mark.parametrize("m", [2, 3])
def test_old_points_keep_their_states_and_new_ones_are_stepped_to(m):
    """Seen by the first residual after the refinement, against a plain loop."""
    times, model = uneven_times(10), Between(3, 0.3, 0.9)
    options = MGRITOptions(
        levels=2,
        coarsening=m,
        relax=0,
        refinement=Refinement(1),
        max_iterations=2,
        skip_first_down=False,
    )
    states = []
    solver = MGRIT(model, times, options)
    result = solver.solve(
        1.0, 0.3, on_iteration=lambda k, norm: states.append(solver.states.copy())
    )
    old, dt = states[0], np.diff(result.times)
    assert (old.size, dt.size) == (11, result.grid_steps[1])
    u = np.full(dt.size + 1, np.nan)
    u[np.isin(result.times, times)] = old
    for i in range(1, u.size):
        if np.isnan(u[i]):
            u[i] = u[i - 1] / (1 + dt[i - 1])
    for i in range(1, u.size):  # F-relaxation
        if i % m:
            u[i] = u[i - 1] / (1 + dt[i - 1])
    r = [u[i - 1] / (1 + dt[i - 1]) - u[i] for i in range(m, u.size, m)]
    assert result.residuals[1] == pytest.approx(np.linalg.norm(r), rel=1e-12)


def test_levels_come_with_points():
    options = MGRITOptions(levels=9, min_coarse=3, refinement=Refinement(2), tolerance=1e-12)
    result = MGRIT(Between(3), TimeGrid.uniform(0, 1, 5), options).solve(1.0)
    assert result.grid_steps.tolist()[:3] == [5, 15, 45]  # levels 1, 3 and 4
    assert result.coarsening == (2, 2, 2)
    assert set(result.num_steps) == {0, 1, 2, 3}
    assert result.status is Status.CONVERGED
    assert abs(result.u[-1] - (1 + 1 / 45) ** -45) < 1e-12


def test_the_time_stepping_of_a_short_grid_is_enough_without_refinement():
    options = MGRITOptions(refinement=Refinement(2), min_coarse=3)
    result = MGRIT(Between(1), TimeGrid.uniform(0, 1, 5), options).solve(1.0)
    assert result.status is Status.STEPPED
    assert result.grid_steps.tolist() == [5]


@pytest.mark.parametrize(
    ("limits", "cycles", "steps"),
    [
        (Refinement(1), 40, [20, 20, 40]),
        (Refinement(9, max_points=81), 40, [20, 20, 40, 80]),
        (Refinement(9, max_points=80), 40, [20, 20, 40]),
        (Refinement(9, max_points=20), 40, [20, 20]),
        (Refinement(9), 3, [20, 20, 40]),
    ],
    ids=str,
)
def test_limits(limits, cycles, steps):
    options = MGRITOptions(tolerance=1e-9, max_iterations=cycles, refinement=limits)
    result = MGRIT(Between(2), TimeGrid.uniform(0, 1, 20), options).solve(1.0)
    assert result.grid_steps[: len(steps)].tolist() == steps
    assert result.grid_steps[-1] == steps[-1]
    expected = (
        f"{2 * steps[-1] + 1} points would be more than max_points" if limits.max_points else ""
    )
    assert result.refinement_limit == expected


def test_a_limit_holds_before_the_points_are_made():
    """All of them would take 8 TB."""
    options = MGRITOptions(refinement=Refinement(1, max_points=1000), tolerance=1e-9)
    result = MGRIT(Between(10**12, 0.5, 0.55), TIMES, options).solve(1.0)
    assert result.refinement_limit.startswith("1000000000023 points")
    assert result.status is Status.CONVERGED


def test_a_limit_of_points_is_none_of_space():
    options = MGRITOptions(refinement=Refinement(1, max_points=24), tolerance=1e-9)
    result = MGRIT(Growing(5), TIMES, options).solve(np.zeros(5))
    assert result.u.shape == (24, 9)
    assert result.refinement_limit == ""


def test_refinement_waits_for_a_small_residual():
    options = MGRITOptions(refinement=Refinement(2, below_residual=1e-5), tolerance=1e-9)
    result = MGRIT(Between(2), TimeGrid.uniform(0, 1, 20), options).solve(1.0)
    grows = np.flatnonzero(np.diff(result.grid_steps))
    assert grows.size == 2
    assert (result.residuals[grows] < 1e-5).all()
    others = np.setdiff1d(np.arange(1, grows[-1]), grows)
    assert (result.residuals[others] >= 1e-5).all()


def test_estimated_errors_choose_the_points():
    """A stiff decay onto a slow one: all short steps are where it is fast."""
    tolerance = 1e-5
    options = MGRITOptions(
        levels=4,
        richardson=Richardson(1),
        refinement=Refinement(12, error_tolerance=tolerance, factor=8, below_residual=1e-4),
        tolerance=1e-9,
    )
    model = Dahlquist(-30.0)
    result = MGRIT(model, TimeGrid.uniform(0, 2, 50), options).solve(1.0)
    dt, u = np.diff(result.times), result.u
    exact = np.abs(u[:-1] * (1 / (1 + 30 * dt) - np.exp(-30 * dt)))
    assert exact.max() < 1.5 * tolerance
    assert result.error_estimates.max() <= tolerance
    assert dt[result.times[:-1] > 0.6].min() == pytest.approx(0.04)  # nothing happens there
    uniform = MGRIT(model, TimeGrid.uniform(0, 2, dt.size), MGRITOptions(levels=1)).solve(1.0)
    errors = [np.abs(one.u - np.exp(-30 * one.times)).max() for one in (result, uniform)]
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
def test_the_next_solve_begins_with_the_given_grid(driver):
    options = MGRITOptions(
        levels=3, refinement=Refinement(2), tolerance=1e-10, driver=driver, skip_first_down=False
    )
    solver = MGRIT(Between(3, 0.0, 0.5), TIMES, options)
    first, second = solver.solve(1.0, 0.5), solver.solve(1.0, 0.5)
    assert np.array_equal(first.u, second.u)
    assert np.array_equal(first.residuals, second.residuals)
    assert first.num_steps == second.num_steps
    assert solver.grid.num_steps == 23


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
def test_a_solve_after_one_that_failed(driver):
    """It has left the driver with another grid."""

    class Failing(Dahlquist):
        def refine(self, new, u, step, error):
            return 0 if self.fails and step.last > 30 else 3

    options = MGRITOptions(
        levels=3,
        refinement=Refinement(3, below_residual=1e-3, max_points=100),
        tolerance=1e-9,
        driver=driver,
    )
    model = Failing()
    solver = MGRIT(model, TIMES, options)
    model.fails = True
    with pytest.raises(ValueError, match="the factor must be at least 1"):
        solver.solve(1.0)
    model.fails = False
    assert np.array_equal(solver.solve(1.0).u, MGRIT(model, TIMES, options).solve(1.0).u)


def test_compiled_cycles_after_refinement_are_those_of_the_new_grid():
    model = CompiledSwirl(0.5, coarsening=(2,) * 6)
    grow = type("Grow", (CompiledSwirl,), {"refine": lambda self, new, u, step, error: 2})
    options = MGRITOptions(levels=4, refinement=Refinement(1), tolerance=1e-12, driver="compiled")
    result = MGRIT(grow(0.5, coarsening=(2,) * 6), TIMES, options).solve(START)
    exact = stepped(model, result.times, START)
    np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-11)


def test_adjoint_on_the_last_grid():
    options = MGRITOptions(levels=3, refinement=Refinement(1), tolerance=1e-13)
    forward = MGRIT(Between(2), TimeGrid.uniform(0, 1, 8), options)
    result = forward.solve(1.0)
    with pytest.raises(ValueError, match="times or layout differ"):
        AdjointSolver(forward).solve(result, 1.0)
    fixed = MGRIT(Dahlquist(), result.times, MGRITOptions(levels=3, tolerance=1e-13))
    gradient = AdjointSolver(fixed).solve(fixed.solve(1.0), 1.0)
    assert gradient.initial_gradient == pytest.approx((16 / 17) ** 16, rel=1e-12)


def test_the_file_has_the_last_grid(tmp_path):
    options = MGRITOptions(levels=3, refinement=Refinement(2), tolerance=1e-9)
    result = MGRIT(Between(3, 0.0, 0.5), TIMES, options).solve(1.0)
    write_result(tmp_path / "a.h5", result, options)
    run = open_run(tmp_path / "a.h5")
    assert np.array_equal(run.times, result.times)
    assert np.array_equal(np.asarray(run.solution), result.u)
    assert run.options["solver"]["refinement.max_refinements"] == 2


# --- Space ---------------------------------------------------------------------------------------


class Growing(Heat):
    """Heat with twice the intervals after each of the first two refinements."""

    def __init__(self, num_nodes, **more):
        super().__init__(num_nodes, np.pi, **more)

    def refined_model(self, refinement):
        return Growing(2 * self.state_shape[0] - 1) if refinement < 2 else None

    def prolong(self, u, time):
        fine = np.zeros(2 * len(u) - 1)
        fine[::2] = u
        fine[1::2] = (u[1:] + u[:-1]) / 2
        return np.sin(np.linspace(0, np.pi, fine.size)) if time == 0 else fine


class GrowingBoth(Growing):
    """And with steps cut in two where they are early."""

    def refine(self, new, u, step, error):
        return 2 if step.start < 0.25 else 1

    def refined_model(self, refinement):
        return GrowingBoth(2 * self.state_shape[0] - 1) if refinement < 2 else None


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("kind", [Growing, GrowingBoth])
def test_states_grow(kind, driver):
    options = MGRITOptions(levels=3, refinement=Refinement(3), tolerance=1e-12, driver=driver)
    model = kind(9)
    solver = MGRIT(model, TimeGrid.uniform(0, 1, 40), options)
    result = solver.solve(np.sin(np.linspace(0, np.pi, 9)))
    assert result.status is Status.CONVERGED
    assert result.propagator.state_shape == result.u.shape[1:] == (33,)
    assert model.state_shape == (9,)
    start = np.sin(np.linspace(0, np.pi, 33))
    exact = solve(Heat(33, np.pi), result.times, start, MGRITOptions(levels=1)).u
    np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-11)
    assert np.array_equal(solver.solve(start[::4]).u, result.u)


def test_levels_that_differ_in_space_grow():
    class Grown(Drift):
        def refined_model(self, refinement):
            return Drift(31) if refinement == 0 else None

        def prolong(self, u, time):
            return self.interpolate(u, 0)

    start = np.random.default_rng(5).normal(size=15)
    options = MGRITOptions(levels=3, refinement=Refinement(1), tolerance=1e-11)
    result = MGRIT(Grown(), np.linspace(0, 0.2, 38), options).solve(start)
    exact = stepped(Drift(31), result.times, Drift(31).interpolate(start, 0))
    np.testing.assert_allclose(result.u, exact, rtol=0, atol=1e-9)


# --- Errors --------------------------------------------------------------------------------------


class Answering(Dahlquist):
    """Gives an answer of a test."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def refine(self, new, u, step, error):
        return self.answer(step) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (0, ValueError, r"returned 0 for the step to point 1, .* the factor must be at least 1"),
        (-3, ValueError, "the factor must be at least 1, got -3"),
        (True, ValueError, "the factor must be an integer, got True"),
        (None, TypeError, "refine returned None .* expected an integer or the ends of sub-steps"),
        ("two", TypeError, "expected an integer or the ends"),
        (1.5, ValueError, "ends of sub-steps must increase"),
        ([], ValueError, "ends of sub-steps must increase from after 0.0 to"),
        ([np.nan], ValueError, "ends of sub-steps must increase"),
        (lambda step: [step.start, step.stop], ValueError, "ends of sub-steps must increase"),
        (lambda step: [step.stop - 0.001], ValueError, "ends of sub-steps must increase"),
        (lambda step: [[step.stop]], ValueError, "ends of sub-steps must increase"),
        (lambda step: 1 / 0, ZeroDivisionError, "division by zero"),
    ],
    ids=range(12),
)
def test_wrong_answers(answer, kind, message):
    solver = MGRIT(
        Answering(answer), TIMES, MGRITOptions(refinement=Refinement(1), max_iterations=3)
    )
    with pytest.raises(kind, match=message):
        solver.solve(1.0)


def heat_that(**methods):
    return type("Wrong", (Heat,), methods)(5, 1.0)


@pytest.mark.parametrize(
    ("methods", "kind", "message"),
    [
        (
            {"refined_model": lambda self, k: 3, "prolong": lambda self, u, time: u},
            TypeError,
            "refined_model returned int, expected a Propagator",
        ),
        (
            {"refined_model": lambda self, k: Heat(9)},
            ValueError,
            "has refined_model but no prolong",
        ),
        (
            {"refined_model": lambda self, k: Heat(9), "prolong": lambda self, u, time: u},
            ValueError,
            r"prolong returned shape \(5,\), the states of the finer model have \(9,\)",
        ),
    ],
)
def test_wrong_spaces(methods, kind, message):
    options = MGRITOptions(refinement=Refinement(1), max_iterations=3)
    with pytest.raises(kind, match=message):
        MGRIT(heat_that(**methods), TIMES, options).solve(np.zeros(5))


def test_someone_must_say_where():
    with pytest.raises(ValueError, match="set richardson and error_tolerance, or give Dahlquist a"):
        MGRIT(Dahlquist(), TIMES, MGRITOptions(refinement=Refinement(1)))
    options = MGRITOptions(refinement=Refinement(1, error_tolerance=1e-3), richardson=Richardson(1))
    with pytest.raises(ValueError, match="Between refines by its own method"):
        MGRIT(Between(), TIMES, options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1,), "max_refinements must be at least 1, got -1"),
        ((1, None, 2, None, 1), "max_points must be at least 2, got 1"),
        ((1, None, 4), "factor needs error_tolerance"),
        ((1, 1e-3, 1), "factor must be at least 2, got 1"),
    ],
)
def test_bad_groups(values, message):
    with pytest.raises(ValueError, match=message):
        Refinement(*values)


def test_sources_are_not_known_at_new_points():
    with pytest.raises(ValueError, match="sources are not known at new points"):
        MGRIT(Between(), TIMES, MGRITOptions(refinement=Refinement(1))).solve(
            1.0, sources=np.zeros(24)
        )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"refinement": Refinement(1, error_tolerance=1e-3)}, "set richardson"),
        (
            {"refinement": Refinement(1, below_residual=1e-9), "tolerance": 1e-8},
            "would end before it refines",
        ),
        (
            {"refinement": Refinement(1, below_residual=1e-9), "residual_points": "none"},
            "refinement.below_residual and residual_points 'none'",
        ),
        ({"refinement": Refinement(1), "coarsening": (2, (0, 3))}, "need coarsening factors"),
        ({"refinement": Refinement(1), "delta": Delta(1)}, "refinement do not|delta do not"),
        ({"refinement": Refinement(1), "local_tolerance": 1e-3}, "refinement and local_tolerance"),
    ],
)
def test_bad_options(bad, message):
    with pytest.raises(ValueError, match=message):
        MGRITOptions(**bad)
