"""`pint run`: start an app, on one process or on many ranks."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from pint.cli.arguments import count, did_you_mean, one_line
from pint.parallel.comm import world
from pint.parallel.launcher import mpiexec_path

STARTED_RANKS = "PINT_RUN_RANKS"
"""Environment variable of ranks that `pint run --ranks` has started: their number."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(argv: Sequence[str]) -> int:
    """Run an app with its arguments; return its exit status.

    With ``--ranks`` this process becomes mpiexec.
    """
    parser = _parser()
    if argv[1:2] in (["-h"], ["--help"]):
        parser.print_help()
        return 0
    given, rest = parser.parse_known_args(argv[1:])
    try:
        app = _main_of(given.app)
        if given.ranks is not None:
            _become_mpiexec(given.ranks, [given.app, *rest])
        _check_ranks()
    except (ValueError, OSError) as error:
        print(f"pint run: {one_line(error)}", file=sys.stderr)
        return 2
    return app(rest)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pint run",
        usage="pint run APP [--ranks P] [options of the app]",
        description="Run an app; pint run APP --help lists its options.",
        epilog=f"Apps: {', '.join(_names())}.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="APP", help="name of the app")
    parser.add_argument("--ranks", type=count, metavar="P", help="start P ranks by mpiexec -n P")
    return parser


def _names() -> tuple[str, ...]:
    """Return the names of all apps; give a checkout's folder `apps` its installed name first."""
    if find_spec("pint.apps") is None:
        _register(Path(__file__).parents[2] / "apps")
    names: tuple[str, ...] = import_module("pint.apps").NAMES
    return names


def _register(folder: Path) -> None:
    """Make a folder the package `pint.apps`."""
    spec = spec_from_file_location(
        "pint.apps", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules["pint.apps"] = module_from_spec(spec)
    spec.loader.exec_module(package)


def _main_of(name: str) -> Callable[[Sequence[str]], int]:
    """Return the function that runs an app."""
    if name not in _names():
        raise ValueError(f"unknown app {did_you_mean(name, _names())}")
    module = import_module(f"pint.apps.{name}")
    if hasattr(module, "__path__"):
        module = import_module(f"pint.apps.{name}.__main__")
    main: Callable[[Sequence[str]], int] = module.main
    return main


def _become_mpiexec(ranks: int, arguments: Sequence[str]) -> None:
    """Replace this process by mpiexec, with one BLAS thread per rank unless variables say more."""
    launcher = shlex.split(os.environ.get("MPIEXEC", "")) or [mpiexec_path()]
    if not launcher[0]:
        raise OSError("there is no mpiexec: install an MPI, or pip install 'pint-mgrit[mpich]'")
    command = [*launcher, "-n", str(ranks), sys.executable, "-m", "pint.cli", "run", *arguments]
    threads = dict.fromkeys(ONE_THREAD, "1")
    sys.stdout.flush()
    os.execvpe(command[0], command, {**threads, **os.environ, STARTED_RANKS: str(ranks)})


def _check_ranks() -> None:
    """Raise unless the ranks that mpiexec has started found each other."""
    wanted = os.environ.pop(STARTED_RANKS, None)
    if wanted is not None and world().size != int(wanted):
        raise OSError(
            f"mpiexec started {wanted} programs, and each is alone: launcher and MPI library do "
            "not belong together, see pint doctor"
        )
