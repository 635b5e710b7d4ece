"""The solver against theory, against a naive one, and against plain time stepping."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pint import MGRIT, MGRITOptions, Propagator, Status, TimeGrid, solve
from pint.grid.layout import Layout
from pint.models.dahlquist import Dahlquist
from pint.models.heat import Heat
from tests.engine_models import WAVES, Drift, Swirl, naive_mgrit, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])
NEUTRAL = 1.0
"""The gain with which nothing is forgotten, so that errors stay visible."""


def error_of(result, expected):
    """Return the largest error at each point."""
    return np.abs(result.u - expected).reshape(len(expected), -1).max(axis=1)


def with_start(states):
    """Put the initial value in front of the guess of all later points."""
    states = np.array(states)
    states[0] = START
    return states


# --- One level -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 2, 5, 24, 97])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "relaxation"])
@pytest.mark.parametrize("skip", [True, False])
def test_one_level_is_time_stepping(num_steps, coarsest, skip):
    times = uneven_times(num_steps)
    options = MGRITOptions(levels=1, coarsest=coarsest, skip_first_down=skip, tolerance=1e-9)
    result = MGRIT(Swirl(1.0), times, options).solve(START)
    assert result.u.tolist() == stepped(Swirl(1.0), times, START).tolist()
    assert result.status is Status.STEPPED
    assert np.isnan(result.residuals).tolist() == [True]
    assert (result.num_steps, result.coarsening) == ({0: num_steps}, ())


def test_so_is_a_grid_too_short_to_coarsen():
    times = uneven_times(7)
    result = MGRIT(Swirl(), times, MGRITOptions(levels=4, coarsening=4)).solve(START)
    assert result.status is Status.STEPPED
    assert result.u.tolist() == stepped(Swirl(), times, START).tolist()


# --- Theory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("relax", [0, 1, 2])
@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("m", [2, 4, 8])
@pytest.mark.parametrize("num_steps", [24, 29])
def test_each_iteration_makes_relax_plus_one_intervals_exact_and_no_more(
    num_steps, m, levels, relax
):
    """Hence F-relaxation is exact after N/m iterations, FCF after N/(2m), and not one earlier.

    Falgout et al., "Parallel time integration with multigrid", SIAM J. Sci. Comput. 36 (2014).
    """
    times = uneven_times(num_steps)
    exact = stepped(Swirl(NEUTRAL), times, START)
    enough = -(-(num_steps // m) // (relax + 1))
    for iterations in range(1, enough + 1):
        options = MGRITOptions(
            levels=levels,
            coarsening=m,
            relax=relax,
            max_iterations=iterations,
            skip_first_down=False,
        )
        solver = MGRIT(Swirl(NEUTRAL, batched=True), times, options)
        error = error_of(solver.solve(START, guess=0.1), exact)
        first_wrong = m * (iterations * (relax + 1) + 1)
        assert error[:first_wrong].max() < 1e-13
        if iterations < enough:
            assert error[first_wrong] > 1e-9


@pytest.mark.parametrize("relax", [0, 1])
def test_first_cycle_of_skip_first_down_counts_and_makes_one_interval_exact(relax):
    times = uneven_times(24)
    exact = stepped(Swirl(NEUTRAL), times, START)
    for iterations in (1, 2, 3):
        options = MGRITOptions(coarsening=4, relax=relax, max_iterations=iterations)
        error = error_of(MGRIT(Swirl(NEUTRAL), times, options).solve(START), exact)
        first_wrong = 4 * ((iterations - 1) * (relax + 1) + 1)
        assert error[:first_wrong].max() < 1e-13
        assert error[first_wrong] > 1e-4


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("relax", [0, 1])
@pytest.mark.parametrize("coarsest", ["gather", "relaxation"])
def test_sequential_solution_is_a_fixed_point(levels, relax, coarsest):
    times = uneven_times(37)
    sources = np.random.default_rng(0).normal(size=(38, 3))
    exact = stepped(Swirl(NEUTRAL), times, START, sources)
    state_at = dict(zip(times.tolist(), exact, strict=True))
    options = MGRITOptions(
        levels=levels,
        relax=relax,
        max_iterations=3,
        skip_first_down=False,
        coarsest=coarsest,
    )
    solver = MGRIT(Swirl(NEUTRAL), times, options)
    result = solver.solve(START, guess=state_at.__getitem__, sources=sources)
    assert result.residuals.max() < 1e-13
    assert error_of(result, exact).max() < 1e-12


@pytest.mark.parametrize("num_steps", [1, 2, 5, 24, 97, 128])
@pytest.mark.parametrize("m", [2, 4, 8])
@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
@pytest.mark.parametrize("relax", [0, 1])
def test_enough_iterations_give_the_serial_trajectory(num_steps, m, levels, coarsest, relax):
    times = uneven_times(num_steps)
    for dtype, allowed, tolerance in ((np.float64, 1e-12, 1e-13), (np.float32, 1e-5, 2e-6)):
        propagator = Swirl(0.3, batched=True, dtype=dtype)
        options = MGRITOptions(
            levels=levels,
            coarsening=m,
            relax=relax,
            tolerance=tolerance,
            coarsest=coarsest,
        )
        result = MGRIT(propagator, times, options).solve(START)
        assert result.status in (Status.CONVERGED, Status.STEPPED)
        assert result.u.dtype == dtype
        assert error_of(result, stepped(propagator, times, START)).max() < allowed


# --- The naive solver ----------------------------------------------------------------------------


@st.composite
def any_options(draw):
    per_level = st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple)
    sweeps = st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple)
    return MGRITOptions(
        levels=draw(st.integers(2, 5)),
        coarsening=draw(per_level),
        min_coarse=draw(st.integers(1, 3)),
        relax=draw(sweeps),
        max_iterations=draw(st.integers(1, 3)),
        skip_first_down=draw(st.booleans()),
        coarsest=draw(st.sampled_from(["gather", "pipelined", "relaxation"])),
    )


@settings(deadline=None, max_examples=150)
@given(st.integers(2, 60), any_options(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_iterates_are_those_of_a_naive_solver(num_steps, options, has_sources, batched, seed):
    """Any number of points, factors and sweeps per level, sources, and a guess at every point."""
    rng = np.random.default_rng(seed)
    times = uneven_times(num_steps)
    guess = with_start(rng.normal(size=(num_steps + 1, 3)))
    sources = rng.normal(size=(num_steps + 1, 3)) if has_sources else None
    expected, residuals = naive_mgrit(Swirl(NEUTRAL), times, options, guess, sources)
    state_at = dict(zip(times.tolist(), guess, strict=True))
    result = MGRIT(Swirl(NEUTRAL, batched=batched), times, options).solve(
        START, guess=state_at.__getitem__, sources=sources
    )
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-12)
    if result.status is not Status.STEPPED:
        measured = result.residuals[~np.isnan(result.residuals)]
        norms = [np.linalg.norm(r) for r in residuals]
        np.testing.assert_allclose(measured, norms, rtol=1e-12, atol=1e-13)
        skipped = 1 if options.skip_first_down else 0
        assert measured.size == result.num_iterations - skipped == options.max_iterations - skipped


# --- Guesses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guess", "states"),
    [
        (None, np.zeros((14, 3))),
        (0.7, np.full((14, 3), 0.7)),
        (np.array([1.0, 2.0, 3.0]), np.tile([1.0, 2.0, 3.0], (14, 1))),
        ([1, 2, 3], np.tile([1.0, 2.0, 3.0], (14, 1))),
        (lambda t: t * np.array([1.0, -1.0, 2.0]), uneven_times(13)[:, None] * [1.0, -1.0, 2.0]),
        (lambda t: t**2, np.tile(uneven_times(13)[:, None] ** 2, 3)),
    ],
    ids=["none", "number", "array", "list", "callable", "callable-number"],
)
@pytest.mark.parametrize("skip", [True, False])
def test_guesses(guess, states, skip):
    options = MGRITOptions(
        coarsening=3, max_iterations=2, skip_first_down=skip, coarsest="relaxation"
    )
    result = MGRIT(Swirl(), uneven_times(13), options).solve(START, guess)
    expected, _ = naive_mgrit(Swirl(), uneven_times(13), options, with_start(states))
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("guess", [1e20, np.nan])
def test_skip_first_down_makes_no_use_of_a_guess(guess):
    options = MGRITOptions(levels=3, max_iterations=2)
    solver = MGRIT(Swirl(), uneven_times(13), options)
    assert np.array_equal(solver.solve(START, guess).u, solver.solve(START).u)


# --- Stopping ------------------------------------------------------------------------------------

STOPPING = {"levels": 3, "coarsening": 2, "relax": 1}


def swirl_solver(**options):
    return MGRIT(Swirl(), uneven_times(40), MGRITOptions(**STOPPING | options))


@pytest.mark.parametrize("skip", [True, False])
def test_tolerance_is_strict_and_the_last_correction_is_kept(skip):
    fixed = swirl_solver(max_iterations=6, skip_first_down=skip).solve(START)
    at = float(fixed.residuals[2])
    assert fixed.residuals[3] < at
    for tolerance, iterations in ((np.nextafter(at, 1.0), 3), (at, 4)):
        result = swirl_solver(tolerance=tolerance, skip_first_down=skip).solve(START)
        assert result.status is Status.CONVERGED
        assert np.array_equal(result.residuals, fixed.residuals[:iterations], equal_nan=True)
        expected = swirl_solver(max_iterations=iterations, skip_first_down=skip).solve(START)
        assert np.array_equal(result.u, expected.u)


@pytest.mark.parametrize("skip", [True, False])
def test_relative_tolerance_is_relative_to_the_first_residual_measured(skip):
    fixed = swirl_solver(max_iterations=6, skip_first_down=skip).solve(START)
    first = fixed.residuals[1 if skip else 0]
    for factor, iterations in ((1 + 1e-9, 4), (1 - 1e-9, 5)):
        tolerance = fixed.residuals[3] / first * factor
        result = swirl_solver(relative_tolerance=tolerance, skip_first_down=skip).solve(START)
        assert result.status is Status.CONVERGED
        assert result.num_iterations == iterations


def test_the_looser_of_two_tolerances_stops():
    both = swirl_solver(tolerance=1e-30, relative_tolerance=0.5).solve(START)
    assert both.status is Status.CONVERGED
    assert both.residuals[-1] > 1e-6


def test_residual_zero_is_below_any_relative_tolerance():
    """FCF is exact at once on two intervals, so that the first residual is zero already."""
    options = MGRITOptions(relative_tolerance=1e-6, skip_first_down=False)
    result = MGRIT(Dahlquist(), np.arange(5.0), options).solve(1.0)
    assert result.residuals[0] > 0
    at_rest = MGRIT(Dahlquist(), np.arange(5.0), options).solve(0.0)
    assert (at_rest.status, at_rest.residuals.tolist()) == (Status.CONVERGED, [0.0])


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_without_a_tolerance_the_number_of_iterations_is_exact(iterations):
    result = swirl_solver(max_iterations=iterations).solve(START)
    assert result.num_iterations == iterations
    assert result.status is Status.COMPLETED
    assert result.detail == ""


def test_not_converged_is_a_status_with_advice():
    result = swirl_solver(max_iterations=3, tolerance=1e-14).solve(START)
    assert result.status is Status.MAX_ITERATIONS
    assert "increase max_iterations" in result.status.value
    assert "coarsening" in result.status.value
    assert result.num_iterations == 3


def test_every_iteration_is_reported():
    seen = []
    result = swirl_solver(max_iterations=4).solve(
        START, on_iteration=lambda number, residual: seen.append((number, residual))
    )
    assert [number for number, _ in seen] == [0, 1, 2, 3]
    assert np.array_equal([r for _, r in seen], result.residuals, equal_nan=True)


def test_residual_of_one_interval_by_hand():
    """F-relaxation takes u to Phi^m(u_0); the residual there is measured against the guess."""
    dahlquist, m, guess = Dahlquist(-1.0), 4, 0.456
    options = MGRITOptions(
        coarsening=m, min_coarse=1, relax=0, max_iterations=1, skip_first_down=False
    )
    result = MGRIT(dahlquist, np.arange(5.0), options).solve(1.0, guess)
    assert result.residuals.tolist() == [pytest.approx(guess - 0.5**m, rel=1e-14)]
    assert result.u[4] == pytest.approx(0.5**m, rel=1e-14)


# --- Divergence ----------------------------------------------------------------------------------


class Unlike(Propagator):
    """Scalar decay whose coarse step grows, and whose fine step may break at one step."""

    state_shape, dtype = (), np.dtype(np.float64)

    def __init__(self, growth=0.5, broken=None, value=np.nan):
        self.growth, self.broken, self.value = growth, broken, value

    def step(self, u, step):
        if step.level > 0:
            return self.growth * u
        return np.full_like(u, self.value) if step.last == self.broken else 0.9 * u


@pytest.mark.parametrize("skip", [True, False])
def test_growth_is_reported_with_iteration_level_and_time(skip):
    times = np.linspace(0.0, 4.0, 41)
    options = MGRITOptions(coarsening=4, relax=0, skip_first_down=skip, divergence_factor=100)
    result = MGRIT(Unlike(growth=-1.0), times, options).solve(1.0)
    limit = 100 * max(1.0, result.residuals[1 if skip else 0])
    assert result.status is Status.DIVERGED
    assert "coarsening" in result.status.value
    assert result.residuals[-1] > limit >= np.nanmax(result.residuals[:-1])
    # The residual of each C-point, from the naive solver, names the worst one.
    fixed = MGRITOptions(
        coarsening=4, relax=0, skip_first_down=skip, max_iterations=result.num_iterations
    )
    _, residuals = naive_mgrit(Unlike(growth=-1.0), times, fixed, np.array([1.0] + [0.0] * 40))
    worst = 4 * (1 + int(np.abs(residuals[-1]).argmax()))
    assert result.detail == (
        f"iteration {result.num_iterations - 1}, level 0: residual norm "
        f"{np.linalg.norm(residuals[-1]):.3g}, worst at point {worst}, time {worst / 10:g}"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("skip", [True, False])
def test_values_that_are_not_finite_stop_at_once(value, skip):
    """Step 9 breaks, F-points 9..11 carry it on, and C-point 12 is where it is seen."""
    times = np.linspace(0.0, 4.0, 41)
    options = MGRITOptions(coarsening=4, skip_first_down=skip, relax=0, tolerance=1e-9)
    with np.errstate(all="ignore"):
        result = MGRIT(Unlike(broken=9, value=value), times, options).solve(1.0)
    iteration = 1 if skip else 0
    assert result.status is Status.DIVERGED
    assert result.num_iterations == iteration + 1
    assert re.fullmatch(
        rf"iteration {iteration}, level 0: residual norm (nan|inf), worst at point 12, time 1\.2",
        result.detail,
    )


# --- Bad input -----------------------------------------------------------------------------------


class Wrong(Propagator):
    """Three numbers, and a step that returns a given state."""

    state_shape, dtype = (3,), np.dtype(np.float64)

    def __init__(self, function, batched=False):
        self.step_function, self.batched = function, batched

    def step(self, u, step):
        return self.step_function(u)


@pytest.mark.parametrize("batched", [False, True], ids=["one", "stack"])
@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (lambda u: None, TypeError, "returned NoneType, expected an array"),
        (lambda u: u.tolist(), TypeError, "returned list, expected an array"),
        (lambda u: u[..., :2], ValueError, r"returned shape \((1, )?2,?\), expected \((1, )?3,?\)"),
        (lambda u: u[..., :1], ValueError, r"returned shape \((1, )?1,?\), expected"),
        (lambda u: u.sum(), ValueError, r"returned shape \(\), expected"),
        (lambda u: 1.0, ValueError, r"returned shape \(\), expected"),
        (lambda u: u[None], ValueError, r"returned shape \(1, (1, )?3\), expected"),
        (lambda u: u.astype(np.float32), TypeError, "returned dtype float32, expected float64"),
        (lambda u: u * 1j, TypeError, "returned dtype complex128, expected float64"),
        (lambda u: u * np.nan, ValueError, "returned NaN or inf for the initial value"),
        (lambda u: u / 0 * 0, ValueError, "returned NaN or inf for the initial value"),
        (lambda u: u.nonsense, AttributeError, "nonsense"),
        (
            lambda u: u.__imul__(0.5),
            ValueError,
            "changed the state that it was given: return a new",
        ),
    ],
    ids=[
        "none",
        "list",
        "short",
        "would-broadcast",
        "number",
        "float",
        "one-axis-more",
        "float32",
        "complex",
        "nan",
        "inf",
        "raises",
        "in place",
    ],
)
def test_wrong_steps_are_told_before_any_work(function, kind, message, batched):
    solver = MGRIT(Wrong(function, batched), np.arange(9.0))
    with np.errstate(all="ignore"), pytest.raises(kind, match=message):
        solver.solve(np.ones(3))


@pytest.mark.parametrize("num_steps", [1, 2, 9])
@pytest.mark.parametrize("options", [MGRITOptions(levels=1), MGRITOptions(min_coarse=1)])
def test_wrong_steps_are_told_on_the_shortest_grids(num_steps, options):
    with pytest.raises(ValueError, match=r"step on level 0 returned shape \(1,\), expected \(3,\)"):
        MGRIT(Wrong(lambda u: u[:1]), np.arange(num_steps + 1.0), options).solve(np.ones(3))


def test_a_wrong_coarse_step_is_told_with_its_level():
    class WrongOnLevelTwo(Wrong):
        def step(self, u, step):
            return u if step.level < 2 else u[:1]

    options = MGRITOptions(levels=3)
    with pytest.raises(ValueError, match=r"step on level 2 returned shape \(1,\)"):
        MGRIT(WrongOnLevelTwo(None), np.arange(17.0), options).solve(np.ones(3))


def test_a_float_is_a_state_of_shape_nothing():
    class Exponential(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return float(u) * 2.0

    assert MGRIT(Exponential(), np.arange(9.0)).solve(1.0).u.tolist() == [2.0**i for i in range(9)]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (np.ones(2), ValueError, r"initial value has shape \(2,\), expected \(3,\)"),
        (np.ones((1, 3)), ValueError, r"initial value has shape \(1, 3\), expected \(3,\)"),
        (1.0, ValueError, r"initial value has shape \(\), expected \(3,\)"),
        (np.ones(3) * 1j, TypeError, "initial value is complex128, the propagator's states are fl"),
        ([1, 2, 3j], TypeError, "initial value is complex128, the propagator's states are float64"),
        ("abc", TypeError, "initial value is <U3, the propagator's states are float64"),
        (None, TypeError, "initial value is object, the propagator's states are float64"),
        ([1.0, np.nan, 1.0], ValueError, "initial value has NaN or inf"),
        ([1.0, np.inf, 1.0], ValueError, "initial value has NaN or inf"),
    ],
    ids=["short", "axis", "number", "complex", "complex-list", "text", "none", "nan", "inf"],
)
def test_bad_initial_values_are_refused(value, kind, message):
    with pytest.raises(kind, match=message):
        MGRIT(Swirl(), np.arange(9.0)).solve(value)


def test_whole_numbers_are_an_initial_value():
    solver = MGRIT(Swirl(), np.arange(9.0))
    assert np.array_equal(solver.solve([1, 0, -1]).u, solver.solve(np.array([1.0, 0.0, -1.0])).u)


@pytest.mark.parametrize(
    ("sources", "kind", "message"),
    [
        (np.zeros((8, 3)), ValueError, r"sources have shape \(8, 3\) on rank 0, expected \(9, 3\)"),
        (np.zeros(3), ValueError, r"sources have shape \(3,\) on rank 0, expected \(9, 3\)"),
        ([[0.0, 0.0]] * 9, ValueError, r"sources have shape \(9, 2\) on rank 0, expected \(9, 3\)"),
        (np.zeros((9, 3)) * 1j, TypeError, "sources is complex128, the propagator's states are fl"),
    ],
    ids=["short", "one-state", "list", "complex"],
)
def test_bad_sources_are_refused(sources, kind, message):
    with pytest.raises(kind, match=message):
        MGRIT(Swirl(), np.arange(9.0)).solve(START, sources=sources)


def test_a_guess_of_the_wrong_shape_is_refused():
    solver = MGRIT(Swirl(), np.arange(9.0), MGRITOptions(skip_first_down=False))
    for guess in (np.zeros(2), lambda t: np.zeros(2)):
        with pytest.raises(ValueError, match=r"shape"):
            solver.solve(START, guess)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((Swirl, np.arange(9.0)), TypeError, "propagator must be a Propagator, got ABCMeta"),
        ((np.tanh, np.arange(9.0)), TypeError, "propagator must be a Propagator, got ufunc"),
        ((Swirl(), [0.0, 2.0, 1.0]), ValueError, "times must increase: point 1 is at 2.0, point 2"),
        ((Swirl(), 8), ValueError, "a time grid needs at least 2 points"),
        (
            (Swirl(), np.arange(9.0), {"levels": 2}),
            TypeError,
            "options must be of MGRITOptions, go",
        ),
        ((Swirl(), np.arange(9.0), None, 3), TypeError, "comm must be a Communicator"),
        (
            (Swirl(), np.arange(9.0), None, None, Layout(np.array([0, 5]))),
            ValueError,
            r"layout must split points 0\.\.8 over 1 ranks, got bounds \[0, 5\]",
        ),
    ],
    ids=["class", "function", "times", "number", "options", "comm", "layout"],
)
def test_bad_constructions_are_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        MGRIT(*arguments)


# --- Levels that differ in space -----------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True], ids=["loop", "stack"])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
@pytest.mark.parametrize("skip", [True, False])
def test_space_coarsening_converges_to_the_sequential_solution(batched, coarsest, skip):
    times = np.linspace(0, 0.2, 38)
    start = np.random.default_rng(4).normal(size=15)
    options = MGRITOptions(
        levels=3, relax=1, tolerance=1e-11, coarsest=coarsest, skip_first_down=skip
    )
    result = MGRIT(Drift(batched=batched), times, options).solve(start)
    assert result.status is Status.CONVERGED
    assert error_of(result, stepped(Drift(), times, start)).max() < 1e-10
    fixed = MGRITOptions(
        levels=3, relax=1, max_iterations=4, coarsest=coarsest, skip_first_down=skip
    )
    guess = np.zeros((38, 15))
    guess[0] = start
    expected, residuals = naive_mgrit(Drift(), times, fixed, guess)
    few = MGRIT(Drift(batched=batched), times, fixed).solve(start)
    np.testing.assert_allclose(few.u, expected, rtol=0, atol=1e-12)
    assert few.residuals[-1] == pytest.approx(np.linalg.norm(residuals[-1]), rel=1e-10)


# --- Results -------------------------------------------------------------------------------------


def test_a_result_survives_the_next_solve():
    solver = swirl_solver(max_iterations=3)
    sources = np.ones((41, 3))
    first = solver.solve(START)
    kept = first.u.copy(), first.residuals.copy(), dict(first.num_steps)
    second = solver.solve(-START, sources=sources)
    assert not np.array_equal(second.u, first.u)
    assert np.array_equal(first.u, kept[0])
    assert np.array_equal(first.residuals, kept[1], equal_nan=True)
    assert first.num_steps == kept[2]
    assert np.array_equal(solver.solve(START).u, kept[0])  # and sources are forgotten


def test_arguments_are_left_as_they_were():
    start, guess, sources = START.copy(), np.ones(3), np.ones((41, 3))
    result = swirl_solver(max_iterations=3, skip_first_down=False).solve(start, guess, sources)
    result.u[...] = 7.0
    assert np.array_equal(start, START)
    assert (guess == 1).all()
    assert (sources == 1).all()


def test_source_of_point_zero_is_ignored():
    sources = np.random.default_rng(0).normal(size=(41, 3))
    changed = sources.copy()
    changed[0] = 1e9
    solver = swirl_solver(max_iterations=3)
    first, second = (solver.solve(START, sources=g).u for g in (sources, changed))
    assert np.array_equal(first, second)
    assert np.array_equal(first[0], START)


def test_states_of_the_result():
    times = uneven_times(40)
    result = swirl_solver(tolerance=1e-13).solve(START)
    assert result.first == 0
    assert np.array_equal(result.times, times)
    assert result.coarsening == (2, 2)
    assert result.seconds > 0
    assert np.array_equal(result.gather(), result.u)
    assert not np.shares_memory(result.gather(), result.u)
    assert np.array_equal(result.final_state(), result.u[-1])
    assert not np.shares_memory(result.final_state(), result.u)


def test_solve_in_one_call():
    options = MGRITOptions(**STOPPING, max_iterations=3, skip_first_down=False)
    result = solve(Swirl(), TimeGrid(uneven_times(40)), START, options, guess=0.2)
    expected = swirl_solver(max_iterations=3, skip_first_down=False).solve(START, 0.2)
    assert np.array_equal(result.u, expected.u)


def test_defaults_solve_to_the_end_of_the_iterations():
    result = solve(Dahlquist(-2.0), TimeGrid.uniform(0, 1, 10), 1.0)
    assert result.status is Status.COMPLETED
    np.testing.assert_allclose(result.u, (1 / 1.2) ** np.arange(11), rtol=1e-14)


def test_the_propagator_of_the_docstring():
    class Decay(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return u / (1 + step.dt)

    times = uneven_times(50)
    exact = np.cumprod(np.concatenate([[1.0], 1 / (1 + np.diff(times))]))
    result = solve(Decay(), times, 1.0, MGRITOptions(levels=3, tolerance=1e-14))
    np.testing.assert_allclose(result.u, exact, rtol=1e-12)


def test_complex_states():
    class Turning(Propagator):
        """u' = i u by the trapezoidal rule."""

        state_shape, dtype = (), np.dtype(complex)

        def step(self, u, step):
            return u * (2 + 1j * step.dt) / (2 - 1j * step.dt)

    result = solve(Turning(), np.arange(0, 13) / 2, 1.0, MGRITOptions(tolerance=1e-13))
    assert result.u.dtype == complex
    np.testing.assert_allclose(result.u, ((4 + 1j) / (4 - 1j)) ** np.arange(13), rtol=1e-12)


