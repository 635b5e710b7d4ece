"""Lorenz's equations in parallel over time: python -m apps.lorenz --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRIT, MGRITOptions, Result
from pint.models import lorenz
from pint.models.problem import Problem
from pint.parallel.comm import Communicator

from .command_line import App, options_of, run_app
from .figures import curves


def _arguments(parser: argparse.ArgumentParser) -> None:
    for name, value in (("sigma", 10.0), ("rho", 28.0), ("beta", 8 / 3)):
        parser.add_argument(f"--{name}", type=float, default=value, help="of the equations")
    parser.add_argument("--method", choices=("euler", "rk4"), default="rk4", help="integrator")
    parser.add_argument("--time", type=float, default=8.0, help="last time")
    parser.add_argument(
        "--settled", type=float, default=0.0, help="time from which on exponents are averaged"
    )


APP = App(
    name="lorenz",
    description="Solve Lorenz's equations; with --delta also for their Lyapunov exponents.",
    add_arguments=_arguments,
    build=lambda args: lorenz.problem(args.sigma, args.rho, args.beta, args.method, args.time),
    draw=curves("x", "y", "z"),
    defaults=MGRITOptions(coarsening=4, max_iterations=30, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv, _solve)


def _solve(app: App, args: argparse.Namespace, comm: Communicator) -> tuple[Problem, Result]:
    """Solve from a guess that is near the attractor, and print the exponents."""
    problem = app.build(args)
    solver = MGRIT(problem.propagator, problem.grid(args.steps), options_of(args), comm)
    result = solver.solve(problem.initial_value, problem.initial_value)
    if result.lyapunov is not None:
        exponents = result.lyapunov.exponents(args.settled)
        if comm.rank == 0:
            print("exponents  ", " ".join(f"{x:.4f}" for x in exponents))
    return problem, result


if __name__ == "__main__":
    sys.exit(main())
