"""Burgers' equation in parallel over time: python -m apps.burgers --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import burgers

from .command_line import App, run_app
from .figures import profiles


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=257, help="nodes, both ends included")
    parser.add_argument("--viscosity", type=float, default=0.05, help="nu")


APP = App(
    name="burgers",
    description="Solve u_t + (u^2 / 2)_x = nu u_xx on [-2, 3], a travelling front, t in [0, 2].",
    add_arguments=_arguments,
    build=lambda args: burgers.problem(args.nodes, args.viscosity),
    draw=profiles(lambda problem: problem.propagator.nodes),
    defaults=MGRITOptions(levels=3, coarsening=2, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
