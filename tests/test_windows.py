"""Windows of time, one after another."""

import tracemalloc

import numpy as np
import pytest

from pint import MGRITOptions, Propagator, Status, open_run, solve_in_windows
from tests.engine_models import CompiledSwirl, Swirl, stepped, uneven_times

START = np.array([0.5, -0.3, 0.8])


@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
@pytest.mark.parametrize("storage", ["all", "c_points"])
@pytest.mark.parametrize("num_steps", [20, 17, 61, 90])
def test_states_are_those_of_one_solve(num_steps, storage, driver):
    times = uneven_times(61)
    model = CompiledSwirl(0.9, batched=driver == "stack", coarsening=(3, 2))
    options = MGRITOptions(
        levels=3, coarsening=(3, 2), tolerance=1e-13, storage=storage, driver=driver, min_coarse=1
    )
    exact, begin = stepped(Swirl(0.9), times, START), 0
    for result in solve_in_windows(model, times, START, num_steps, options):
        tiny = begin == 60  # a last window of one step
        assert result.status is (Status.STEPPED if tiny else Status.CONVERGED)
        assert result.times[0] == times[begin]
        stride = 3 if storage == "c_points" and not tiny else 1
        ends = exact[begin : begin + num_steps + 1][::stride]
        np.testing.assert_allclose(result.u, ends, rtol=0, atol=1e-11)
        np.testing.assert_allclose(
            result.final_state(), exact[min(begin + num_steps, 61)], rtol=0, atol=1e-11
        )
        begin += num_steps
    assert begin >= 61


def test_steps_keep_their_indices():
    """A model that looks something up by the finest steps must find the same as in one solve."""
    inputs = np.random.default_rng(5).normal(size=41)

    class Fed(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return u / 2 + inputs[step.first : step.last + 1].mean()

    times = np.arange(41.0)
    results = solve_in_windows(Fed(), times, 1.0, 16, MGRITOptions(tolerance=1e-13))
    u = np.concatenate([[1.0], *(result.u[1:] for result in results)])
    np.testing.assert_allclose(u, stepped(Fed(), times, 1.0), rtol=0, atol=1e-12)


def test_a_warm_start_saves_iterations_where_windows_are_alike():
    """A forced motion that repeats itself with the windows."""

    class Forced(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return (u + step.dt * np.cos(2 * np.pi * step.stop)) / (1 + step.dt)

    options = MGRITOptions(tolerance=1e-10, skip_first_down=False, relax=0, coarsening=4)
    times = np.arange(641) / 64
    count = {
        guess: [
            r.num_iterations
            for r in solve_in_windows(Forced(), times, 0.0, 64, options, guess=guess)
        ]
        for guess in ("hold", "shift")
    }
    assert count["shift"][0] == count["hold"][0]
    assert sum(count["shift"][1:]) < sum(count["hold"][1:])


def test_memory_does_not_grow_with_the_length_of_time():
    def peak(num_windows):
        times = np.linspace(0.0, num_windows, 32 * num_windows + 1)
        options = MGRITOptions(coarsening=8, max_iterations=2, driver="stack")
        model = Wide()
        tracemalloc.start()
        for _ in solve_in_windows(model, times, np.ones(1000), 32, options):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    class Wide(Propagator):
        state_shape, dtype, batched = (1000,), np.dtype(float), True

        def step(self, u, step):
            return u / (1 + step.dt)[:, None]

    peak(1)  # what the first solve imports
    few, many = peak(3), peak(24)
    assert few > 33 * 8000  # a window is in it
    assert many < few + 20 * 32 * 24 + 8000  # the times, and not even one state more


@pytest.mark.parametrize("storage", ["all", "c_points"])
def test_one_file_for_all_windows(tmp_path, storage):
    times, path = uneven_times(50), tmp_path / "run.h5"
    options = MGRITOptions(tolerance=1e-12, max_iterations=30, storage=storage)
    windows = solve_in_windows(Swirl(0.5), times, START, 20, options, path=path)
    first = next(windows)
    run = open_run(path)
    assert not run.finished
    solution = run.solution[:]
    assert np.isfinite(solution[:21]).all()
    assert np.isnan(solution[21:]).all()
    rest = list(windows)
    run = open_run(path)
    assert run.finished
    assert np.array_equal(run.times, times)
    exact = stepped(Swirl(0.5), times, START)
    np.testing.assert_allclose(run.solution[:], exact, rtol=0, atol=1e-10)
    history = run.history["residual"][:]
    assert history.shape == (3, 30)
    for row, result in zip(history, [first, *rest], strict=True):
        assert np.array_equal(row[: result.num_iterations], result.residuals, equal_nan=True)
        assert np.isnan(row[result.num_iterations :]).all()


def test_no_window_follows_one_that_diverged():
    class Exploding(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return u * (np.inf if step.last > 12 else 1.0)

    with np.errstate(invalid="ignore"):
        results = list(solve_in_windows(Exploding(), np.arange(41.0), 1.0, 10))
    assert [result.status for result in results] == [Status.COMPLETED, Status.DIVERGED]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"guess": "warm"}, "guess must be one of hold, shift"),
        ({"guess": "shift"}, "needs skip_first_down=False"),
        ({"options": MGRITOptions(periodic=True)}, "one window"),
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=message):
        next(solve_in_windows(Swirl(), uneven_times(9), START, **({"num_steps": 3} | settings)))
