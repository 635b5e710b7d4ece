"""The `pint` command: run files, networks, the installation, and what runs will cost."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pint._version import DISTRIBUTION, __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `pint` command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments behind the program's name; those of this process by default.

    Returns
    -------
    int
        Exit status: 0, or 1 if `doctor` found a problem, or 2 if a file could not be read or
        written, or values do not fit.

    Raises
    ------
    SystemExit
        From argparse: status 0 after --help or --version, 2 for wrong usage.

    Examples
    --------
    >>> main(["inspect", "run.h5"])  # doctest: +SKIP
    0
    """
    given = sys.argv[1:] if argv is None else list(argv)
    if given and given[0] in _SCALING:
        from pint.scaling.command import main as scaling  # Numba, only where it is needed

        return scaling(given)
    arguments = _parser().parse_args(given)
    if arguments.command == "inspect":
        return _inspect(arguments.files, everything=arguments.all)
    if arguments.command == "export":
        return _export(arguments)
    return _doctor()


_SCALING = {
    "calibrate": "measure what work and messages take on this machine",
    "predict": "tell time, speedup and memory of a run on any number of ranks",
    "tune": "find the options that train fastest at a wanted gradient error",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pint", description="parallel-in-time solver")
    parser.add_argument("--version", action="version", version=f"pint {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="show what run files hold")
    inspect.add_argument("files", nargs="+", metavar="FILE", help="HDF5 file of a run")
    inspect.add_argument(
        "--all", action="store_true", help="also options, every history, the model"
    )
    _add_export(commands.add_parser("export", help="write a network for other programs"))
    for name, told in _SCALING.items():
        commands.add_parser(name, help=told)
    commands.add_parser("doctor", help="check this installation and name what is wrong")
    return parser


# --- pint inspect -------------------------------------------------------------------------------


def _inspect(files: Sequence[str], *, everything: bool) -> int:
    """Print a page on every file that can be read, or all; a line on stderr if it cannot."""
    from rich.console import Console

    from pint.results.inspect import glance, summarize
    from pint.results.reader import open_run

    console = Console()
    status = 0
    for path in files:
        try:
            run = open_run(path)
        except (OSError, ValueError) as error:
            print(f"pint inspect: {_one_line(error, path)}", file=sys.stderr)
            status = 2
        else:
            console.print(summarize(run) if everything else glance(run))
    return status


def _one_line(error: Exception, path: str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{path!r}: {error.strerror}"
    return " ".join(str(error).split())


# --- pint export --------------------------------------------------------------------------------


def _add_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="run file, or weights: .h5, .hdf5, .safetensors")
    add("target", metavar="TARGET", help="file to write: .onnx, or weights")
    add("--cell", choices=("implicit", "classic", "lstm"), help="if the source does not say")
    add("--pooling", choices=("last", "every", "mean"), help="if the source does not say")
    add("--prefix", help="what stands before the names of the recurrent layers, e.g. gru.")
    add("--head", help="what stands before weight and bias of the head, e.g. fc.")


def _export(arguments: argparse.Namespace) -> int:
    """Write the network, or one line on stderr that says what is wrong."""
    from pint.rnn.export import export_onnx
    from pint.rnn.weights import load, load_architecture, save

    source, target = arguments.source, arguments.target
    write = export_onnx if Path(target).suffix == ".onnx" else save
    names = {"prefix": arguments.prefix, "head": arguments.head}
    try:
        architecture = load_architecture(
            source, **names, cell=arguments.cell, pooling=arguments.pooling
        )
        write(target, load(source, **names), architecture)
    except (OSError, ValueError, ImportError) as error:
        path = getattr(error, "filename", None) or source
        print(f"pint export: {_one_line(error, path)}", file=sys.stderr)
        return 2
    return 0


# --- pint doctor --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """One line of the doctor's report; `problem` says what is wrong and what helps."""

    name: str
    value: str
    problem: str = ""


def _doctor() -> int:
    """Print all findings, then the problems among them."""
    findings = [*_packages(), *_mpi(), *_machine(), *_import_name()]
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name:<{width}}  {finding.value}")
    problems = [f"problem: {finding.problem}" for finding in findings if finding.problem]
    print("", *(problems or ["no problems found"]), sep="\n")
    return 1 if problems else 0


def _packages() -> Iterator[_Finding]:
    yield _Finding(name="pint", value=f"{__version__} in {Path(__file__).parent}")
    yield _Finding(name="python", value=f"{sys.version.split()[0]} at {sys.executable}")
    for package in ("numpy", "scipy", "numba", "h5py"):
        version = _version(package)
        remedy = f"{package} is not installed: pip install {package}"
        yield _Finding(
            name=package, value=version or "not installed", problem="" if version else remedy
        )


def _version(distribution: str) -> str:
    """Return the installed version of a distribution, "" if it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _mpi() -> Iterator[_Finding]:
    version = _version("mpi4py")
    if not version:
        yield _Finding(name="mpi4py", value="not installed: runs on one process")
        return
    yield _Finding(name="mpi4py", value=version)
    library = _mpi_library()
    yield _Finding(
        name="MPI library",
        value=library or "not found",
        problem="" if library else "mpi4py finds no MPI library: pip install mpich",
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
        return _Finding(name="mpiexec", value="not found: start with your scheduler, e.g. srun")
    ours, theirs = _mpi_family(library), _mpi_family(_first_line(path, "--version"))
    fits = not ours or not theirs or ours == theirs
    problem = f"{path} belongs to {theirs}, mpi4py uses {ours}: every process would be rank 0"
    return _Finding(
        name="mpiexec",
        value=path,
        problem="" if fits else f"{problem}; use the mpiexec of {ours}",
    )


def mpiexec_path() -> str:
    """Return mpiexec on the PATH, or else beside this Python, where PyPI's mpich puts it."""
    beside = Path(sys.executable).parent
    return shutil.which("mpiexec") or shutil.which("mpiexec", path=beside) or ""


def _mpi_family(text: str) -> str:
    """Return whose launcher or library introduces itself so, "" if that is unknown."""
    if re.search(r"open ?mpi|openrte|prrte", text, re.IGNORECASE):
        return "Open MPI"
    if re.search(r"mpich|hydra|intel\(r\) mpi|mvapich", text, re.IGNORECASE):
        return "MPICH"
    return ""


def _machine() -> Iterator[_Finding]:
    yield _Finding(name="cores", value=f"{_usable_cores()} usable of {os.cpu_count()}")
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        default = "not set: every rank uses all cores for threaded work"
        yield _Finding(name=variable, value=os.environ.get(variable, default))
    yield _Finding(name="BLAS", value=_blas())


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
                name="import name",
                value=f"shared with {name} {distribution.version}",
                problem=f"the units library {name} has the same import name and overwrites "
                f"files of {DISTRIBUTION}: pip uninstall {name} {DISTRIBUTION}, then "
                f"pip install {DISTRIBUTION} in an environment without {name}",
            )
            return


if __name__ == "__main__":
    sys.exit(main())
