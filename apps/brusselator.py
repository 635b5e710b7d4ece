"""The Brusselator in parallel over time: python -m apps.brusselator --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import brusselator
from pint.models.runge_kutta import TABLEAUS

from .command_line import App, run_app
from .figures import curves


def _arguments(parser: argparse.ArgumentParser) -> None:
    methods = tuple(TABLEAUS)
    parser.add_argument("--method", choices=methods, default=methods[0], help="integrator")


APP = App(
    name="brusselator",
    description="Solve the Brusselator with A = 1 and B = 3, t in [0, 12].",
    add_arguments=_arguments,
    build=lambda args: brusselator.problem(args.method),
    draw=curves("x", "y"),
    defaults=MGRITOptions(levels=2, coarsening=4, tolerance=1e-10),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
