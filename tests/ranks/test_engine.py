"""The engine on several ranks."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Propagator, Status, TimeGrid
from pint.grid.layout import Layout
from pint.models.dahlquist import Dahlquist
from pint.options import LocalGrids
from pint.parallel.comm import world
from tests.engine_models import CompiledSwirl, Drift, Swirl, backpropagated, stepped, uneven_times
from tests.rank_choices import crossed
from tests.ranks.counting import Counting
from tests.ranks.references import reference

START = np.array([0.5, -0.3, 0.8])
NUM_STEPS = [24, 97, 128, 1, 2, 5]


def wave(phase, t):
    return np.cos(t + phase)


def same_bits(parallel, serial):
    """Compare a result with the result of one process, to the last bit; collective."""
    assert np.array_equal(parallel.gather(), serial.u)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert parallel.status is serial.status
    assert parallel.detail == serial.detail


def random_bounds(num_steps, rng):
    """Return bounds of blocks of any length, empty ones among them; the same on every rank."""
    return np.array([0, *sorted(rng.integers(0, num_steps + 2, world().size - 1)), num_steps + 1])


# --- The trajectory ------------------------------------------------------------------------------


SHAPES = [*((N, levels) for N in (24, 97, 128) for levels in (2, 3, 4)), (1, 2), (2, 2), (5, 2)]


@pytest.mark.parametrize(("shape", "m", "relax"), crossed(SHAPES, [2, 4, 8], [0, 1], of=3))
def test_serial_trajectory(shape, m, relax):
    num_steps, levels = shape
    times = uneven_times(num_steps)
    exact = reference(stepped, Swirl(0.2), times, START)
    one_way, other_way = ("gather", "stack"), ("pipelined", "loop")
    if (num_steps + m // 2 + levels + relax) % 2:
        one_way, other_way = other_way, one_way
    for dtype, tolerance, allowed, (coarsest, driver) in (
        (np.float64, 1e-13, 1e-12, one_way),
        (np.float32, 2e-6, 1e-5, other_way),
    ):
        options = MGRITOptions(
            levels=levels,
            coarsening=m,
            relax=relax,
            tolerance=tolerance,
            coarsest=coarsest,
            driver=driver,
        )
        propagator = Swirl(0.2, batched=driver == "stack", dtype=dtype)
        result = MGRIT(propagator, times, options, world()).solve(START)
        assert result.status in (Status.CONVERGED, Status.STEPPED)
        own = exact[result.first : result.first + len(result.u)]
        assert np.abs(result.u - own).max(initial=0) < allowed


@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "relaxation"])
@pytest.mark.parametrize("num_steps", NUM_STEPS)
@pytest.mark.parametrize("driver", ["loop", "compiled"])
def test_loop_and_compiled_drivers_give_the_bits_of_one_process(num_steps, coarsest, driver):
    times = uneven_times(num_steps)
    for m, levels in crossed([2, 4, 8], [2, 3, 4], of=3):
        options = MGRITOptions(
            levels=levels,
            coarsening=m,
            relax=(levels % 2, 1),
            max_iterations=2,
            skip_first_down=m == 4,
            coarsest=coarsest,
            driver=driver,
        )
        if driver == "loop":
            propagator = Swirl(1.0, batched=levels == 3)
        else:
            propagator = CompiledSwirl(1.0, coarsening=(m,) * (levels - 1))
        serial = reference(MGRIT(propagator, times, options).solve, START)
        same_bits(MGRIT(propagator, times, options, world()).solve(START), serial)


def test_any_layout_options_sources_and_guess():
    """Blocks that start and end anywhere, or are empty, rank 0's included."""
    rng, places = np.random.default_rng(11), np.random.default_rng(12)
    for _ in range(16):
        num_steps = int(rng.integers(1, 50))
        times = uneven_times(num_steps)
        options = MGRITOptions(
            levels=int(rng.integers(1, 5)),
            coarsening=tuple(rng.integers(2, 6, 3).tolist()),
            min_coarse=int(rng.integers(1, 3)),
            relax=tuple(rng.integers(0, 3, 3).tolist()),
            max_iterations=int(rng.integers(1, 4)),
            skip_first_down=bool(rng.integers(2)),
            coarsest=str(rng.choice(["gather", "pipelined", "relaxation"])),
        )
        sources = rng.normal(size=(num_steps + 1, 3))
        guess = partial(wave, rng.normal())
        serial = MGRIT(Swirl(1.0), times, options)
        layout = Layout(random_bounds(num_steps, places))
        parallel = MGRIT(Swirl(1.0), times, options, world(), layout)
        block = parallel.block
        same_bits(
            parallel.solve(START, guess, sources[block.start : block.stop]),
            reference(serial.solve, START, guess, sources),
        )


