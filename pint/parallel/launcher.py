"""The launcher of MPI processes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def mpiexec_path() -> str:
    """Return mpiexec on the PATH, or else beside this Python, where PyPI's mpich puts it."""
    beside = Path(sys.executable).parent
    return shutil.which("mpiexec") or shutil.which("mpiexec", path=beside) or ""
