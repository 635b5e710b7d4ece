"""Published histories and options of the cycle on many processes: the bits of one process."""

from pathlib import Path

import numpy as np
import pytest

from pint import MGRIT, LocalGrids, MGRITOptions, Random, Richardson, open_run, solve_in_windows
from pint.models.dahlquist import Dahlquist
from pint.parallel.comm import world
from tests.engine_models import CompiledSwirl, Drift, Driven, Swirl, uneven_times
from tests.histories import CASES, drivers_of, same_as_published, solve, value_and_slope
from tests.rank_choices import crossed, paired
from tests.test_implicit import Own

PUBLISHED = paired({name: drivers_of(case) for name, case in CASES.items()})
WAYS = [
    {"coarsening": ((0, 1, 2, 7, 10, 13, 14, 20, 26), 2)},
    {"coarsening": (2, (0, 4, 5, 6, 11, 14)), "cycle": "W", "coarsest": "relaxation"},
    {"coarsening": (1, 2), "cycle": "F", "coarsest": "pipelined"},
    {"time_norm": 1, "residual_points": "all_points", "coarsening": 3},
    {"time_norm": np.inf, "residual_points": "all_points", "tolerance": 1e-3, "max_iterations": 9},
    {"residual_points": "none"},
    {"local_tolerance": 1e-6, "max_iterations": 12},
    {"local_tolerance": 1e-6, "max_iterations": 12, "coarsest": "pipelined", "cycle": "F"},
    {
        "local_tolerance": 1e-6,
        "max_iterations": 12,
        "coarsening": ((0, 1, 2, 7, 10, 13, 14, 20, 26), 2),
        "coarsest": "relaxation",
        "residual_points": "all_points",
    },
    {"relax_weight": 0.9, "coarsest": "relaxation", "skip_first_down": True},
    {"richardson": Richardson(1, extrapolate=True), "relax": 2, "coarsest": "pipelined"},
    {"coarsest": LocalGrids(3)},
    {"coarsest": LocalGrids(7), "cycle": "F", "skip_first_down": True},
    {"coarsest": LocalGrids(2), "local_tolerance": 1e-6, "max_iterations": 12},
]
RINGS = [
    {"coarsening": 2, "levels": 9},
    {"coarsening": (3, 1), "coarsest": "pipelined", "cycle": "F"},
    {"coarsening": ((0, 1, 2, 7, 10, 13, 14, 20, 26, 29), 2), "relax": 0},
    {
        "coarsening": 4,
        "coarsest": "relaxation",
        "residual_points": "all_points",
        "relax_weight": 0.9,
    },
    {"coarsening": 28, "min_coarse": 1, "skip_first_down": False},
]


@pytest.mark.parametrize(("name", "driver"), PUBLISHED)
def test_histories_do_not_depend_on_the_number_of_ranks(name, driver):
    """To the last bit, but for stacks of other heights."""
    case = CASES[name]
    parallel, serial = solve(case, driver, world()), solve(case, driver)
    assert same_as_published(case, parallel.residuals)
    assert parallel.status is serial.status
    if driver == "stack":
        np.testing.assert_allclose(parallel.gather(), serial.u, rtol=1e-12, atol=1e-14)
    else:
        assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
        assert np.array_equal(parallel.gather(), serial.u)
    if "dJ_dlambda" in case:
        published = (case["J"], case["dJ_dlambda"])
        assert value_and_slope(case, driver, world()) == pytest.approx(published, rel=1e-13)


@pytest.mark.parametrize(("ways", "driver"), crossed(WAYS, ["loop", "compiled"], of=2), ids=str)
def test_any_coarse_points_and_cycles(ways, driver):
    model = CompiledSwirl(1.0, coarsening=(2, 2))
    if driver == "loop":
        model = Weighted(1.0)
    elif "coarsening" in ways:
        model = Dahlquist(-2.0)  # the other kernel has even coarse steps only
    start = np.array([0.5, -0.3, 0.8]) if isinstance(model, Swirl) else 1.0
    settings = {"levels": 3, "max_iterations": 3, "skip_first_down": False} | ways
    options, times = MGRITOptions(driver=driver, **settings), uneven_times(29)
    guess = None if options.skip_first_down else Random(seed=3)
    parallel = MGRIT(model, times, options, world()).solve(start, guess)
    serial = MGRIT(model, times, options).solve(start, guess)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)
    assert np.array_equal(parallel.error_estimates, serial.error_estimates)


@pytest.mark.parametrize("driver", ["loop", "compiled"])
@pytest.mark.parametrize("num_steps", [64, 67])
def test_points_on_demand(num_steps, driver):
    """Every rank yields its own points; any point is to be had on every rank."""
    options = MGRITOptions(
        levels=3, coarsening=4, max_iterations=3, storage="c_points", driver=driver
    )
    times = uneven_times(num_steps)
    parallel = MGRIT(Driven(0.7), times, options, world()).solve(1.0)
    serial = MGRIT(Driven(0.7), times, options).solve(1.0)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    (everything,) = (u for _, u in serial.trajectory.blocks(100))
    own = [u for _, u in parallel.trajectory.blocks(2)]
    assert np.array_equal(world().allgather_blocks(np.concatenate([*own, [0.0][:0]])), everything)
    for point in (0, 17, num_steps):
        assert parallel.trajectory.state(point) == everything[point]