def test_levels_that_differ_in_space():
    times = np.linspace(0, 0.2, 38)
    start = np.random.default_rng(4).normal(size=15)
    for coarsest in ("gather", "pipelined"):
        options = MGRITOptions(levels=3, max_iterations=3, coarsest=coarsest)
        serial = reference(MGRIT(Drift(), times, options).solve, start)
        same_bits(MGRIT(Drift(), times, options, world()).solve(start), serial)
        stack = MGRIT(Drift(batched=True), times, options, world()).solve(start)
        np.testing.assert_allclose(stack.gather(), serial.u, rtol=0, atol=1e-13)


def test_states_larger_than_a_message_buffer():
    class Large(Propagator):
        state_shape, dtype, batched = (40_000,), np.dtype(float), True

        def step(self, u, step):
            return u / (1 + step.dt[:, None])

    start = np.linspace(-1, 1, 40_000)
    options = MGRITOptions(levels=2, max_iterations=2)
    serial = reference(MGRIT(Large(), np.arange(17.0), options).solve, start)
    same_bits(MGRIT(Large(), np.arange(17.0), options, world()).solve(start), serial)


@pytest.mark.ranks(2)
@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
def test_torch_tensors_are_sent(coarsest):
    torch = pytest.importorskip("torch", reason="torch is an independent reference, not required")

    class Library(Propagator):
        state_shape, dtype, batched = (3,), np.dtype(float), True

        def __init__(self, tanh):
            self.tanh = tanh

        def step(self, u, step):
            return 0.9 * self.tanh(u) + 0.1

    times = uneven_times(29)
    options = MGRITOptions(levels=3, max_iterations=3, coarsest=coarsest)
    result = MGRIT(Library(torch.tanh), times, options, world()).solve(torch.as_tensor(START))
    serial = reference(MGRIT(Library(np.tanh), times, options).solve, START)
    assert isinstance(result.u, torch.Tensor)
    np.testing.assert_allclose(result.gather(), serial.u, rtol=0, atol=1e-14)
    np.testing.assert_allclose(result.final_state(), serial.u[-1], rtol=0, atol=1e-14)


# --- The result ----------------------------------------------------------------------------------


@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "truncated"])
@pytest.mark.parametrize("num_steps", [1, 5, 24, 29])
def test_own_steps_are_all_that_a_rank_takes(num_steps, coarsest):
    taken = set()

    class Noting(Swirl):
        def step(self, u, step):
            taken.add((step.level, step.first, step.last))
            return super().step(u, step)

    options = MGRITOptions(
        levels=3, coarsening=(3, 2), max_iterations=2,
        coarsest=LocalGrids(3) if coarsest == "truncated" else coarsest,
    )  # fmt: skip
    solver = MGRIT(Noting(), uneven_times(num_steps), options, world())
    solver.solve(START)
    own = solver.hierarchy.own_steps()
    assert [stack.level for stack in own] == list(range(len(own)))
    assert taken == {
        (stack.level, first, last)
        for stack in own
        for first, last in zip(stack.first.tolist(), stack.last.tolist(), strict=True)
    }


