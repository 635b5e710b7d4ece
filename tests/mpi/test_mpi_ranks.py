"""What MPI alone can show; and its results have the bits of ranks that are threads.

Run under mpiexec, where every rank runs every line. A test that fails on one rank ends all of them:
mpiexec -n 3 python -m mpi4py -m pytest -x tests/mpi
"""

import os
from functools import partial

import numpy as np
import pytest

from pint import (
    MGRIT,
    AdjointSolver,
    MGRITOptions,
    Objective,
    TimeGrid,
    run_on_threads,
    value_and_gradient,
)
from pint.models.brusselator import Brusselator
from pint.models.dahlquist import Dahlquist
from pint.parallel.comm import world
from pint.parallel.mpi import MPICommunicator
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from tests.engine_models import CompiledSwirl, Drift, Swirl, uneven_times

COMM = world()
MANY = pytest.mark.skipif(COMM.size > 2, reason="thousands of messages; two ranks are enough")
START = np.array([0.5, -0.3, 0.8])


def same_bits(parallel, serial):
    """Compare a result with the result of one process, to the last bit; collective."""
    assert np.array_equal(parallel.gather(), serial.u)
    assert np.array_equal(parallel.residuals, serial.residuals, equal_nan=True)
    assert parallel.status is serial.status
    assert parallel.detail == serial.detail


def test_mpiexec_and_mpi4py_belong_together():
    """Of different MPI libraries, they start n worlds of one process, where all tests pass."""
    assert COMM.size == int(os.environ.get("PINT_TEST_RANKS", COMM.size)) > 1
    assert isinstance(COMM, MPICommunicator)


# --- The bits of threads --------------------------------------------------------------------------


def solved(options, comm):
    result = MGRIT(CompiledSwirl(1.0, coarsening=(3, 2)), uneven_times(97), options, comm)
    return bits(result.solve(START))


def bits(result):
    return [result.gather(), result.residuals, result.final_state()]


def differentiated(comm):
    forward = MGRIT(Swirl(0.9), uneven_times(41), MGRITOptions(levels=3, max_iterations=3), comm)
    found = AdjointSolver(forward).solve(forward.solve(START), START)
    return [found.w, found.initial_gradient, found.parameter_gradient, found.residuals]


def evaluated(comm):
    objective = Objective(running=lambda u, index, times: (np.sin(1e3 * u[:, 0]), np.cos(u)))
    options = MGRITOptions(max_iterations=2, driver="loop", skip_first_down=False)
    grid = TimeGrid.uniform(0, 1, 61)
    solver = AdjointSolver(MGRIT(Brusselator(), grid, options, comm))
    found = value_and_gradient(objective, solver, np.array([0.0, 1.0]))
    return [np.array(found.value), found.initial_gradient, found.parameter_gradient]


def trained(cell, comm):
    options = RecurrenceOptions(num_features=2, hidden=8, layers=2, cell=cell, dtype=np.float32)
    network = Network(options, 3, bidirectional=True, seed=1)
    x = np.random.default_rng(3).normal(size=(4, 37, 2)).astype(np.float32)
    cycles = MGRITOptions(levels=3, coarsening=2, relax=(0, 1), max_iterations=2)
    solver = NetworkSolver(network, 37, cycles, cycles, comm)
    found = solver.loss_and_gradient(x, np.array([0, 1, 2, 0]), inputs=True)
    return [np.array(found.loss), found.gradient, found.input_gradient, found.forward_residuals]


def collected(comm):
    rng = np.random.default_rng(comm.rank)
    found = [np.arange(float(comm.rank)), np.array([comm.num_hosts(), comm.any(comm.rank == 1)])]
    for size in (1, 10, 1000, 100_000):  # MPICH has several algorithms
        for dtype in (np.float32, np.float64, np.int64):
            found.append(comm.sum((1e3 * rng.normal(size=(size, 2))).astype(dtype)))
    rows = np.full((comm.rank % 3, 2), float(comm.rank))
    found += [comm.allgather_blocks(rows), comm.bcast(rng.normal(size=3), comm.size - 1)]
    gathered = comm.gather_blocks(rows, comm.size - 1)
    found += [] if gathered is None else [gathered]
    for group in (comm.duplicate(), comm.reversed(), comm.split(2), comm.across(2)):
        found.append(group.allgather_blocks(np.array([group.rank, group.size, comm.rank])))
    return found


