"""Drivers: the same states whichever way the propagator is called."""

from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Propagator, TimeGrid
from pint.drivers.choose import make_driver
from pint.drivers.compiled import CompiledDriver
from pint.drivers.loop import LoopDriver, SingleStackDriver
from pint.drivers.stack import StackDriver
from pint.grid.hierarchy import Hierarchy
from pint.grid.layout import Layout
from pint.parallel.comm import SerialCommunicator
from tests.engine_models import CompiledSwirl, Swirl, one_step, uneven_times

N = 13
M = 4
TIMES = uneven_times(N)
DRIVERS = {
    "loop": lambda: LoopDriver(Swirl()),
    "single-stack": lambda: SingleStackDriver(Swirl(batched=True)),
    "stack": lambda: StackDriver(Swirl(batched=True)),
    "compiled": lambda: CompiledDriver(CompiledSwirl(coarsening=(M,)), threads=1),
}


class Calls(Propagator):
    """Halves the state, and notes the shape of it and the step of every call."""

    state_shape, dtype = (2,), np.dtype(np.float64)

    def __init__(self, batched):
        self.batched = batched
        self.shapes = []
        self.steps = []

    def step(self, u, step):
        self.shapes.append(u.shape)
        self.steps.append(step)
        return u / 2

    def restrict(self, u, level):
        self.shapes.append(u.shape)
        return u[..., :1] + level

    def interpolate(self, u, level):
        self.shapes.append(u.shape)
        return np.repeat(u, 2, axis=-1) - level


def levels_of(driver, with_g, seed):
    """Two levels of one rank with random states; slot s holds point s - 1."""
    rng = np.random.default_rng(seed)
    options = MGRITOptions(coarsening=M)
    layout = Layout(np.array([0, N + 1]))
    hierarchy = Hierarchy.build(TimeGrid(TIMES), layout, options, SerialCommunicator())
    hierarchy.allocate(np.zeros(3), driver.restrict, with_sources=with_g)
    level, coarse = hierarchy.levels
    for array in (level.u, coarse.u, coarse.g, *([level.g] if with_g else [])):
        array[...] = rng.normal(size=array.shape)
    driver.attach(hierarchy)
    return level, coarse


def expected_at(u, points, g=None):
    """Phi(u_{i-1}) + g_i for each point i, by the plain loop's own step; rows of u are slots."""
    propagator = Swirl()
    new = [propagator.step(*one_step(propagator, u[i], TIMES, i)) for i in points]
    return np.array(new) + (0 if g is None else g[np.array(points) + 1])


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=3e-15)


@pytest.fixture(params=DRIVERS)
def driver(request):
    return DRIVERS[request.param]()


@pytest.fixture(params=[False, True], ids=["g=0", "g"])
def with_g(request):
    return request.param


def test_f_sweep_steps_through_every_interval_to_its_end(driver, with_g):
    level, _ = levels_of(driver, with_g, 0)
    expected = level.u.copy()
    for point in (1, 2, 3, 5, 6, 7, 9, 10, 11, 13):
        expected[point + 1] = expected_at(expected, [point], level.g)[0]
    driver.sweep(level, slice(1, 15, M), M - 1)
    close(level.u, expected)
    assert driver.num_steps == {0: 10}


def test_sweeps_from_any_slots(driver, with_g):
    level, _ = levels_of(driver, with_g, 8)
    expected = level.u.copy()
    starts = [1, 4, 7, 11]  # three apart, then four
    for point in (s + k for s in starts for k in (0, 1)):
        expected[point + 1] = expected_at(expected, [point], level.g)[0]
    driver.sweep(level, np.array(starts), 2)
    close(level.u, expected)
    assert driver.num_steps == {0: 8}


def test_weighted_residuals_are_added(driver, with_g):
    level, _ = levels_of(driver, with_g, 9)
    level.relax_weight = 1.25
    driver.attach(Hierarchy([level], MGRITOptions(), SerialCommunicator()))
    expected = level.u.copy()
    new = expected_at(expected, [4, 8, 12], level.g)
    expected[[5, 9, 13]] = 1.25 * new - 0.25 * expected[[5, 9, 13]]
    driver.residual(level, level.c_steps, level.c_rows.start)
    driver.add_residual(level)
    close(level.u, expected)