@pytest.mark.parametrize("num_steps", [1, 2, 5, 24])
def test_every_rank_knows_its_part_and_the_end(num_steps):
    times = uneven_times(num_steps)
    solver = MGRIT(Swirl(), times, MGRITOptions(levels=1), world())
    result = solver.solve(START)
    exact = stepped(Swirl(), times, START)
    assert solver.layout.size == world().size
    assert result.first == solver.block.start
    assert np.array_equal(result.u, exact[solver.block.start : solver.block.stop])
    assert np.array_equal(result.gather(), exact)
    assert np.array_equal(result.final_state(), exact[-1])
    counts = world().sum(np.array([result.num_steps.get(0, 0)]))
    assert counts.tolist() == [num_steps]


def test_only_the_owner_of_point_zero_needs_the_initial_value():
    times = uneven_times(24)
    options = MGRITOptions(levels=3, max_iterations=4)
    start = START if world().rank == 0 else np.full(3, np.nan)
    serial = reference(MGRIT(Swirl(), times, options).solve, START)
    same_bits(MGRIT(Swirl(), times, options, world()).solve(start), serial)


# --- The adjoint ---------------------------------------------------------------------------------


WAYS = [(2, 4, 1, "gather", True), (4, 2, 0, "pipelined", False), (3, 3, 1, "gather", False)]


@pytest.mark.parametrize(("num_steps", "ways"), crossed(NUM_STEPS, WAYS, of=3))
def test_gradients_are_those_of_serial_backpropagation(num_steps, ways):
    m, levels, relax, coarsest, batched = ways
    times = uneven_times(num_steps)
    states = stepped(Swirl(), times, START)
    d_states = np.random.default_rng(5).normal(size=states.shape)
    options = MGRITOptions(
        levels=levels, coarsening=m, relax=relax, tolerance=1e-13, coarsest=coarsest
    )
    forward = MGRIT(Swirl(batched=batched), times, options, world())
    solution = forward.solve(START)
    backward = AdjointSolver(forward)
    block = backward.solver.block
    # Only the rank that owns the last point has the gradient there.
    last = d_states[-1] if num_steps in forward.block else np.full(3, np.nan)
    for sources in (d_states[::-1][block.start : block.stop], None):
        if sources is None:
            d_states[:-1] = 0
        w, d_parameters = backpropagated(Swirl(), times, states, d_states)
        result = backward.solve(solution, last, sources)
        assert result.status in (Status.CONVERGED, Status.STEPPED)
        assert np.abs(result.initial_gradient - w[0]).max() < 1e-12
        assert np.abs(result.parameter_gradient - d_parameters).max() < 1e-12
        rows = result.last - np.arange(len(result.w))
        assert np.abs(result.w - w[rows]).max(initial=0) < 1e-12
        assert world().sum(np.array([len(rows)])).tolist() == [num_steps + 1]


def test_adjoint_of_any_layout_gives_the_bits_of_one_process():
    rng, places = np.random.default_rng(13), np.random.default_rng(14)
    for _ in range(12):
        num_steps = int(rng.integers(1, 40))
        times = uneven_times(num_steps)
        options = MGRITOptions(
            levels=int(rng.integers(1, 5)),
            coarsening=tuple(rng.integers(2, 5, 3).tolist()),
            min_coarse=1,
            max_iterations=3,
            coarsest=str(rng.choice(["gather", "pipelined", "relaxation"])),
        )
        bounds = random_bounds(num_steps, places)
        bounds[1:] = np.maximum(bounds[1:], 1)  # rank 0 owns point 0
        d_states = rng.normal(size=(num_steps + 1, 3))

        def gradient(comm, layout, times=times, options=options, d_states=d_states):
            forward = MGRIT(Swirl(1.0), times, options, comm, layout)
            backward = AdjointSolver(forward)
            block = backward.solver.block
            sources = d_states[::-1][block.start : block.stop]
            return backward.solve(forward.solve(START), d_states[-1], sources)

        parallel, serial = gradient(world(), Layout(bounds)), reference(gradient, None, None)
        rows = serial.last - parallel.last + np.arange(len(parallel.w))
        assert np.array_equal(parallel.w, serial.w[rows])
        assert np.array_equal(parallel.initial_gradient, serial.initial_gradient)
        assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
        np.testing.assert_allclose(
            parallel.parameter_gradient, serial.parameter_gradient, rtol=0, atol=1e-10
        )
        total = parallel.parameter_gradient
        assert np.array_equal(world().bcast(total.copy(), 0), total)  # the same on every rank


