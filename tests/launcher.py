"""How tests start MPI ranks."""

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def mpiexec(ranks):
    """Return the command that starts `ranks` processes; skip the test where there is none."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed: pip install 'pint-mgrit[mpi]'")
    beside = Path(sys.executable).parent / "mpiexec"
    found = shutil.which("mpiexec") or (str(beside) if beside.exists() else None)
    command = shlex.split(os.environ.get("MPIEXEC", "")) or [found]
    if command[0] is None:
        pytest.skip("no mpiexec: install an MPI, or pip install 'pint-mgrit[mpich]'")
    return [*command, "-n", str(ranks)]


def environment():
    """Return the environment of the ranks: one thread each, more ranks than cores allowed."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return (
        os.environ
        | dict.fromkeys(threads, "1")
        | {
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "error",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
    )
