"""The simulated schedule has the steps and messages of the real run, on every number of ranks."""

import itertools

import numpy as np
import pytest

from pint import MGRIT, MGRITOptions, TimeGrid
from pint.adjoint.solver import AdjointSolver
from pint.models.dahlquist import Dahlquist
from pint.options import LocalGrids
from pint.parallel.comm import world
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.scaling.schedule import PredictedRun, Schedule
from pint.scaling.workload import training_run
from tests.ranks.counting import Counting


def num_messages(comm):
    """Return how many messages the schedule counts."""
    calls = comm.calls
    collective = sum(calls[name] for name in ("allgather", "sum", "bcast"))
    return {"send": calls["isend"], "wait": calls["irecv"], "collective": collective}


def check_solve(comm, num_steps, options, backward=None):
    """Compare a solve, and its adjoint, with the schedule."""
    solver = MGRIT(Dahlquist(-1.0), TimeGrid.uniform(0, 1, num_steps), options, comm)
    adjoint = None if backward is None else AdjointSolver(solver, backward)
    for _ in range(2):  # the first solve also tries the model
        comm.calls.clear()
        result = solver.solve(1.0)
        if adjoint is not None:
            adjoint.solve(result, 1.0, total=False)
    expected = {("forward", level): n for level, n in result.num_steps.items()}
    if adjoint is not None:
        counted = adjoint.solver.driver.num_steps
        expected.update({("adjoint", level): n for level, n in counted.items()})
    run = PredictedRun(num_steps=num_steps, forward=options, backward=backward)
    schedule = Schedule.of(run, world().size)
    assert schedule.steps()[world().rank] == expected
    assert schedule.messages()[world().rank] == num_messages(comm)


@pytest.mark.parametrize("coarsest", ["gather", "pipelined", "relaxation", "truncated"])
def test_solves(coarsest):
    comm = Counting(world())
    cases = itertools.product((97, 3), (1, 2, 4), (4, (2, 3)), "VFW", (0, 1), (True, False))
    for number, (num_steps, levels, m, cycle, relax, skips) in enumerate(cases):
        if number % 5 == world().size % 5:  # other ones on each number of ranks
            options = MGRITOptions(
                levels=levels, coarsening=m, cycle=cycle, relax=relax, max_iterations=3,
                coarsest=LocalGrids(3) if coarsest == "truncated" else coarsest,
                skip_first_down=skips,
            )  # fmt: skip
            check_solve(comm, num_steps, options)


def test_what_ends_at_the_last_point_or_goes_around():
    comm = Counting(world())
    check_solve(comm, 50, MGRITOptions(levels=2, coarsening=8, periodic=True, max_iterations=2))
    check_solve(
        comm, 64, MGRITOptions(levels=3, coarsening=2, residual_points="none", max_iterations=2)
    )
    check_solve(
        comm,
        60,
        MGRITOptions(levels=2, coarsening=4, residual_points="all_points", max_iterations=2),
    )


def test_adjoint_solves():
    comm = Counting(world())
    for num_steps, levels, coarsest in ((96, 3, "gather"), (97, 2, "pipelined"), (5, 2, "gather")):
        options = MGRITOptions(levels=levels, coarsening=4, coarsest=coarsest, max_iterations=2)
        check_solve(comm, num_steps, options, options)


TRAININGS = [
    # steps, levels, coarsest, coarse step, substep
    (40, 3, "gather", "averaged", 4),
    (41, 2, "pipelined", "averaged", 2),
    (47, 3, "truncated", "averaged", 4),
    (41, 3, "gather", "midpoint", 2),
    (40, 3, "truncated", "midpoint", 4),
    (43, 3, "gather", "implicit", 4),
    (41, 2, "truncated", "implicit", 4),
    (16, 1, "gather", "averaged", 4),
]


def trained_steps(solver):
    """Evaluations of this rank in the last step of training, by solve and level."""
    sweep = solver.layer_solvers[0]
    both = (("forward", sweep.forward), ("adjoint", sweep.backward.solver))
    return {
        (name, level): count for name, one in both for level, count in one.driver.num_steps.items()
    }


@pytest.mark.ranks(2, 4)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("num_steps", "levels", "coarsest", "coarse_step", "substep"), TRAININGS)
def test_training(groups, num_steps, levels, coarsest, coarse_step, substep):
    comm = Counting(world())
    layers = RecurrenceOptions(
        num_features=2, hidden=4, layers=2, coarse_step=coarse_step, substep=substep
    )
    network = Network(layers, 3)
    options = MGRITOptions(
        levels=levels, coarsening=4, max_iterations=2,
        coarsest=LocalGrids(3) if coarsest == "truncated" else coarsest,
    )  # fmt: skip
    solver = NetworkSolver(
        network, num_steps, options, options, comm, time_ranks=world().size // groups
    )
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, num_steps, 2)).astype(np.float32), np.array([0, 1, 2, 0])
    solver.loss_and_gradient(x, y)
    comm.calls.clear()
    solver.loss_and_gradient(x, y)
    run = training_run(network, num_steps, 4, options, options, groups)
    schedule = Schedule.of(run, world().size // groups)
    rank = world().rank % schedule.size
    program = schedule.programs[schedule.kinds[rank]]
    assert schedule.messages()[rank] == num_messages(comm)
    assert schedule.steps()[rank] == trained_steps(solver)
    bound = [one.size for one in program.operations if one.name == "bind"]
    assert sum(bound) == solver.layer_solvers[0].num_inputs