def test_adjoint_of_levels_that_differ_in_space():
    times = np.linspace(0, 0.05, 38)
    start, w = np.random.default_rng(3).normal(size=(2, 15))
    options = MGRITOptions(levels=3, max_iterations=3)
    for batched in (False, True):

        def gradient(comm, batched=batched):
            forward = MGRIT(Drift(batched=batched), times, options, comm)
            return AdjointSolver(forward).solve(forward.solve(start), w)

        difference = gradient(world()).initial_gradient - gradient(None).initial_gradient
        assert np.abs(difference).max() < 1e-13


def test_adjoint_needs_point_zero_on_rank_zero():
    layout = Layout(np.array([0] * world().size + [10]))
    solver = MGRIT(Swirl(), np.arange(10.0), None, world(), layout)
    with pytest.raises(ValueError, match="layout in which rank 0 owns point 0"):
        AdjointSolver(solver)


# --- Errors --------------------------------------------------------------------------------------


def test_a_wrong_initial_value_on_one_rank_is_raised_on_all():
    solver = MGRIT(Swirl(), np.arange(20.0), None, world())
    where = "" if world().rank == 1 else r" \(on rank 1\)"
    with pytest.raises(ValueError, match=rf"shape \(2,\), expected \(3,\){where}$"):
        solver.solve(np.ones(2) if world().rank == 1 else START)
    assert solver.solve(START).status is Status.COMPLETED  # and nothing is left behind


@pytest.mark.parametrize("more", [-1, 0, 13])
def test_a_step_that_is_wrong_on_the_last_rank_is_raised_on_all(more):
    class WrongAtTheEnd(Propagator):
        state_shape, dtype = (3,), np.dtype(float)

        def step(self, u, step):
            return u[:1] if world().rank == world().size - 1 else u

    solver = MGRIT(WrongAtTheEnd(), np.arange(world().size + more + 1.0), None, world())
    with pytest.raises(ValueError, match=r"step on level 0 returned shape \(1,\), expected \(3,\)"):
        solver.solve(START)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TypeError("mine"), TypeError),
        (KeyError("mine"), RuntimeError),
        (FileNotFoundError("caf\udce9: mine"), FileNotFoundError),
    ],
)
def test_collective(error, kind):
    def fail(on_ranks, error):
        with world().collective():
            if world().rank in on_ranks:
                raise error

    own = world().rank == 1
    with pytest.raises(type(error) if own else kind, match="mine") as caught:
        fail([1], error)
    assert (caught.value is error) == own
    with pytest.raises(ValueError, match="on" if world().rank else r"on 1 \(on rank 1\)"):
        fail(range(1, world().size), ValueError(f"on {world().rank}"))


def test_sources_of_the_wrong_length_on_one_rank_are_raised_on_all():
    solver = MGRIT(Swirl(), np.arange(20.0), None, world())
    sources = np.zeros((len(solver.block) + (world().rank == 1), 3))
    with pytest.raises(ValueError, match=r"sources have shape \(\d+, 3\) on rank 1, expected"):
        solver.solve(START, sources=sources)


def test_divergence_is_seen_by_all_and_named_alike():
    class Broken(Propagator):
        state_shape, dtype = (), np.dtype(float)

        def step(self, u, step):
            return u * np.nan if step.level == 0 and step.last == 9 else 0.9 * u

    times = np.linspace(0, 4, 41)
    options = MGRITOptions(coarsening=4, tolerance=1e-9, relax=0)
    result = MGRIT(Broken(), times, options, world()).solve(1.0)
    assert result.status is Status.DIVERGED
    assert result.detail.endswith("residual norm nan, worst at point 12, time 1.2")
    same_bits_of_nan = MGRIT(Broken(), times, options).solve(1.0)
    assert result.detail == same_bits_of_nan.detail
    assert np.array_equal(result.gather(), same_bits_of_nan.u, equal_nan=True)


