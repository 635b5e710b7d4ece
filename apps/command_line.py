"""What the apps of the models share: options, a solve, its report, its file and its figure."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pint import MGRIT, MGRITOptions, Result, Status
from pint.cli.arguments import count
from pint.cli.figures import check_figure
from pint.models.problem import Problem
from pint.options import Delta, Refinement, Richardson, coarsest_of
from pint.parallel.comm import Communicator, run, world
from pint.results import check_target, record_of, write_solution
from pint.timeline import Timeline

from .arguments import quiet_unless, refuse
from .compiling import announce
from .figures import Draw, draw_figure
from .option_parser import Group, OptionParser, add_option, descriptions, field_types
from .tracing import add_argument, check_trace, recorded, save_trace


@dataclasses.dataclass(frozen=True, kw_only=True)
class App:
    """A command: which problem it solves, and how if nothing else is said."""

    name: str
    description: str
    build: Callable[[argparse.Namespace], Problem]
    draw: Draw
    defaults: MGRITOptions
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


Work = Callable[[App, argparse.Namespace, Communicator], tuple[Problem, Result]]
"""Solves the problem of a command line, and prints lines beside the report."""


def run_app(app: App, argv: Sequence[str] | None = None, work: Work | None = None) -> int:
    """Do what the command line says; return the exit status.

    0 is solved, 1 is not converged or diverged, 2 is wrong use.
    """
    comm = world()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with quiet_unless(comm.rank == 0):
        args = parser_of(app).parse_args(arguments)
    announce(f"apps.{app.name}", comm)
    return run(lambda: _run(app, args, arguments, work or solve, comm), comm)


def _run(
    app: App, args: argparse.Namespace, arguments: Sequence[str], work: Work, comm: Communicator
) -> int:
    try:
        _check_targets(args, comm)
        timeline = Timeline(comm)
        with recorded(timeline, args.trace):
            problem, result = work(app, args, comm)
    except (ValueError, OSError, ImportError) as error:  # on every rank
        return refuse(f"apps.{app.name}", error, comm)
    _report(problem, result, comm)
    if args.output is not None:
        command = shlex.join(["python", "-m", f"{__package__}.{app.name}", *arguments])
        _write(args, command, problem, result, comm)
    if args.plot is not None:
        u = comm.gather_blocks(np.ascontiguousarray(result.u))
        if u is not None:
            draw_figure(args.plot, app.draw, problem, result, u)
    save_trace(timeline, args.trace)
    return 1 if result.status in (Status.DIVERGED, Status.MAX_ITERATIONS) else 0


def solve(app: App, args: argparse.Namespace, comm: Communicator) -> tuple[Problem, Result]:
    """Solve the app's problem once."""
    options, problem = options_of(args), app.build(args)
    solver = MGRIT(problem.propagator, problem.grid(args.steps), options, comm)
    return problem, solver.solve(problem.initial_value)


def _check_targets(args: argparse.Namespace, comm: Communicator) -> None:
    """Raise on every rank unless the files can be written; collective."""
    with comm.collective():
        if comm.rank > 0:
            return
        check_trace(args.trace)
        for path in filter(None, (args.output, args.plot)):
            path.parent.mkdir(parents=True, exist_ok=True)
        if args.output is not None:
            check_target(args.output)
        if args.plot is not None:
            check_figure(args.plot)