# --- Arrays of another library -------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, True], ids=["loop", "stack"])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "relaxation"])
def test_torch_tensors_are_states(batched, coarsest):
    torch = pytest.importorskip("torch", reason="torch is an independent reference, not required")

    class TorchSwirl(Swirl):
        def step(self, u, step):
            stop = torch.as_tensor(np.asarray(step.stop))[..., None]
            dt = torch.as_tensor(np.asarray(step.dt))[..., None]
            waves = torch.as_tensor(WAVES)
            Q, W = map(torch.as_tensor, self.matrices(step))
            b = torch.as_tensor(self.parameters[9:])
            bend = torch.tanh(u @ W.T + b + torch.sin(stop * waves) + dt)
            return u @ Q.T + 0.4 * self.gain * bend

    times = uneven_times(29)
    sources = np.random.default_rng(5).normal(size=(30, 3))
    options = MGRITOptions(
        levels=3, relax=1, max_iterations=3, coarsest=coarsest, skip_first_down=False
    )
    expected = MGRIT(Swirl(1.0, batched), times, options).solve(START, 0.3, sources)
    result = MGRIT(TorchSwirl(1.0, batched), times, options).solve(
        torch.as_tensor(START), 0.3, torch.as_tensor(sources)
    )
    assert isinstance(result.u, torch.Tensor)
    np.testing.assert_allclose(result.u.numpy(), expected.u, rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.residuals, expected.residuals, rtol=1e-12)
    np.testing.assert_allclose(result.gather(), expected.u, rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.final_state(), expected.u[-1], rtol=0, atol=1e-13)