# --- Communicators -------------------------------------------------------------------------------


def test_solvers_may_take_turns():
    times = uneven_times(29)
    options = MGRITOptions(levels=3, coarsening=3, max_iterations=3)
    first = MGRIT(Swirl(1.0), times, options, world())
    second = MGRIT(Dahlquist(), times, options, world())
    backward = AdjointSolver(first)
    kept = first.solve(START)
    copy = kept.u.copy()
    other = second.solve(1.0)
    gradient = backward.solve(kept, START)
    again = first.solve(START)
    assert np.array_equal(again.u, kept.u)
    assert np.array_equal(kept.u, copy)
    assert np.array_equal(second.solve(1.0).u, other.u)
    assert np.array_equal(backward.solve(again, START).w, gradient.w)
    same_bits(kept, MGRIT(Swirl(1.0), times, options).solve(START))


def test_messages_of_the_caller_are_left_alone():
    """A message under way between the same ranks is not taken for one of the solver's."""
    right, left = (world().rank + 1) % world().size, (world().rank - 1) % world().size
    options = MGRITOptions(levels=2, max_iterations=2)
    solver = MGRIT(Swirl(), uneven_times(24), options, world())
    leaving = world().isend(np.full(3, world().rank, dtype=float), right)
    result = solver.solve(START)
    received = np.empty(3)
    arriving = world().irecv(received, left)
    arriving.wait()
    leaving.wait()
    assert received.tolist() == [left] * 3
    same_bits(result, MGRIT(Swirl(), uneven_times(24), options).solve(START))


def test_ranks_that_differ_are_told():
    with pytest.raises(ValueError, match="the ranks differ in their times or options"):
        MGRIT(Dahlquist(), TimeGrid.uniform(0, 1, 20 + world().rank), None, world())


def test_a_linearization_that_fails_on_one_rank_is_told_on_all():
    class Failing(Dahlquist):
        def linearize(self, u, step):
            if world().rank == world().size - 1:
                raise ValueError("cannot linearise")
            return super().linearize(u, step)

    forward = MGRIT(Failing(), TimeGrid.uniform(0, 1, 32), MGRITOptions(tolerance=1e-9), world())
    result = forward.solve(1.0)
    with pytest.raises(ValueError, match="cannot linearise"):
        AdjointSolver(forward).solve(result, 1.0)


@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
@pytest.mark.parametrize("relax", [0, 1, 2])
@pytest.mark.parametrize("driver", ["loop", "stack", "compiled"])
def test_messages_of_a_cycle(relax, coarsest, driver):
    """One for each neighbour and sweep, one for the coarsest level, one for the norm.

    On the finest level a cycle begins relaxed: nu F-relaxations follow the C-relaxations, and one
    the correction; on the middle level there is one more. Each coarse level has one message for
    its right-hand side.
    """
    propagator = CompiledSwirl(batched=True, coarsening=(2, 2))
    times = uneven_times(32 * world().size)
    calls = []
    for iterations in (3, 4):
        options = MGRITOptions(
            levels=3,
            relax=relax,
            max_iterations=iterations,
            coarsest=coarsest,
            driver=driver,
        )
        counting = Counting(world())
        solver = MGRIT(propagator, times, options, counting)
        counting.calls.clear()
        solver.solve(START)
        calls.append(counting.calls)
    of_a_cycle = calls[1] - calls[0]
    sweeps = (relax + 1) + (relax + 2) + 2 + (coarsest == "pipelined")
    expected = {"sum": 1, "allgather": 1 if coarsest == "gather" else 0}
    expected |= {"irecv": sweeps if world().rank > 0 else 0}
    expected |= {"isend": sweeps if world().rank < world().size - 1 else 0}
    assert of_a_cycle == Counter({name: n for name, n in expected.items() if n})