def _report(problem: Problem, result: Result, comm: Communicator) -> None:
    error = problem.error(result)
    if comm.rank > 0:
        return
    levels = [result.times.size - 1]
    for m in result.coarsening:
        levels.append(levels[-1] // m)
    measured = result.residuals[np.isfinite(result.residuals)]
    print(f"{problem.name}: levels of {', '.join(map(str, levels))} steps, {comm.size} rank(s)")
    print(f"status      {' '.join(filter(None, (result.status.value, result.detail)))}")
    print(f"iterations  {result.num_iterations}")
    if measured.size:
        print(f"residual    {measured[-1]:.3e}")
    print(f"error       {error:.6e}  against {problem.source}")
    print(f"seconds     {result.seconds:.3f}{_compiling(result)}", flush=True)


def _compiling(result: Result) -> str:
    """Print the time for compiling, if it was noticeable."""
    if result.compile_seconds < 0.5:
        return ""
    return f", after {result.compile_seconds:.0f} s of compiling, which is kept for the next time"


def _write(
    args: argparse.Namespace, command: str, problem: Problem, result: Result, comm: Communicator
) -> None:
    parameters = problem.propagator.parameters
    record = dataclasses.replace(
        record_of(result),
        command=command,
        options={
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(args).items()
        },
        model={} if parameters is None else {"parameters": parameters},
    )
    write_solution(args.output, record, np.ascontiguousarray(result.u), result.first, comm)
    if comm.rank == 0:
        print(f"file        {args.output}", flush=True)


# --- Options -------------------------------------------------------------------------------------


def parser_of(app: App) -> OptionParser:
    """Return a parser of the app's own options, the shared ones, and the fields of MGRITOptions."""
    parser = OptionParser(f"apps.{app.name}", app.description)
    app.add_arguments(parser)
    parser.add_argument("--steps", type=count, help="time steps; the problem's own if left out")
    parser.add_argument("--output", type=Path, help="HDF5 file of the results")
    parser.add_argument("--plot", type=Path, help="figure, e.g. solution.png")
    add_argument(parser)
    _add_solver(parser.add_argument_group("solver"), app.defaults)
    return parser


_GROUPS: dict[str, tuple[type, dict[str, str]]] = {
    "delta": (
        Delta, {"delta": "directions", "delta_level": "level", "delta_iteration": "iteration"}
    ),
    "richardson": (Richardson, {"order": "integrator_order", "richardson": "extrapolate"}),
    "refinement": (
        Refinement,
        {
            "refinements": "max_refinements",
            "error_tolerance": "error_tolerance",
            "refinement_factor": "factor",
            "refine_below": "below_residual",
            "max_points": "max_points",
        },
    ),
}  # fmt: skip
"""Options of the groups of MGRITOptions; without the first option of a group there is no group."""


def _add_solver(group: Group, defaults: MGRITOptions) -> None:
    """Add an option for each field of MGRITOptions and of its groups."""
    texts, hints = descriptions(MGRITOptions), field_types(MGRITOptions)
    for name, hint in hints.items():
        if name == "coarsest":
            choices = Literal["gather", "pipelined", "relaxation", "truncated"]
            add_option(group, name, choices, default="gather", help=texts[name])
            text = "number of points of a local coarse grid, with --coarsest truncated"
            add_option(group, "truncation", int | None, help=text)
        elif name not in _GROUPS:
            add_option(group, name, hint, default=getattr(defaults, name), help=texts[name])
    for kind, flags in _GROUPS.values():
        texts, hints = descriptions(kind), field_types(kind)
        for flag, name in flags.items():
            hint = hints[name] if hints[name] is bool else hints[name] | None
            add_option(group, flag, hint, default=None, help=texts[name])


def options_of(args: argparse.Namespace) -> MGRITOptions:
    """Return the solver's options of a command line.

    Raises
    ------
    ValueError
        If one is out of its range.
    """
    given = {name: getattr(args, name, None) for name in field_types(MGRITOptions)}
    given["coarsest"] = coarsest_of(args.coarsest, args.truncation)
    for name, (kind, flags) in _GROUPS.items():
        given[name] = _group_of(args, kind, flags)
    return MGRITOptions(**given)


def _group_of(args: argparse.Namespace, kind: type, flags: dict[str, str]) -> Any:
    """Return a group of options; None without its first option."""
    head = next(iter(flags))
    given = {flag: getattr(args, flag) for flag in flags if getattr(args, flag) is not None}
    if head in given:
        return kind(**{flags[flag]: value for flag, value in given.items()})
    if given:
        names = ", ".join(f"--{flag.replace('_', '-')}" for flag in given)
        raise ValueError(f"{names} needs --{head}: set it, or leave {names} out")
    return None