class Blowing(Propagator):
    """u -> u^2: from 2 it overflows after ten steps."""

    state_shape, dtype = (), np.dtype(float)

    def step(self, u, step):
        with np.errstate(over="ignore"):
            return np.square(u)


@pytest.mark.parametrize(
    ("num_steps", "options"),
    [
        (12, MGRITOptions(levels=1)),  # time stepping has no residual to show it
        (11, MGRITOptions(levels=2, coarsening=4, max_iterations=3)),  # behind the last C-point
    ],
)
def test_a_solution_that_is_not_finite_is_never_a_success(num_steps, options):
    with np.errstate(over="ignore", invalid="ignore"):
        result = MGRIT(Blowing(), TimeGrid.uniform(0, num_steps, num_steps), options).solve(2.0)
    assert result.status is Status.DIVERGED
    assert "point 10, time 10" in result.detail or "iteration" in result.detail


def test_steps_that_fail_from_the_initial_value_at_later_times_are_allowed():
    """u' = sqrt(u - t) from u(0) = 1: u = t + 1; the initial value is no state of later times."""

    class Root(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            with np.errstate(invalid="ignore"):
                return u + step.dt * np.sqrt(u - step.start)

    options = MGRITOptions(levels=2, coarsening=4, tolerance=1e-10)
    result = MGRIT(Root(), TimeGrid.uniform(0, 40, 40), options).solve(1.0)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.u, np.arange(41) + 1.0)