def test_c_sweep_changes_c_points_all_at_once(driver, with_g):
    level, _ = levels_of(driver, with_g, 1)
    expected = level.u.copy()
    expected[[5, 9, 13]] = expected_at(level.u, [4, 8, 12], level.g)
    driver.sweep(level, slice(4, 14, M), 1)
    close(level.u, expected)
    assert driver.num_steps == {0: 3}


@pytest.mark.parametrize("length", [1, 5])
def test_chain_takes_each_new_state_as_the_next_start(driver, with_g, length):
    level, _ = levels_of(driver, with_g, 2)
    expected = level.u.copy()
    for slot in range(4, 4 + length):
        expected[slot] = expected_at(expected, [slot - 1], level.g)[0]
    driver.chain(level, 3, length)
    close(level.u, expected)
    assert driver.num_steps == {0: length}


def test_nothing_to_do(driver):
    level, _ = levels_of(driver, True, 3)
    before = level.u.copy()
    driver.chain(level, 3, 0)
    driver.sweep(level, slice(level.num_slots, level.num_slots, M), 1)
    driver.sweep(level, np.zeros(0, dtype=np.int64), 1)
    driver.sweep(level, slice(level.num_slots - 1, level.num_slots, M), 2)
    assert np.array_equal(level.u, before)
    assert driver.num_steps == {}


def test_residual_and_its_norms(driver, with_g):
    level, coarse = levels_of(driver, with_g, 4)
    before = level.u.copy()
    driver.residual(level, level.c_steps, level.c_rows.start)
    driver.measure(level)
    r = expected_at(level.u, [4, 8, 12], level.g) - level.u[[5, 9, 13]]
    assert level.r is coarse.g
    close(coarse.g[2:], r)
    np.testing.assert_allclose(level.norms[2:], (r**2).sum(axis=1), rtol=1e-13)
    assert np.array_equal(level.u, before)
    assert driver.num_steps == {0: 3}


def test_restriction_and_correction(driver):
    level, coarse = levels_of(driver, False, 5)
    before = level.u.copy()
    driver.restrict_state(level, coarse)
    assert np.array_equal(coarse.u[1:], before[[1, 5, 9, 13]])
    coarse.u[1:] += [[1.0], [2.0], [3.0], [4.0]]
    driver.correct(level, coarse)
    changed = before.copy()
    changed[[1, 5, 9, 13]] += [[1.0], [2.0], [3.0], [4.0]]
    close(level.u, changed)


def test_coarse_right_hand_side(driver):
    _, coarse = levels_of(driver, False, 6)
    r, v = coarse.g.copy(), coarse.u
    propagator, steps = Swirl(), [coarse.grid.steps(i) for i in (1, 2, 3)]
    phi = np.array([propagator.step(v[i + 1], step) for i, step in enumerate(steps)])
    driver.coarse_rhs(coarse)
    close(coarse.g[2:], r[2:] + v[2:] - phi)
    assert driver.num_steps == {1: 3}


@pytest.mark.parametrize(
    ("kind", "batched", "shapes"),
    [
        (LoopDriver, False, [(2,)] * 4),
        (SingleStackDriver, True, [(1, 2)] * 4),
        (StackDriver, True, [(4, 2)]),
    ],
)
def test_what_a_propagator_gets(kind, batched, shapes):
    propagator = Calls(batched)
    driver = kind(propagator)
    grid, layout = TimeGrid.uniform(0, 8, 16).coarsen(2), Layout(np.array([0, 9]))
    hierarchy = Hierarchy.build(grid, layout, MGRITOptions(), SerialCommunicator())
    level, coarse = hierarchy.levels
    level = replace(level, index=1)
    coarse = replace(coarse, index=2)
    level.u, level.r = np.arange(20.0).reshape(10, 2), np.zeros((6, 2))
    driver.residual(level, level.c_steps, level.c_rows.start)
    assert propagator.shapes == shapes
    firsts = np.concatenate([np.atleast_1d(step.first) for step in propagator.steps])
    stops = np.concatenate([np.atleast_1d(step.stop) for step in propagator.steps])
    assert (firsts.tolist(), stops.tolist()) == ([3, 7, 11, 15], [2.0, 4.0, 6.0, 8.0])
    assert {step.level for step in propagator.steps} == {1}
    if not batched:
        assert [type(field) for field in propagator.steps[0]] == [int, float, float, int, int]


