"""The heat equation in parallel over time: python -m apps.heat --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from apps.command_line import App, run_app
from apps.figures import profiles
from pint import MGRITOptions
from pint.models import heat


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=65, help="nodes, both ends included")
    methods = tuple(heat.METHODS)
    parser.add_argument("--method", choices=methods, default=methods[0], help="integrator")


APP = App(
    name="heat",
    description="Solve u_t = u_xx + sin(x) (cos(t) - sin(t)) on [0, pi], t in [0, 2 pi].",
    add_arguments=_arguments,
    build=lambda args: heat.problem(args.nodes, args.method),
    draw=profiles(lambda problem: problem.propagator.nodes),
    defaults=MGRITOptions(levels=3, coarsening=4, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
