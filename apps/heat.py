"""The heat equation in parallel over time: python -m apps.heat --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from pint import MGRITOptions
from pint.models import bdf2, heat
from pint.models.problem import Problem

from .command_line import App, run_app
from .figures import profiles


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=65, help="nodes, both ends included")
    methods = (*heat.METHODS, "bdf2")
    parser.add_argument(
        "--space-levels", type=int, default=0, help="coarse levels with half the intervals each"
    )
    parser.add_argument("--method", choices=methods, default=methods[0], help="integrator")


def _problem(args: argparse.Namespace) -> Problem:
    """Return the problem; a state of BDF2 is a pair, and a step goes on by two values."""
    if args.method == "bdf2":
        if args.space_levels:
            raise ValueError("--space-levels is not for bdf2, whose states are pairs: leave it out")
        return bdf2.pairs(heat.problem(args.nodes), args.steps)
    return heat.problem(args.nodes, args.method, args.space_levels)


APP = App(
    name="heat",
    description="Solve u_t = u_xx + sin(x) (cos(t) - sin(t)) on [0, pi], t in [0, 2 pi].",
    add_arguments=_arguments,
    build=_problem,
    draw=profiles(lambda problem: np.linspace(0, np.pi, problem.propagator.state_shape[-1])),
    defaults=MGRITOptions(levels=3, coarsening=4, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
