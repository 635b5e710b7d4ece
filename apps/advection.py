"""Linear advection in parallel over time: python -m apps.advection --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import advection

from .command_line import App, run_app
from .figures import profiles


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=512, help="nodes of one period")


APP = App(
    name="advection",
    description="Solve u_t + u_x = 0 with periodic ends, t in [0, 1/2].",
    add_arguments=_arguments,
    build=lambda args: advection.problem(args.nodes),
    draw=profiles(lambda problem: problem.propagator.nodes),
    defaults=MGRITOptions(levels=2, coarsening=2, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
