"""The simulated schedule beside real runs, and clocks that can be worked out by hand."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, Refinement, TimeGrid
from pint.adjoint.solver import AdjointSolver
from pint.models.dahlquist import Dahlquist
from pint.options import LocalGrids
from pint.rnn.recurrence import Recurrence
from pint.rnn.solver import NetworkSolver
from pint.scaling.costs import Costs, Machine, Table
from pint.scaling.schedule import PredictedRun, Schedule, _Walk
from pint.scaling.simulate import simulate
from pint.scaling.workload import GRUWorkload

NETWORK = Machine(latency=0.5, bandwidth=100.0)


def unit_costs(machine=NETWORK, **seconds):
    """Every step takes a second; other work nothing, but for what is given."""
    names = ("restrict_state", "restrict_residual", "measure", "correct", "start", "rest")
    one = np.array([1])
    tables = {("forward", name, -1): Table(one, np.zeros(1)) for name in names}
    for name in ("sweep", "chain", "residual", "coarse_rhs"):
        tables["forward", name, -1] = Table(one, np.array([seconds.get(name, 1.0)]))
    return Costs(machine, tables)


def any_costs(machine=NETWORK):
    """Every piece of work of a step of training takes a second."""
    names = (
        "sweep", "chain", "residual", "coarse_rhs", "restrict_state", "restrict_residual",
        "measure", "correct", "start", "rest", "bind", "linearize", "gradient", "head", "turn",
        "update",
    )  # fmt: skip
    one = np.array([1])
    return Costs(machine, {("", name, -1): Table(one, np.ones(1)) for name in names})


@pytest.mark.parametrize("cycle", ["V", "F", "W"])
@pytest.mark.parametrize("coarsest", ["gather", "relaxation", "truncated"])
def test_counts_the_steps_of_a_real_run(cycle, coarsest):
    for num_steps, levels, relax in itertools.product((97, 3), (1, 2, 4), (0, 1)):
        options = MGRITOptions(
            levels=levels,
            coarsening=(4, 2),
            cycle=cycle,
            relax=relax,
            coarsest=LocalGrids(3) if coarsest == "truncated" else coarsest,
            max_iterations=3,
        )
        solver = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 1, num_steps), options)
        solver.solve(1.0)
        result = solver.solve(1.0)
        schedule = Schedule.of(PredictedRun(num_steps=num_steps, forward=options), 1)
        expected = {("forward", level): count for level, count in result.num_steps.items()}
        assert schedule.steps() == [expected]


def test_counts_the_steps_of_an_adjoint_solve():
    options = MGRITOptions(levels=3, coarsening=4, max_iterations=2)
    forward = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 1, 64), options)
    adjoint = AdjointSolver(forward, options)
    adjoint.solve(forward.solve(1.0), 1.0)
    counted = adjoint.solver.driver.num_steps
    steps = Schedule.of(PredictedRun(num_steps=64, forward=options, backward=options), 1).steps()[0]
    assert {level: n for (solve, level), n in steps.items() if solve == "adjoint"} == counted


@pytest.mark.parametrize("size", [40, 97, 100])
def test_ranks_that_do_the_same_share_a_program(size):
    """Programs of all ranks, walked one by one, equal the programs of their kinds."""
    options = MGRITOptions(levels=3, coarsening=10, max_iterations=2)
    schedule = Schedule.of(PredictedRun(num_steps=2_000, forward=options), size)
    assert len(schedule.programs) < size
    walk = _Walk(schedule.run, size)
    for rank in range(size):
        assert walk.program(rank).operations == schedule.programs[schedule.kinds[rank]].operations


def test_stepping_in_turn_takes_all_steps_and_a_message_between_ranks():
    run = PredictedRun(num_steps=12, forward=MGRITOptions(levels=1), state_bytes=(25,))
    schedule = Schedule.of(run, 3)
    timing = simulate(schedule, unit_costs(), events=True)
    assert sum(one.count("send") for one in schedule.programs) == 2
    # Chains of 3, 4 and 5 steps, each after the message from the one before.
    message = 0.5 + 25 / 100
    chains = [event for event in timing.events if event.operation.name == "chain"]
    assert [event.rank for event in chains] == [0, 1, 2]
    assert [event.end - event.begin for event in chains] == pytest.approx([3, 4, 5])
    first, second, third = chains
    assert second.begin == pytest.approx(first.end + message)
    assert third.begin == pytest.approx(second.end + message)


def test_steps_side_by_side_take_the_time_of_one_rank():
    """With free messages, F-relaxation takes as long as the rank with the most C-points needs."""
    free = Machine(latency=1e-12, bandwidth=1e30)
    options = MGRITOptions(
        levels=2,
        coarsening=8,
        relax=0,
        max_iterations=1,
        skip_first_down=False,
        residual_points="none",
    )
    run = PredictedRun(num_steps=8 * 64, forward=options)
    costs = unit_costs(free, chain=0.0, residual=0.0, coarse_rhs=0.0)
    for size in (1, 2, 4, 8):  # the table's only size is 1: work in proportion to its size
        seconds = simulate(Schedule.of(run, size), costs).seconds
        assert seconds == pytest.approx(2 * 7 * (64 // size + 1), rel=1e-9)


def test_nobody_waits_less_than_a_message_takes():
    options = MGRITOptions(levels=3, coarsening=4, max_iterations=3)
    schedule = Schedule.of(PredictedRun(num_steps=128, forward=options), 7)
    timing = simulate(schedule, unit_costs(), events=True)
    sends, waits = {}, {}
    for event in timing.events:
        one = event.operation
        if one.kind == "send":
            sends.setdefault((event.rank, event.rank + one.other), []).append(event.end)
        if one.kind == "wait":
            waits.setdefault((event.rank + one.other, event.rank), []).append(event.end)
    assert sends.keys() == waits.keys()
    for pair, ends in waits.items():
        assert len(ends) == len(sends[pair])
        for sent, received in zip(sends[pair], ends, strict=True):
            assert received >= sent + NETWORK.message(8, 7) - 1e-9
    per_rank = [sum(e.end - e.begin for e in timing.events if e.rank == r) for r in range(7)]
    np.testing.assert_allclose(per_rank, timing.clocks)
    np.testing.assert_allclose(sum(timing.phases.values()), timing.clocks)


@pytest.mark.parametrize("truncation", [0, 4])
def test_a_hundred_thousand_ranks_take_seconds(truncation):
    """Training on sequences of ten million elements, on whole or local coarse grids."""
    workload = GRUWorkload(
        steps=10_000_000, coarsest="truncated" if truncation else "gather", truncation=truncation
    )
    simulate(Schedule.of(workload.changed(steps=100).run(), 2), any_costs())  # compiled now
    begin = time.process_time()
    schedule = Schedule.of(workload.run(), 100_000)
    timing = simulate(schedule, any_costs())
    assert time.process_time() - begin < 10
    assert timing.clocks.shape == (100_000,)
    assert sum(counts["forward", 0] for counts in schedule.steps()) >= 2 * 10_000_000
    assert len(schedule.programs) < 50


@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "truncated"])
@pytest.mark.parametrize("coarse_step", ["averaged", "midpoint", "implicit"])
def test_ranks_in_like_places_bind_as_many_inputs(coarsest, coarse_step):
    for size, coarsening in itertools.product((1, 5, 40), (2, 4)):
        workload = GRUWorkload(
            steps=129, coarsening=coarsening, coarse_step=coarse_step, coarsest=coarsest,
            truncation=3 if coarsest == "truncated" else 0, batch=1, features=1, hidden=2,
        )  # fmt: skip
        walk = _Walk(workload.run(), size)
        model = Recurrence(workload.network().options)
        for rank in range(size):
            walk._move(rank)
            stacks = [*walk.forward.hierarchy.own_steps(), *walk.adjoint.own_steps()]
            read = [model.input_windows(stack) for stack in stacks]
            assert walk.num_inputs[rank] == len(np.unique(np.concatenate(read), axis=0))


def test_inputs_are_bound_once_for_all_levels():
    """By hand: 256 inputs, and two means for each part of four steps on either coarse level."""
    bound = Schedule.of(GRUWorkload(steps=256).run(), 1).programs[0].operations[0]
    assert (bound.name, bound.size) == ("bind", 256 + 2 * 64)
    halves = GRUWorkload(steps=128, substep=2)  # parts of two are taken by finest steps
    assert Schedule.of(halves.run(), 1).programs[0].operations[0].size == 128


@pytest.mark.parametrize(("levels", "cell"), [(3, "implicit"), (3, "lstm"), (1, "implicit")])
def test_memory_counts_what_is_kept_of_bound_inputs(levels, cell):
    """Beside what a real model holds once it has taken a step of training."""
    workload = GRUWorkload(steps=64, levels=levels, batch=3, features=2, hidden=5, cell=cell)
    network, rng = workload.network(), np.random.default_rng(0)
    solver = NetworkSolver(network, 64, workload.options, workload.backward)
    solver.loss_and_gradient(rng.standard_normal((3, 64, 2), dtype=np.float32), np.array([0, 1, 2]))
    model = solver.layer_solvers[0].model
    kept = model.bound.rows.nbytes + model._projected.nbytes
    bare = replace(workload.run(), input_bytes=0)
    with_inputs, without = (
        Schedule.of(run, 1).programs[0].num_bytes for run in (workload.run(), bare)
    )
    assert with_inputs - without == kept


def test_memory_of_wide_inputs_that_are_read_where_they_are():
    counted = [
        GRUWorkload(steps=8, levels=1, batch=batch, features=64, hidden=5).run().input_bytes
        for batch in (1, 63, 64)
    ]
    assert counted == [4 * 15, 63 * 4 * (64 + 15), 64 * 4 * 15]


def test_refuses_what_is_not_known_beforehand():
    with pytest.raises(ValueError, match="leave refinement out"):
        PredictedRun(num_steps=8, forward=MGRITOptions(refinement=Refinement(1)))
    with pytest.raises(ValueError, match="size must be at least 1"):
        Schedule.of(PredictedRun(num_steps=8, forward=MGRITOptions()), 0)


def test_costs_that_were_saved_are_the_same(tmp_path):
    table = Table(np.array([1, 10]), np.array([1e-7, 2.5e-3]))
    costs = Costs(
        Machine(name='a "node"', latency=1e-6, bandwidth=1e9, node_latency=3e-7),
        {("forward", "sweep", 0): table, ("", "bind", 0): table},
        call=2e-6, baselines={"torch.nn.GRU": 1e-5}, problem={"batch": 100, "options": "x"},
    )  # fmt: skip
    costs.save(tmp_path / "costs.toml")
    again = Costs.load(tmp_path / "costs.toml")
    assert (again.machine, again.call) == (costs.machine, costs.call)
    assert (again.baselines, again.problem) == (costs.baselines, costs.problem)
    for key, one in costs.tables.items():
        np.testing.assert_array_equal(again.tables[key].sizes, one.sizes)
        np.testing.assert_array_equal(again.tables[key].seconds, one.seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency = ", "not a TOML file"),
        ("[work]", r"\[machine\] is missing"),
        ("[machine]\nlatency = 1.0", "lacks 'bandwidth'"),
        ("[machine]\nlatency = 1.0\nbandwidth = 0.0", "bandwidth must be a positive number"),
        ("[machine]\nlatency = 1.0\nbandwidth = 1.0\nspeeed = 2", "no 'speeed'"),
    ],
)
def test_a_wrong_machine_is_one_clear_error(tmp_path, text, message):
    costs = Costs(NETWORK, {})
    costs.tables["", "x", 0] = Table(np.array([1]), np.array([1.0]))
    costs.save(tmp_path / "costs.toml")
    (tmp_path / "machine.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Costs.load(tmp_path / "costs.toml", tmp_path / "machine.toml")
