"""Runs tests/mpi under mpiexec, on few and on many processes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 300
"""Seconds for one number of ranks."""
LAUNCHED = ("PMI", "HYDI_", "MPI_LOCAL", "OMPI_COMM_", "OMPI_UNIVERSE_")
"""Variables that begin so belong to a process that mpiexec started, or MPI_Init in this one."""


def find_mpiexec():
    """Return the one that MPIEXEC names, the one on the path, or the one beside this Python."""
    beside = Path(sys.executable).parent / "mpiexec"
    known = os.environ.get("MPIEXEC") or shutil.which("mpiexec")
    return known or (str(beside) if beside.exists() else None)


def environment(ranks):
    inherited = {name: x for name, x in os.environ.items() if not name.startswith(LAUNCHED)}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PINT_TEST_RANKS": str(ranks),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        # Open MPI refuses more ranks than cores, and root; other libraries do not read these.
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def run(command, ranks):
    """Return exit status and output; the status is None where time was up."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(ranks),
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
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_on_ranks(ranks):
    mpiexec = find_mpiexec()
    if mpiexec is None:
        pytest.skip("no mpiexec on the path; MPIEXEC may name one")
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    # mpi4py ends all ranks when one fails; -x makes a failed test a failed rank.
    pytest_command = [sys.executable, "-m", "mpi4py", "-m", "pytest", "-x", "-q"]
    settings = ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={TIMEOUT // 3}"]
    command = [mpiexec, "-n", str(ranks), *pytest_command, *settings, "tests/mpi"]
    status, output = run(command, ranks)
    if status is None:
        pytest.fail(f"not done after {TIMEOUT} s:\n{output}", pytrace=False)
    if status != 0:
        pytest.fail(f"exit status {status} on {ranks} ranks:\n{output}", pytrace=False)
    assert " passed" in output
