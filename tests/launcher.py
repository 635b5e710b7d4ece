"""How tests start MPI ranks."""

import importlib.util
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAUNCHED = ("PMI", "HYDI_", "MPI_LOCAL", "OMPI_COMM_", "OMPI_UNIVERSE_")
"""Variables that begin so belong to a process that mpiexec started, or MPI_Init in this one."""


def mpiexec(ranks):
    """Return the command that starts `ranks` processes; skip the test where there is none.

    MPIEXEC names it; else it is the one on the path, or the one beside this Python.
    """
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed: pip install 'pint-mgrit[mpi]'")
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    known = os.environ.get("MPIEXEC") or shutil.which("mpiexec") or beside
    if known is None:
        pytest.skip("no mpiexec: install an MPI, or pip install 'pint-mgrit[mpich]'")
    return [*shlex.split(known), "-n", str(ranks)]


def environment():
    """Return the environment of ranks: one thread each, more ranks than cores allowed."""
    inherited = {name: x for name, x in os.environ.items() if not name.startswith(LAUNCHED)}
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **inherited,
        **dict.fromkeys(threads, "1"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MPIR_CVAR_POLLS_BEFORE_YIELD": "10",  # MPICH: more ranks than cores wait for each other
        # Open MPI refuses more ranks than cores, and root; other libraries do not read these.
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def heed_ctrl_c():
    """Let Ctrl-C reach a new process (its `preexec_fn`): in the background shells switch it off."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
