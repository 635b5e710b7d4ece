"""Dahlquist's equation in parallel over time: python -m apps.dahlquist --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import dahlquist

from .command_line import App, run_app
from .figures import curves


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=-1.0, help="lambda")
    methods = tuple(dahlquist.STABILITY)
    parser.add_argument("--method", choices=methods, default=methods[0], help="integrator")


APP = App(
    name="dahlquist",
    description="Solve u' = lambda u on [0, 5].",
    add_arguments=_arguments,
    build=lambda args: dahlquist.problem(args.rate, args.method),
    draw=curves("u"),
    defaults=MGRITOptions(levels=3, tolerance=1e-10),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
