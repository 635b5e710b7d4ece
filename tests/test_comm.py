"""Communicators: the serial twin, agreement on errors, and life without mpi4py."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pint.parallel.comm import SerialCommunicator, as_communicator, run
from tests.fake_ranks import on_ranks

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")


class Several(SerialCommunicator):
    """One of two ranks; counts its messages."""

    size = 2

    def __init__(self, rank):
        self.rank = rank
        self.num_messages = 0

    def sum(self, array):
        self.num_messages += 1
        return array


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mpi4py":
            raise ImportError("mpi4py is not installed")
sys.meta_path.insert(0, Blocker())
"""
"""A program that begins with this cannot import mpi4py."""


def run_python(program, **environment):
    """Run a program in a process that no mpiexec started, unless the environment says so."""
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_serial_twin_gathers_and_sums_copies():
    comm = SerialCommunicator()
    array = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert (comm.rank, comm.size, comm.num_hosts()) == (0, 1, 1)
    for collective in (comm.allgather_blocks, comm.gather_blocks, comm.sum):
        new = collective(array)
        assert np.array_equal(new, array)
        assert not np.shares_memory(new, array)
    assert comm.bcast(array, 0) is array
    assert comm.any(True) is True
    assert comm.any(False) is False
    comm.barrier()


def test_serial_twin_is_its_own_duplicate_and_reverse():
    comm = SerialCommunicator()
    assert comm.duplicate() is comm
    assert comm.reversed() is comm


def test_serial_twin_has_nobody_to_talk_to():
    comm = SerialCommunicator()
    with pytest.raises(RuntimeError, match="no other rank to send to"):
        comm.isend(np.zeros(1), 0)
    with pytest.raises(RuntimeError, match="no other rank to receive from"):
        comm.irecv(np.zeros(1), 0)
    with pytest.raises(SystemExit) as caught:
        comm.abort()
    assert caught.value.code == 1


def test_one_rank_agrees_with_itself():
    comm, error = SerialCommunicator(), KeyError("gone")
    with comm.collective():
        pass
    with pytest.raises(KeyError) as caught, comm.collective():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("m is 1"), ValueError, "m is 1 (on rank 1)"),
        (TypeError("not a number"), TypeError, "not a number (on rank 1)"),
        (FileNotFoundError("no café\nhere"), FileNotFoundError, "no café\nhere (on rank 1)"),
        (PermissionError("read only"), PermissionError, "read only (on rank 1)"),
        (ModuleNotFoundError("no pooch"), ImportError, "no pooch (on rank 1)"),
        (NotImplementedError("write it"), NotImplementedError, "write it (on rank 1)"),
        (ZeroDivisionError("by zero"), RuntimeError, "by zero (on rank 1)"),
        (ValueError(), ValueError, "ValueError (on rank 1)"),
        # a file name with an undecodable byte: failing to send it would leave the others waiting
        (OSError("caf\udce9"), OSError, "caf\\udce9 (on rank 1)"),
    ],
)
def test_every_rank_raises_its_own_error_or_that_of_the_first(error, kind, message):
    def rank(comm):
        with comm.collective():
            if comm.rank == 1:
                raise error
            if comm.rank == 3:
                raise KeyError("later")

    results = on_ranks(4, rank)
    assert results[1] is error
    assert isinstance(results[3], KeyError)
    for other in (results[0], results[2]):
        assert type(other) is kind
        assert str(other) == message


def test_no_error_on_any_rank_is_agreed_in_one_message():
    comm = Several(1)
    with comm.collective():
        assert comm.num_messages == 0
    assert comm.num_messages == 1


def test_texts_of_ranks_stay_apart():
    texts = ["", "höchst", "", "b\n"]
    assert on_ranks(4, lambda comm: comm.allgather_text(texts[comm.rank])) == [texts] * 4


def test_as_communicator():
    comm = SerialCommunicator()
    assert isinstance(as_communicator(None), SerialCommunicator)
    assert as_communicator(comm) is comm
    with pytest.raises(TypeError, match=r"comm must be a Communicator or an mpi4py .*'int'"):
        as_communicator(3)


def test_without_mpiexec_the_world_is_one_process():
    program = "from pint.parallel.comm import world\nprint(type(world()).__name__, world().size)"
    assert run_python(program).stdout == "SerialCommunicator 1\n"


def test_without_mpi4py_the_world_is_one_process_and_solves():
    program = """
from pint import MGRIT, MGRITOptions, TimeGrid
from pint.parallel.comm import world
from pint.models.dahlquist import Dahlquist
comm = world()
options = MGRITOptions(tolerance=1e-13)
result = MGRIT(Dahlquist(), TimeGrid.uniform(0, 8, 16), options, comm).solve(1.0)
print(comm.size, abs(result.u[-1] - (2 / 3) ** 16) < 1e-12)
"""
    done = run_python(BLOCKER + program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 True\n", "")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_many_processes_without_mpi4py_are_refused(launcher):
    """Each would think itself alone, and do all the work."""
    done = run_python(BLOCKER + "from pint.parallel.comm import world; world()", **{launcher: "3"})
    assert done.returncode == 1
    assert "mpiexec started 3 processes, but mpi4py cannot be imported" in done.stderr
    assert 'pip install "pint-mgrit[mpi]"' in done.stderr


class TestRun:
    class Several(SerialCommunicator):
        size = 2
        aborted = False

        def abort(self):
            self.aborted = True

    def test_returns_the_status(self):
        assert run(lambda: 3, SerialCommunicator()) == 3

    def test_one_process_just_raises(self):
        with pytest.raises(ZeroDivisionError):
            run(lambda: 1 // 0, SerialCommunicator())

    def test_an_error_on_one_of_many_ends_all(self, capsys):
        comm = self.Several()
        with pytest.raises(ZeroDivisionError):
            run(lambda: 1 // 0, comm)
        assert comm.aborted
        assert "ZeroDivisionError" in capsys.readouterr().err

    def test_an_orderly_exit_ends_only_this_one(self):
        comm = self.Several()
        with pytest.raises(SystemExit):
            run(lambda: sys.exit(0), comm)
        assert not comm.aborted
