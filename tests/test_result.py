"""Contents of a result, and the callbacks of a solve."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Status, TimeGrid, open_run
from pint.mgrit.result import PHASES
from pint.models.dahlquist import Dahlquist
from pint.options import Refinement
from pint.results import write_iteration, write_result, write_visit
from pint.stopwatch import Stopwatch, timed
from tests.engine_models import CompiledSwirl, Driven, Swirl, uneven_times
from tests.histories import Touched

START = np.array([0.5, -0.3, 0.8])
TIMES = uneven_times(40)


def options_of(**changes):
    return MGRITOptions(
        **{"levels": 3, "max_iterations": 3, "skip_first_down": False, "driver": "loop"} | changes
    )


def test_visits_are_told_in_order_with_the_states_of_their_level():
    seen, u = [], []

    def on_visit(visit):
        seen.append((visit.iteration, visit.level))
        assert len(visit.u) == len(visit.times)
        assert visit.first == 0
        u.append(visit.u.copy())

    options = options_of(cycle="F", max_iterations=2)
    result = MGRIT(Swirl(), TIMES, options).solve(START, on_visit=on_visit)
    cycle = [2, 1, 2, 1, 0]  # F(1) comes up, then V(1), then the finest level
    assert seen == [(k, level) for k in (0, 1) for level in cycle]
    assert np.array_equal(u[-1], result.u)
    assert [len(states) for states in u[:5]] == [11, 21, 11, 21, 41]


@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_to_look_on_changes_nothing(driver):
    model, options = CompiledSwirl(coarsening=(2, 2)), options_of(driver=driver)
    plain = MGRIT(model, TIMES, options).solve(START)
    watched = MGRIT(model, TIMES, options).solve(START, on_visit=lambda visit: None)
    assert np.array_equal(watched.u, plain.u)
    assert watched.num_steps == plain.num_steps


def test_callbacks_at_the_end_of_iterations_and_of_the_solve():
    solver, told, ended = MGRIT(Swirl(), TIMES, options_of()), [], []
    result = solver.solve(
        START,
        on_iteration=lambda k, norm: told.append((k, norm, solver.states.copy())),
        on_end=ended.append,
    )
    assert [k for k, _, _ in told] == [0, 1, 2]
    assert [norm for _, norm, _ in told] == result.residuals.tolist()
    assert np.array_equal(told[-1][2], result.u)
    assert not np.array_equal(told[0][2], result.u)
    assert ended == [result]


def test_convergence_factor():
    grid = TimeGrid.uniform(0, 50, 100)
    result = MGRIT(Dahlquist(), grid, options_of(max_iterations=4)).solve(1.0, 0.456)
    first, *_, last = result.residuals
    assert result.convergence_factor == pytest.approx((last / first) ** (1 / 3))
    exact = MGRIT(Dahlquist(), grid, options_of()).solve(1.0, "sequential")
    assert math.isnan(exact.convergence_factor)
    one = MGRIT(Dahlquist(), grid, options_of(max_iterations=1)).solve(1.0)
    assert math.isnan(one.convergence_factor)


@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_phases_are_parts_of_the_time(driver):
    solver = MGRIT(CompiledSwirl(coarsening=(2, 2)), TIMES, options_of(driver=driver))
    parts = []
    for _ in range(5):
        result = solver.solve(START)
        assert set(result.phases) <= set(PHASES)
        assert all(seconds >= 0 for seconds in result.phases.values())
        parts.append(sum(result.phases.values()) / result.seconds)
        if driver == "loop":
            assert result.phases["relaxation"] > result.phases["messages"]
    assert 0.5 < max(parts) <= 1  # a busy machine may interrupt one outside of all phases


def test_bytes_of_the_arrays():
    """Of 41, 21 and 11 points and their ghosts: u; g but on the finest; norms. r is the next g."""
    result = MGRIT(Swirl(), TIMES, options_of()).solve(START)
    assert result.num_bytes == 8 * (3 * (42 + 2 * 22 + 2 * 12) + 22)


def test_profile_of_one_rank():
    result = MGRIT(Swirl(), TIMES, options_of()).solve(START)
    profile = result.profile()
    assert profile.num_steps.tolist() == [[result.num_steps[level] for level in range(3)]]
    assert profile.seconds["relaxation"].tolist() == [result.phases["relaxation"]]
    assert profile.num_bytes.tolist() == [result.num_bytes]


def test_results_to_files_from_each_callback(tmp_path):
    options = options_of(coarsening=(1, (0, 3, 5, 40)), max_iterations=2)
    solver = MGRIT(Swirl(), TIMES, options)

    result = solver.solve(
        START,
        on_iteration=lambda k, norm: write_iteration(
            tmp_path / f"iteration{k}.h5", solver, k, norm
        ),
        on_visit=lambda visit: write_visit(tmp_path / f"level{visit.level}.h5", solver, visit),
        on_end=lambda result: write_result(tmp_path / "end.h5", result, options),
    )
    end = open_run(tmp_path / "end.h5")
    assert end.finished
    assert np.array_equal(end.solution, result.u)
    assert np.array_equal(end.history["residual"], result.residuals)
    assert end.coarsening == (1, (0, 3, 5, 40))
    assert end.options["solver"]["coarsening"] == "1, 4 points"
    assert end.options["solver"]["time_norm"] == 2
    assert set(end.timings) == {*PHASES, "compile"}
    assert end.work["steps"].tolist() == [[result.num_steps[level] for level in range(3)]]
    assert end.work["bytes"].tolist() == [result.num_bytes]
    first, last = (open_run(tmp_path / f"iteration{k}.h5") for k in (0, 1))
    assert first.history["residual"] == result.residuals[:1]
    assert not np.array_equal(first.solution, result.u)
    assert (last.options["iteration"], last.finished) == (1, False)
    assert np.array_equal(last.solution, result.u)
    levels = [open_run(tmp_path / f"level{level}.h5") for level in range(3)]
    assert [level.solution.shape for level in levels] == [(41, 3), (41, 3), (4, 3)]
    assert [level.coarsening for level in levels] == [end.coarsening, end.coarsening[1:], ()]
    assert levels[2].options == {"iteration": 1, "level": 2}
    assert np.array_equal(levels[2].times, TIMES[[0, 3, 5, 40]])
    assert np.array_equal(levels[0].solution, result.u)


def test_stopwatch_charges_the_inner_phase(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 7.0, 10.0, 15.0])
    monkeypatch.setattr("pint.stopwatch.time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    with watch.phase("outer"):
        with watch.phase("inner"):
            pass
        place = type("Place", (), {"watch": watch})
        timed("inner")(lambda place: None)
        with watch.phase("outer"):
            pass
    assert place.watch.seconds == {"outer": 1.0 + 4.0 + 3.0 + 5.0, "inner": 2.0}


def test_a_file_says_how_the_solve_ended_and_with_which_options(tmp_path):
    """Also of one that diverged, so that its states are not taken for a solution."""
    options = MGRITOptions(levels=2, coarsening=2, max_iterations=3, tolerance=1e-300)
    result = MGRIT(Dahlquist(-1.0), np.arange(9.0), options).solve(1.0)
    write_result(tmp_path / "run.h5", result)
    run = open_run(tmp_path / "run.h5")
    assert run.attributes["status"].startswith("max_iterations, ")
    assert run.options["solver"]["max_iterations"] == 3
    strict = replace(options, divergence_factor=1e-9)
    grown = MGRIT(Dahlquist(-1.0), np.arange(9.0), strict).solve(1.0)
    write_result(tmp_path / "grown.h5", grown)
    assert grown.status is Status.DIVERGED
    assert open_run(tmp_path / "grown.h5").attributes["status"].startswith("diverged, ")


@pytest.mark.parametrize("kind", ["refined", "ring", "c_points"])
def test_files_from_callbacks_have_the_points_of_their_time(kind, tmp_path):
    """Grids that grow, rings whose point 0 is the last one, and C-points alone."""
    ways = {
        "refined": {"refinement": Refinement(2), "tolerance": 1e-8, "max_iterations": 12},
        "ring": {"periodic": True, "max_iterations": 2},
        "c_points": {"storage": "c_points", "max_iterations": 2},
    }[kind]
    options = MGRITOptions(levels=3, **ways)
    model = {"refined": Touched(), "ring": Driven(0.7), "c_points": Dahlquist(-1.0)}[kind]
    solver = MGRIT(model, TimeGrid.uniform(0.0, 5.0, 40), options)
    ends, visits = [], []

    def keep_cycle(iteration, residual):
        write_iteration(tmp_path / "cycle.h5", solver, iteration, residual)
        run = open_run(tmp_path / "cycle.h5")
        ends.append(run.solution)
        np.testing.assert_array_equal(run.solution, solver.states)
        assert run.times.size == len(run.solution)

    def keep_visit(visit):
        write_visit(tmp_path / "visit.h5", solver, visit)
        run = open_run(tmp_path / "visit.h5")
        visits.append(visit.level)
        np.testing.assert_array_equal(run.times, visit.times)
        assert len(run.solution) == visit.times.size
        assert len(run.coarsening) == len(solver.options.factors(solver.finest.times.size - 1)) - (
            visit.level
        )

    result = solver.solve(1.0, on_iteration=keep_cycle, on_visit=keep_visit)
    np.testing.assert_array_equal(ends[-1], result.u)
    assert len(ends) == result.num_iterations
    assert {0, 1} <= set(visits)
