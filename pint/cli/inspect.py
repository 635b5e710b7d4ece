"""`pint inspect`: show what run files hold."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from pint.cli.arguments import one_line
from pint.results.reader import open_run
from pint.results.summary import glance, summarize


def main(argv: Sequence[str]) -> int:
    """Print a page on every readable file, and a line on stderr for each other one."""
    parser = argparse.ArgumentParser(prog="pint inspect")
    parser.add_argument("files", nargs="+", metavar="FILE", help="HDF5 file of a run")
    parser.add_argument("--all", action="store_true", help="also options, histories, the model")
    arguments = parser.parse_args(argv[1:])
    console = Console()
    status = 0
    for path in arguments.files:
        try:
            run = open_run(path)
        except (OSError, ValueError) as error:
            print(f"pint inspect: {one_line(error, path)}", file=sys.stderr)
            status = 2
        else:
            console.print(summarize(run) if arguments.all else glance(run))
    return status