def test_a_coarsened_grid_is_refused():
    grid = TimeGrid.uniform(0, 1, 16).coarsen(4)
    with pytest.raises(ValueError, match="finest grid, got one of level 1"):
        MGRIT(Blowing(), grid)


def test_a_grid_does_not_follow_the_array_it_was_made_from():
    times = np.linspace(0, 1, 5)
    grid = TimeGrid(times)
    times[3] = -5
    assert grid.times[3] == 0.75


def test_states_go_into_the_array_that_is_given():
    solver = MGRIT(Heat(5), TimeGrid.uniform(0, 1, 16), MGRITOptions(max_iterations=3))
    expected = solver.solve(np.ones(5)).u
    out = np.full((18, 5), np.nan)
    for _ in range(2):
        result = solver.solve(np.ones(5), out=out)
        assert np.shares_memory(result.u, out)
        np.testing.assert_array_equal(result.u, expected)


@pytest.mark.parametrize("out", [np.zeros((17, 5)), np.zeros((18, 5), dtype=np.float32)])
def test_memory_for_other_states_is_refused(out):
    solver = MGRIT(Heat(5), TimeGrid.uniform(0, 1, 16))
    with pytest.raises(ValueError, match=r"out has shape .* expected \(18, 5\), float64"):
        solver.solve(np.ones(5), out=out)


def test_a_solve_may_change_how_far_it_iterates():
    options = MGRITOptions(max_iterations=2, skip_first_down=True)
    solver = MGRIT(Heat(5), TimeGrid.uniform(0, 1, 64), options)
    result = solver.solve(np.ones(5), max_iterations=4, skip_first_down=False)
    assert (result.options.max_iterations, result.options.skip_first_down) == (4, False)
    assert np.isfinite(result.residuals).tolist() == [True] * 4
    assert np.isfinite(solver.solve(np.ones(5)).residuals).tolist() == [False, True]
    with pytest.raises(ValueError, match="max_iterations"):
        solver.solve(np.ones(5), max_iterations=0)
