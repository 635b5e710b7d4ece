"""`pint doctor`: check an installation."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from pint._version import DISTRIBUTION, __version__
from pint.parallel.launcher import mpiexec_path


class _Finding(NamedTuple):
    """One line of the doctor's report; `problem` says what is wrong and what helps."""

    name: str
    value: str
    problem: str = ""


def main(argv: Sequence[str]) -> int:
    """Print all findings, then the problems among them."""
    argparse.ArgumentParser(prog="pint doctor").parse_args(argv[1:])
    findings = [*_packages(), *_mpi(), *_machine(), *_import_name()]
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name:<{width}}  {finding.value}")
    problems = [f"problem: {finding.problem}" for finding in findings if finding.problem]
    print("", *(problems or ["no problems found"]), sep="\n")
    return 1 if problems else 0


def _packages() -> Iterator[_Finding]:
    yield _Finding("pint", f"{__version__} in {Path(__file__).parents[1]}")
    yield _Finding("python", f"{sys.version.split()[0]} at {sys.executable}")
    for package in ("numpy", "scipy", "numba", "h5py"):
        version = _version(package)
        remedy = f"{package} is not installed: pip install {package}"
        yield _Finding(package, version or "not installed", "" if version else remedy)


def _version(distribution: str) -> str:
    """Return the installed version of a distribution, "" if it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _mpi() -> Iterator[_Finding]:
    version = _version("mpi4py")
    if not version:
        yield _Finding("mpi4py", "not installed: runs on one process")
        return
    yield _Finding("mpi4py", version)
    library = _mpi_library()
    yield _Finding(
        "MPI library",
        library or "not found",
        "" if library else "mpi4py finds no MPI library: pip install mpich",
    )
    yield _mpiexec(library)


def _mpi_library() -> str:
    """Return the MPI library's name and version, "" if it cannot be loaded.

    Asked in a process of its own: loading a broken MPI may end or hang the one that does it,
    and a loaded one must not be left uninitialised for the next user of mpi4py here.
    """
    return _first_line(
        sys.executable,
        "-c",
        "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
        "print(MPI.Get_library_version())",
    )


def _first_line(*command: str) -> str:
    """Return what a command prints first, "" if it fails or says nothing within a minute."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = [line.strip("\0 ") for line in answer.stdout.splitlines()]
    return " ".join(next((line for line in lines if line), "").split())


def _mpiexec(library: str) -> _Finding:
    path = mpiexec_path()
    if not path:
        return _Finding("mpiexec", "not found: start with your scheduler, e.g. srun")
    ours, theirs = _mpi_family(library), _mpi_family(_first_line(path, "--version"))
    fits = not ours or not theirs or ours == theirs
    problem = f"{path} belongs to {theirs}, mpi4py uses {ours}: every process would be rank 0"
    return _Finding(
        "mpiexec",
        path,
        "" if fits else f"{problem}; use the mpiexec of {ours}",
    )


def _mpi_family(text: str) -> str:
    """Return whose launcher or library introduces itself so, "" if that is unknown."""
    if re.search(r"open ?mpi|openrte|prrte", text, re.IGNORECASE):
        return "Open MPI"
    if re.search(r"mpich|hydra|intel\(r\) mpi|mvapich", text, re.IGNORECASE):
        return "MPICH"
    return ""


def _machine() -> Iterator[_Finding]:
    yield _Finding("cores", f"{_usable_cores()} usable of {os.cpu_count()}")
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        default = "not set: every rank uses all cores for threaded work"
        yield _Finding(variable, os.environ.get(variable, default))
    yield _Finding("BLAS", _blas())


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _blas() -> str:
    try:
        import numpy.linalg  # noqa: F401 - threadpoolctl sees only libraries that are loaded
        import threadpoolctl
    except ImportError:
        return "unknown: pip install threadpoolctl"
    libraries = [
        f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return "; ".join(libraries) or "unknown to threadpoolctl"


def _import_name() -> Iterator[_Finding]:
    """Find the units library Pint, which installs into the same folder as this package."""
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name.lower() == "pint":
            yield _Finding(
                "import name",
                f"shared with {name} {distribution.version}",
                f"the units library {name} has the same import name and overwrites "
                f"files of {DISTRIBUTION}: pip uninstall {name} {DISTRIBUTION}, then "
                f"pip install {DISTRIBUTION} in an environment without {name}",
            )
            return
