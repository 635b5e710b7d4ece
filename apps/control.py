"""Optimal control, with gradients parallel over time: python -m apps.control --help."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from pint import MGRIT, AdjointSolver, MGRITOptions, Result, value_and_gradient
from pint.adjoint.objective import Evaluation
from pint.models import control
from pint.models.problem import Problem
from pint.parallel.comm import Communicator

from .command_line import App, options_of, run_app
from .figures import curves


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--price", type=float, default=0.1, help="gamma, the price of control")
    parser.add_argument("--gradient-tolerance", type=float, default=1e-9, help="where to stop")
    parser.add_argument("--cold", action="store_true", help="no warm starts of the solves")


APP = App(
    name="control",
    description="Find the c(t) that makes 1/2 int (u^2 + gamma c^2) least, for u' = u + c, "
    "u(0) = 1, t in [0, 1], by L-BFGS-B.",
    add_arguments=_arguments,
    build=lambda args: control.problem(args.steps or 128, price=args.price),
    draw=curves("u"),
    defaults=MGRITOptions(levels=3, tolerance=1e-10, skip_first_down=False),
)


def optimise(app: App, args: argparse.Namespace, comm: Communicator) -> tuple[Problem, Result]:
    """Go from no control to the best one; every rank takes the same steps."""
    problem, options = app.build(args), options_of(args)
    grid, model = problem.grid(), problem.propagator
    solver = AdjointSolver(MGRIT(model, grid, options, comm))
    objective = control.objective(grid, args.price)
    done: list[Evaluation] = []

    def function(c: Any) -> tuple[float, Any]:
        assert model.parameters is not None
        model.parameters[:] = c
        previous = done[-1] if done and not args.cold else None
        done.append(value_and_gradient(objective, solver, problem.initial_value, previous))
        return done[-1].value, done[-1].parameter_gradient

    found = minimize(
        function,
        np.zeros(grid.num_steps),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": args.gradient_tolerance, "ftol": 0.0},
    )
    function(found.x)
    _, best, least = control.optimum(price=args.price)
    if comm.rank == 0:
        cycles = [e.forward.num_iterations + e.backward.residuals.size for e in done]
        away = np.abs(found.x - best(grid.times[1:])).max()
        print(f"objective   {done[-1].value:.8f} after {found.nit} steps of L-BFGS-B")
        print(f"            least of all functions of time: {least:.8f}")
        print(f"control     within {away:.3e} of the optimum")
        counts = f"{len(done)} evaluations: {', '.join(map(str, cycles))}"
        print(f"cycles      {sum(cycles)}, forward and adjoint, in {counts}")
    every = [e.forward for e in done]
    return problem, dataclasses.replace(every[-1], seconds=sum(r.seconds for r in every))


def main(argv: Sequence[str] | None = None) -> int:
    """Optimise as the command line says; return the exit status."""
    return run_app(APP, argv, optimise)


if __name__ == "__main__":
    sys.exit(main())
