"""The `pint` command: run files, networks, the installation, and what runs will cost."""

import argparse
import sys
from collections.abc import Sequence

from pint._version import __version__
from pint.cli.arguments import one_line
from pint.cli.doctor import doctor
from pint.cli.export import add_export, export

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
        from pint.cli.calibrate_command import main as scaling

        return scaling(given)
    arguments = _parser().parse_args(given)
    if arguments.command == "inspect":
        return _inspect(arguments.files, everything=arguments.all)
    if arguments.command == "export":
        return export(arguments)
    return doctor()


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
    add_export(commands.add_parser("export", help="write a network for other programs"))
    for name, told in _SCALING.items():
        commands.add_parser(name, help=told)
    commands.add_parser("doctor", help="check this installation and name what is wrong")
    return parser


def _inspect(files: Sequence[str], *, everything: bool) -> int:
    """Print a page on every file that can be read, or all; a line on stderr if it cannot."""
    from rich.console import Console

    from pint.results.reader import open_run
    from pint.results.summary import glance, summarize

    console = Console()
    status = 0
    for path in files:
        try:
            run = open_run(path)
        except (OSError, ValueError) as error:
            print(f"pint inspect: {one_line(error, path)}", file=sys.stderr)
            status = 2
        else:
            console.print(summarize(run) if everything else glance(run))
    return status


if __name__ == "__main__":
    sys.exit(main())
