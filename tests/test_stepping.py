"""Drivers: the same states whichever way the propagator is called."""

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Propagator, TimeGrid
from pint.comm import SerialCommunicator
from pint.layout import Layout
from pint.mgrit.hierarchy import Level
from pint.stepping import LoopDriver, SingleStackDriver, StackDriver, make_driver
from tests.engine_models import Swirl, one_step, uneven_times

N = 13
TIMES = uneven_times(N)
DRIVERS = {
    "loop": lambda: LoopDriver(Swirl()),
    "single-stack": lambda: SingleStackDriver(Swirl(batched=True)),
    "stack": lambda: StackDriver(Swirl(batched=True)),
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


def level_of(rng, with_g):
    """A level of one rank with random states; slot s holds point s - 1."""
    layout = Layout(np.array([0, N + 1]))
    level = Level(0, TimeGrid(TIMES), layout, SerialCommunicator(), m=4, relax=0)
    level.allocate(np.zeros(3), zero_g=not with_g)
    level.u[...] = rng.normal(size=level.u.shape)
    if with_g:
        level.g[...] = rng.normal(size=level.g.shape)
    return level


def expected_at(u, points):
    """Phi(u_{i-1}) for each point i, by the plain loop's own step."""
    propagator = Swirl()
    return np.array([propagator.step(*one_step(propagator, u[i], TIMES, i)) for i in points])


@pytest.fixture(params=DRIVERS)
def driver(request):
    return DRIVERS[request.param]()


@pytest.mark.parametrize(
    "slots", [slice(2, 15, 1), slice(2, 15, 4), slice(5, 14, 3), slice(14, 15, 1)], ids=str
)
def test_evaluate_is_one_step_from_the_point_before(driver, slots):
    level = level_of(np.random.default_rng(0), with_g=False)
    before = level.u.copy()
    new = driver.evaluate(level, slots)
    points = range(slots.start - 1, slots.stop - 1, slots.step)
    np.testing.assert_allclose(new, expected_at(before[0:], points), rtol=0, atol=1e-15)
    assert np.array_equal(level.u, before)
    assert not np.shares_memory(new, level.u)
    assert driver.num_steps == {0: len(points)}


@pytest.mark.parametrize("with_g", [False, True], ids=["g=0", "g"])
def test_update_changes_its_slots_all_at_once(driver, with_g):
    level = level_of(np.random.default_rng(1), with_g)
    before = level.u.copy()
    slots = slice(2, 15, 2)
    driver.update(level, slots)
    expected = before.copy()
    expected[slots] = expected_at(before, range(1, 14, 2)) + (level.g[slots] if with_g else 0)
    np.testing.assert_allclose(level.u, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("with_g", [False, True], ids=["g=0", "g"])
def test_chain_takes_each_new_state_as_the_next_start(driver, with_g):
    level = level_of(np.random.default_rng(2), with_g)
    expected = level.u.copy()
    for slot in range(4, 9):
        expected[slot] = expected_at(expected, [slot - 1])[0] + (level.g[slot] if with_g else 0)
    driver.chain(level, range(4, 9))
    np.testing.assert_allclose(level.u, expected, rtol=0, atol=1e-15)
    assert driver.num_steps == {0: 5}


def test_no_slots_no_calls(driver):
    level = level_of(np.random.default_rng(3), with_g=True)
    before = level.u.copy()
    assert driver.evaluate(level, slice(15, 15, 4)).shape == (0, 3)
    driver.update(level, slice(16, 15, 4))
    driver.chain(level, range(3, 3))
    assert np.array_equal(level.u, before)
    assert driver.num_steps == {}


@pytest.mark.parametrize(
    ("kind", "batched", "shapes"),
    [
        (LoopDriver, False, [(2,)] * 3),
        (SingleStackDriver, True, [(1, 2)] * 3),
        (StackDriver, True, [(3, 2)]),
    ],
)
def test_what_a_propagator_gets(kind, batched, shapes):
    propagator = Calls(batched)
    u = np.arange(6.0).reshape(3, 2)
    step = TimeGrid.uniform(0, 8, 8).coarsen(2).steps(slice(2, 5, 1))
    assert np.array_equal(kind(propagator).phi(u, step), u / 2)
    assert propagator.shapes == shapes
    firsts = np.concatenate([np.atleast_1d(step.first) for step in propagator.steps])
    stops = np.concatenate([np.atleast_1d(step.stop) for step in propagator.steps])
    assert (firsts.tolist(), stops.tolist()) == ([3, 5, 7], [4.0, 6.0, 8.0])
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
    ],
    ids=["F", "FCF", "skip", "three-levels", "stepping"],
)
@pytest.mark.parametrize("kind", ["loop", "stack"])
def test_steps_are_counted(options, expected, kind):
    settings = {"coarsening": 4, "max_iterations": 1, "driver": kind} | options
    solver = MGRIT(Swirl(batched=True), TimeGrid.uniform(0, 3, 24), MGRITOptions(**settings))
    for _ in range(2):  # each solve counts afresh
        assert solver.solve([0.1, 0.2, 0.3]).num_steps == expected


@pytest.mark.parametrize("relax", [0, 1])
def test_all_drivers_iterate_alike(relax):
    results = [
        MGRIT(
            Swirl(batched=batched),
            TIMES,
            MGRITOptions(levels=3, relax=relax, max_iterations=4, driver=driver),
        ).solve([0.5, -0.3, 0.8])
        for batched, driver in ((False, "loop"), (True, "loop"), (True, "stack"))
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.u, results[0].u, rtol=0, atol=1e-14)
        np.testing.assert_allclose(other.residuals, results[0].residuals, rtol=0, atol=1e-14)