@pytest.mark.parametrize(("ways", "driver"), crossed(RINGS, ["loop", "compiled"], of=2), ids=str)
def test_rings(ways, driver):
    """Messages go around; with 7 ranks some levels have fewer points than there are ranks."""
    times = uneven_times(29)
    options = MGRITOptions(
        **{"levels": 3, "max_iterations": 4} | ways, periodic=True, driver=driver
    )
    parallel = MGRIT(Driven(0.7), times, options, world()).solve(0.0, np.sin)
    serial = MGRIT(Driven(0.7), times, options).solve(0.0, np.sin)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert np.array_equal(parallel.gather(), serial.u)
    again = MGRIT(Driven(0.7), times, options, world()).solve(0.0, parallel)
    assert np.array_equal(again.gather(), MGRIT(Driven(0.7), times, options).solve(0.0, serial).u)
    assert np.array_equal(parallel.final_state(), serial.u[0])


class Weighted(Swirl):
    """Measures in a norm of its own."""

    def norm(self, u):
        return np.sqrt(u @ np.diag([2.0, 1.0, 3.0]) @ u)


def test_guesses_do_not_depend_on_the_number_of_ranks():
    times, start = uneven_times(40), np.array([0.5, -0.3, 0.8])
    options = MGRITOptions(levels=3, max_iterations=1, skip_first_down=False)

    def solve_twice(comm):
        coarse = MGRIT(Swirl(), times[::3], MGRITOptions(levels=1), comm).solve(start)
        nested = MGRIT(Swirl(), times, options, comm).solve(start, coarse)
        again = MGRIT(Swirl(), times, options, comm).solve(start, nested)
        exact = MGRIT(Swirl(), times, options, comm).solve(start, "sequential")
        return nested, again, exact

    for parallel, serial in zip(solve_twice(world()), solve_twice(None), strict=True):
        assert np.array_equal(parallel.residuals, serial.residuals)
        assert np.array_equal(parallel.gather(), serial.u)


@pytest.mark.parametrize("batched", [False, True])
def test_a_model_with_its_own_equation(batched):
    times, start = uneven_times(29), np.array([1.0, -2.0, 0.5])
    options = MGRITOptions(
        levels=3,
        max_iterations=3,
        skip_first_down=False,
        residual_points="all_points",
        driver="loop",
    )
    parallel = MGRIT(Own(batched), times, options, world()).solve(start, Random())
    serial = MGRIT(Own(batched), times, options).solve(start, Random())
    assert np.array_equal(parallel.residuals, serial.residuals)
    assert np.array_equal(parallel.gather(), serial.u)
    profile = parallel.profile()
    total = [serial.num_steps[level] for level in (0, 1)]
    assert profile.num_steps[:, :2].sum(axis=0).tolist() == total
    assert len(profile.seconds["messages"]) == len(profile.num_bytes) == world().size


def test_callbacks_are_heard_on_every_rank():
    told = []
    options = MGRITOptions(levels=3, max_iterations=2)
    solver = MGRIT(Swirl(), uneven_times(40), options, world())
    solver.solve(
        np.array([0.5, -0.3, 0.8]),
        on_iteration=lambda k, norm: told.append(k),
        on_visit=lambda visit: told.append((visit.level, len(visit.u))),
        on_end=lambda result: told.append(result.gather().shape),
    )
    own = [len(level.block) for level in solver.hierarchy.levels]
    cycle = [(level, own[level]) for level in (2, 1, 0)]
    assert told == [*cycle, 0, *cycle, 1, (41, 3)]


class Narrow(Drift):
    """Its restriction is wrong on the last rank."""

    def restrict(self, u, level):
        return u[..., :4] if world().rank == world().size - 1 else super().restrict(u, level)


@pytest.mark.parametrize(
    ("model", "start", "guess", "message"),
    [
        (Narrow(), np.zeros(15), None, "interpolate to level 0 returned shape"),
        (Swirl(), np.zeros(3), 1j, "guess is complex"),
        (Swirl(), np.zeros(3) * 1j, None, "initial value is complex128"),
        (Swirl(), np.zeros(3), "nonsense", "guess must be 'sequential' if it is a string"),
    ],
    ids=["restrict", "guess", "start", "word"],
)
def test_bad_input_is_one_error_on_every_rank(model, start, guess, message):
    options = MGRITOptions(skip_first_down=False)
    with pytest.raises((TypeError, ValueError), match=message):
        MGRIT(model, uneven_times(40), options, world()).solve(start, guess)
    assert world().sum(np.array([1])).tolist() == [world().size]  # and no rank waits for a message


@pytest.mark.parametrize("storage", ["all", "c_points"])
def test_windows_of_time(storage, tmp_path_factory):
    """With 7 ranks and 10 steps, some ranks have one point; the last window has one step."""
    folder = str(tmp_path_factory.mktemp("windows")) if world().rank == 0 else ""
    path = Path(world().allgather_text(folder)[0]) / "run.h5"
    options = MGRITOptions(max_iterations=3, storage=storage, driver="loop")
    times, start = uneven_times(21), np.array([0.5, -0.3, 0.8])
    parallel = list(solve_in_windows(Swirl(), times, start, 10, options, world(), path=path))
    serial = list(solve_in_windows(Swirl(), times, start, 10, options))
    for one, other in zip(parallel, serial, strict=True):
        assert np.array_equal(one.gather(), other.u)
        assert np.array_equal(one.residuals, other.residuals, equal_nan=True)
    run = open_run(path)
    assert run.finished
    assert np.array_equal(run.solution[-1], serial[-1].final_state())
    with pytest.raises(OSError, match="nowhere"):
        next(solve_in_windows(Swirl(), times, start, 10, options, world(), path="/nowhere/run.h5"))
