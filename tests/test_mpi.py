"""Runs tests/mpi under mpiexec; tests/ranks has what ranks that are threads show as well."""

import os
import subprocess
import sys

import pytest

from tests.launcher import ROOT, environment, mpiexec

TIMEOUT = 600
"""Seconds for one number of ranks; fewer than pytest waits before it ends itself."""


def run(command, ranks):
    """Return exit status and output; the status is None where time was up."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | {"PINT_TEST_RANKS": str(ranks)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.terminate()  # and not kill: mpiexec ends the ranks first
        output, _ = process.communicate(timeout=30)
        return None, output
    return process.returncode, output


@pytest.mark.mpi
@pytest.mark.xdist_group("mpi")  # one at a time: they fill the machine
@pytest.mark.parametrize("ranks", [2, 3])
def test_on_ranks(ranks):
    # mpi4py ends all ranks when one fails; -x makes a failed test a failed rank.
    pytest_command = [sys.executable, "-m", "mpi4py", "-m", "pytest", "-x", "-q"]
    settings = ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={TIMEOUT // 4}"]
    command = [*mpiexec(ranks), *pytest_command, *settings, "tests/mpi"]
    status, output = run(command, ranks)
    if status is None:
        pytest.fail(f"not done after {TIMEOUT} s:\n{output}", pytrace=False)
    if status != 0:
        pytest.fail(f"exit status {status} on {ranks} ranks:\n{output}", pytrace=False)
    assert " passed" in output


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one worker")
@pytest.mark.xdist_group("mpi")
def test_one_worker_starts_all_ranks(request):
    """pytest-xdist finds the tests of a group by the end of their names."""
    assert request.node.nodeid.endswith("@mpi")