@pytest.mark.parametrize(
    ("kind", "batched", "shapes"),
    [
        (LoopDriver, False, [(2,), (2,), (1,), (1,)]),
        (SingleStackDriver, True, [(2, 2), (2, 1)]),
        (StackDriver, True, [(2, 2), (2, 1)]),
    ],
)
def test_moves_between_levels(kind, batched, shapes):
    propagator = Calls(batched)
    driver = kind(propagator)
    u = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert driver.restrict(u, 5).tolist() == [[6.0], [8.0]]
    assert driver.interpolate(u[:, :1], 1).tolist() == [[0.0, 0.0], [2.0, 2.0]]
    assert propagator.shapes == shapes


@pytest.mark.parametrize(
    ("driver", "batched", "kind"),
    [
        ("auto", False, LoopDriver),
        ("loop", False, LoopDriver),
        ("auto", True, StackDriver),
        ("stack", True, StackDriver),
        ("loop", True, SingleStackDriver),
    ],
)
def test_options_choose_the_driver(driver, batched, kind):
    made = make_driver(Swirl(batched=batched), MGRITOptions(driver=driver))
    assert type(made) is kind


@pytest.mark.parametrize(
    ("driver", "kind"),
    [("auto", CompiledDriver), ("compiled", CompiledDriver), ("stack", StackDriver)],
)
def test_a_kernel_is_used_unless_another_driver_is_asked_for(driver, kind):
    made = make_driver(CompiledSwirl(batched=True), MGRITOptions(driver=driver))
    assert type(made) is kind


def test_compiled_without_a_kernel_is_refused():
    with pytest.raises(ValueError, match=r"needs a propagator with a kernel, and Swirl has none"):
        MGRIT(Swirl(), TIMES, MGRITOptions(driver="compiled"))


def test_stack_of_an_unbatched_propagator_is_refused():
    with pytest.raises(ValueError, match=r"needs a batched propagator, and Swirl is not: set batc"):
        MGRIT(Swirl(), TIMES, MGRITOptions(driver="stack"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # One V-cycle of F-relaxation, N = 24, m = 4: 18 F-points down, 6 residuals, 18 up;
        # 6 coarse evaluations for the right-hand side, 6 to solve.
        ({"relax": 0, "skip_first_down": False}, {0: 18 + 6 + 18, 1: 6 + 6}),
        # FCF: one more sweep through F- and C-points.
        ({"relax": 1, "skip_first_down": False}, {0: 24 + 18 + 6 + 18, 1: 6 + 6}),
        # No way down: the coarsest level is solved, and F-relaxation fills in.
        ({"relax": 1, "skip_first_down": True}, {0: 18, 1: 6}),
        # Per level, and 6 // 2 = 3 steps on the third.
        (
            {"relax": (0, 2), "skip_first_down": False, "levels": 3, "coarsening": (4, 2)},
            {0: 18 + 6 + 18, 1: 6 + 2 * 6 + 3 + 3 + 3, 2: 3 + 3},
        ),
        ({"levels": 1}, {0: 24}),
        # The F-points that one cycle leaves behind are those that the next one begins with.
        (
            {"relax": 1, "max_iterations": 3},
            {0: 18 + 2 * (6 + 18 + 6 + 18), 1: 6 + 2 * (6 + 6)},
        ),
    ],
    ids=["F", "FCF", "skip", "three-levels", "stepping", "several-cycles"],
)
@pytest.mark.parametrize("kind", ["loop", "stack", "compiled"])
def test_steps_are_counted(options, expected, kind):
    settings = {"coarsening": 4, "max_iterations": 1, "driver": kind} | options
    solver = MGRIT(
        CompiledSwirl(batched=True, coarsening=(4, 2)),
        TimeGrid.uniform(0, 3, 24),
        MGRITOptions(**settings),
    )
    for _ in range(2):  # each solve counts afresh
        assert solver.solve([0.1, 0.2, 0.3]).num_steps == expected


@pytest.mark.parametrize("relax", [0, 1])
def test_all_drivers_iterate_alike(relax):
    results = [
        MGRIT(
            CompiledSwirl(batched=batched, coarsening=(2, 2)),
            TIMES,
            MGRITOptions(levels=3, relax=relax, max_iterations=4, driver=driver),
        ).solve([0.5, -0.3, 0.8])
        for batched, driver in (
            (False, "loop"),
            (True, "loop"),
            (True, "stack"),
            (False, "compiled"),
        )
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.u, results[0].u, rtol=0, atol=1e-14)
        np.testing.assert_allclose(other.residuals, results[0].residuals, rtol=0, atol=1e-14)
