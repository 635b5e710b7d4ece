"""What the apps of the models share: options, a solve, its report, its file and its figure."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pint import MGRIT, MGRITOptions, Result, Status
from pint.cli.arguments import count
from pint.cli.figures import check_figure
from pint.models.problem import Problem
from pint.parallel.comm import Communicator, run, world
from pint.results import check_target, record_of, write_solution
from pint.timeline import Timeline

from .arguments import quiet_unless
from .figures import Draw, draw_figure
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
"""Solves what the command line asks for, and prints what is to be said beside the report."""


def run_app(app: App, argv: Sequence[str] | None = None, work: Work | None = None) -> int:
    """Do what the command line says; return the exit status.

    0 is solved, 1 is not converged or diverged, 2 is wrong use.
    """
    comm = world()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with quiet_unless(comm.rank == 0):
        args = parser_of(app).parse_args(arguments)
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
        if comm.rank == 0:
            print(f"apps.{app.name}: {error}", file=sys.stderr)
        return 2
    _report(problem, result, comm)
    if args.output is not None:
        command = shlex.join(["python", "-m", f"apps.{app.name}", *arguments])
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
    """Say what compiling took, where anybody noticed."""
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


def parser_of(app: App) -> argparse.ArgumentParser:
    """Return a parser of the app's own arguments, the shared ones, and every field of the options.

    A field without a form on the command line, such as a function, has no argument.
    """
    parser = argparse.ArgumentParser(
        prog=f"apps.{app.name}",
        description=f"{app.description} Start it plainly for one process, or under mpiexec -n P.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    app.add_arguments(parser)
    parser.add_argument("--steps", type=count, help="time steps; the problem's own if left out")
    parser.add_argument("--output", type=Path, help="HDF5 file of the results")
    parser.add_argument("--plot", type=Path, help="figure, e.g. solution.png")
    add_argument(parser)
    group = parser.add_argument_group("solver", "fields of MGRITOptions")
    texts = _descriptions()
    for name, hint in _fields().items():
        how: dict[str, Any] = {"default": getattr(app.defaults, name), "help": texts[name]}
        flag = f"--{name.replace('_', '-')}"
        if hint is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **how)
        elif typing.get_origin(hint) is typing.Literal:
            group.add_argument(flag, choices=typing.get_args(hint), **how)
        else:
            group.add_argument(flag, type=_reader(hint), metavar=name.upper(), **how)
    return parser


def options_of(args: argparse.Namespace) -> MGRITOptions:
    """Return the solver's options of a command line.

    Raises
    ------
    ValueError
        If one is out of its range.
    """
    return MGRITOptions(**{name: getattr(args, name) for name in _fields()})


def _fields() -> dict[str, Any]:
    """Return name and type of each option that has a form on the command line."""
    hints = typing.get_type_hints(MGRITOptions)
    names = [field.name for field in dataclasses.fields(MGRITOptions)]
    return {name: hints[name] for name in names if hints[name] is bool or _readers(hints[name])}


def _descriptions() -> dict[str, str]:
    """Return what the docstring of the options says about each of them."""
    found = re.findall(r"^(\w+) : .*\n((?:    .*\n)+)", inspect.getdoc(MGRITOptions) or "", re.M)
    return {name: " ".join(text.split()).replace("%", "%%") for name, text in found}


def _reader(hint: Any) -> Callable[[str], Any]:
    """Return what reads a value of this type."""

    def read(text: str) -> Any:
        for attempt in _readers(hint):
            with contextlib.suppress(ValueError):
                return attempt(text)
        raise argparse.ArgumentTypeError(f"expected {_expected(hint)}, got {text!r}")

    return read


def _readers(hint: Any) -> list[Callable[[str], Any]]:
    """Return a function for each form that a value of this type may have; none for objects."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [reader for part in parts for reader in _readers(part)]
    if hint in (int, float):
        return [hint]
    if hint is types.NoneType:
        return [lambda text: _chosen(text, ("none",)) and None]
    if origin is typing.Literal:
        return [lambda text: _chosen(text, parts)]
    if origin is tuple and _readers(parts[0]):
        entry = _reader(parts[0])
        return [lambda text: tuple(_entry(entry, item) for item in text.split(","))]
    return []


def _chosen(text: str, choices: tuple[Any, ...]) -> Any:
    if text not in choices:
        raise ValueError(text)
    return text


def _entry(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(text) from error


def _expected(hint: Any) -> str:
    """Say in words what a value of this type looks like."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(part) for part in parts if _readers(part))
    if origin is typing.Literal:
        return ", ".join(map(str, parts))
    if origin is tuple:
        return "several of them with commas"
    return {int: "an integer", float: "a number", types.NoneType: "none"}[hint]
