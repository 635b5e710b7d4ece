"""The `pint` command: run files, networks, the installation, apps, and what runs will cost."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from pint._version import __version__
from pint.cli.arguments import did_you_mean

__all__ = ["main"]

COMMANDS = {
    "run": ("start an app, on one process or on many ranks", "run"),
    "inspect": ("show what run files hold", "inspect"),
    "export": ("write a network for other programs", "export"),
    "calibrate": ("measure what work and messages take on this machine", "calibrate_command"),
    "predict": ("predict time, speedup and memory on any number of ranks", "calibrate_command"),
    "tune": ("find the fastest options for a wanted gradient error", "calibrate_command"),
    "doctor": ("check this installation and name what is wrong", "doctor"),
}
"""Help of each command, and the module of `pint.cli` that runs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `pint` command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; this process's arguments by default.

    Returns
    -------
    int
        Exit status: 0, or 1 if `doctor` found a problem, or 2 if a file could not be read or
        written, or values do not fit. `pint run` returns the app's status.

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
    if given and given[0] not in COMMANDS and not given[0].startswith("-"):
        print(f"pint: unknown command {did_you_mean(given[0], COMMANDS)}", file=sys.stderr)
        return 2
    command = _parser().parse_args(given[:1]).command
    status: int = import_module(f"pint.cli.{COMMANDS[command][1]}").main(given)
    return status


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the first argument; each command has a parser of its own."""
    parser = argparse.ArgumentParser(prog="pint", description="parallel-in-time solver")
    parser.add_argument("--version", action="version", version=f"pint {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, _) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