@pytest.mark.parametrize(
    "action",
    [
        partial(solved, MGRITOptions(levels=3, coarsening=(3, 2), max_iterations=2)),
        partial(
            solved,
            MGRITOptions(
                levels=3, coarsening=(3, 2), cycle="F", coarsest="pipelined", driver="compiled"
            ),
        ),
        differentiated,
        evaluated,
        partial(trained, "implicit"),
        partial(trained, "lstm"),
        collected,
    ],
    ids=["stack", "compiled", "adjoint", "objective", "implicit", "lstm", "collectives"],
)
def test_threads_give_the_same_bits(action):
    for ours, theirs in zip(
        action(COMM), run_on_threads(COMM.size, action)[COMM.rank], strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()


# --- Errors and communicators ---------------------------------------------------------------------


def test_an_error_of_one_rank_is_raised_on_all():
    def fail():
        with COMM.collective():
            if COMM.rank == 1:
                raise FileNotFoundError("caf\udce9: mine")

    suffix = "" if COMM.rank == 1 else r" \(on rank 1\)"
    with pytest.raises(FileNotFoundError, match=rf": mine{suffix}$"):
        fail()
    solver = MGRIT(Swirl(), np.arange(20.0), None, COMM)
    with pytest.raises(ValueError, match=rf"shape \(2,\), expected \(3,\){suffix}$"):
        solver.solve(np.ones(2) if COMM.rank == 1 else START)


@MANY
def test_thousands_of_solvers_share_their_communicators():
    """An MPI library has some two thousand; a loop that makes solvers must not use them up."""
    times = np.arange(5.0)
    for _ in range(2500):
        solver = MGRIT(Dahlquist(), times, None, COMM)
    for _ in range(300):
        AdjointSolver(solver)
    result = solver.solve(1.0)
    assert abs(result.final_state() - 2.0**-4) < 1e-14


def test_some_of_the_ranks_may_solve_apart():
    from mpi4py import MPI

    color = COMM.rank % 2
    part = MPI.COMM_WORLD.Split(color, COMM.rank)
    options = MGRITOptions(levels=2, max_iterations=3 + color)  # the parts keep no step
    times = uneven_times(24 + 5 * color)
    result = MGRIT(Swirl(), times, options, part).solve(START)
    assert result.comm.size == part.Get_size()
    same_bits(result, MGRIT(Swirl(), times, options).solve(START))
    part.Free()


def test_an_mpi_communicator_of_one_process():
    from mpi4py import MPI

    options = MGRITOptions(levels=3, max_iterations=3)
    times = uneven_times(24)

    def gradient(comm):
        forward = MGRIT(Swirl(), times, options, comm)
        return AdjointSolver(forward).solve(forward.solve(START), START)

    alone, serial = gradient(MPI.COMM_SELF), gradient(None)
    assert np.array_equal(alone.w, serial.w)
    assert np.array_equal(alone.parameter_gradient, serial.parameter_gradient)


def test_a_solve_after_one_that_an_error_ended_is_refused():
    """All ranks catch it; what they sent would be taken for messages of the next solve."""
    from mpi4py import MPI

    class Failing(Drift):
        num_calls = 0

        def step(self, u, step):
            self.num_calls += 1
            if self.num_calls > 9:
                raise ArithmeticError("Newton's method failed")
            return super().step(u, step)

    own, grid = MPI.COMM_WORLD.Dup(), TimeGrid.uniform(0, 1, 12 * COMM.size)
    options = MGRITOptions(levels=2, coarsening=4, max_iterations=3, skip_first_down=False)
    begin = np.ones(15)
    with pytest.raises(ArithmeticError):
        MGRIT(Failing(), grid, options, own).solve(begin)
    good = MGRIT(Drift(), grid, options, own)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="an error has ended an earlier solve on these"):
            good.solve(begin)
    same_bits(
        MGRIT(Drift(), grid, options, COMM).solve(begin), MGRIT(Drift(), grid, options).solve(begin)
    )


@MANY
def test_communicators_that_are_freed_free_what_was_made_of_them():
    for _ in range(1500):  # MPI has about two thousand
        own = COMM.comm.Dup()
        MGRIT(Dahlquist(), TimeGrid.uniform(0, 1, 4), None, own)
        own.Free()
