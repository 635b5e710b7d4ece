"""Arenstorf's orbit in parallel over time: python -m apps.arenstorf --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import arenstorf
from pint.models.runge_kutta import TABLEAUS

from .command_line import App, run_app
from .figures import orbit


def _arguments(parser: argparse.ArgumentParser) -> None:
    methods = tuple(TABLEAUS)
    parser.add_argument("--method", choices=methods, default="dormand_prince", help="integrator")


APP = App(
    name="arenstorf",
    description="Follow a satellite around earth and moon for one period of its orbit.",
    add_arguments=_arguments,
    build=lambda args: arenstorf.problem(args.method),
    draw=orbit,
    defaults=MGRITOptions(levels=2, coarsening=4, tolerance=1e-9),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
