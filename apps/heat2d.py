"""The heat equation in 2D in parallel over time: python -m apps.heat2d --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import heat2d

from .command_line import App, run_app
from .figures import image


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=33, help="nodes of a side, ends included")


APP = App(
    name="heat2d",
    description="Solve u_t = u_xx + u_yy on [0, pi]^2, t in [0, 1].",
    add_arguments=_arguments,
    build=lambda args: heat2d.problem(args.nodes),
    draw=image,
    defaults=MGRITOptions(levels=3, coarsening=4, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
