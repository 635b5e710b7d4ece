"""The commands `pint calibrate`, `pint predict` and `pint tune`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Shown

from pint.cli import mpiexec_path
from pint.comm import Communicator, world
from pint.scaling.calibrate import lengths
from pint.scaling.costs import Costs, Machine, Table
from pint.scaling.network import measure_network, measured_apart
from pint.scaling.predict import Prediction, crossover, draw, predict, rows, write_csv
from pint.scaling.tune import add_tune, run_tune
from pint.scaling.workload import WORKLOADS, Workload, workload_of

_TYPES: dict[str, Any] = {"int": int, "str": str, "CellName": str, "CoarseStep": str}
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 100_000)


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; return its exit status.

    Parameters
    ----------
    argv : sequence of str
        Name of the command, and its arguments.
    """
    parser = argparse.ArgumentParser(prog="pint")
    commands = parser.add_subparsers(dest="command", required=True)
    add_calibrate(commands.add_parser("calibrate"))
    add_predict(commands.add_parser("predict"))
    add_tune(commands.add_parser("tune"))
    arguments = parser.parse_args(argv)
    actions = {"calibrate": calibrate, "predict": run_predict, "tune": run_tune}
    try:
        return actions[arguments.command](arguments)
    except (OSError, ValueError, ImportError) as error:
        print(f"pint {arguments.command}: {error}", file=sys.stderr)
        return 2


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pint calibrate``."""
    parser.description = (
        "Measure what work and messages take, and write them to a TOML file for pint predict and "
        "pint tune. Under mpiexec all ranks measure at once, as they will work."
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, workload in WORKLOADS.items():
        sub = kinds.add_parser(kind, help=(workload.__doc__ or "").splitlines()[0])
        _add_fields(sub, workload, with_defaults=True)
        sub.add_argument("--repeats", type=int, default=5, help="of which medians are taken")
        sub.add_argument("--longest", type=int, default=16384, help="longest problem that is run")
        sub.add_argument("--output", default="costs.toml", help="file to write")
        found = "starts two ranks, to measure messages; the one that is found, if left out"
        sub.add_argument("--mpiexec", help=found)


def _add_fields(
    parser: argparse.ArgumentParser, workload: type[Workload], *, with_defaults: bool
) -> None:
    for one in fields(workload):
        kind = _TYPES.get(str(one.type), _numbers)
        default = one.default if with_defaults else None
        shown = f"default: {one.default}" if with_defaults else "that of the costs, if left out"
        name = "--" + one.name.replace("_", "-")
        parser.add_argument(name, type=kind, default=default, help=shown)


def _numbers(text: str) -> int | tuple[int, ...]:
    """Return a number, or several that are separated by commas."""
    found = tuple(int(part) for part in text.split(","))
    return found[0] if len(found) == 1 else found


def calibrate(arguments: argparse.Namespace) -> int:
    """Measure and write; collective."""
    comm = world()
    chosen = WORKLOADS[arguments.kind]
    names = [one.name for one in fields(chosen)]
    workload = chosen(**{name: getattr(arguments, name) for name in names})
    measured = lengths(workload.steps, workload.first_factor, arguments.longest)
    tables: list[Costs] = []
    with Progress(console=Console(stderr=True), disable=comm.rank > 0) as progress:
        for length in progress.track(measured[::-1], description="problems of growing length"):
            tables.append(workload.measure([length], arguments.repeats))
        costs = replace(
            joined(tables),
            machine=_network(comm, arguments.mpiexec or mpiexec_path() or "mpiexec"),
            baselines=workload.baselines(measured[0]),
            problem={**workload.described(), "measured_on_ranks": comm.size},
        )
    if comm.rank == 0:
        costs.save(arguments.output)
        print(f"{arguments.output}: {len(costs.tables)} tables, {costs.machine}")
    return 0


def joined(parts: list[Costs]) -> Costs:
    """Return the costs that were measured at different lengths as one."""
    by_key: dict[Any, dict[int, float]] = {}
    for part in parts:
        for key, table in part.tables.items():
            pairs = zip(table.sizes.tolist(), table.seconds.tolist(), strict=True)
            by_key.setdefault(key, {}).update(pairs)
    tables = {}
    for key, seconds in by_key.items():
        sizes = sorted(seconds)
        tables[key] = Table(np.array(sizes), np.array([seconds[size] for size in sizes]))
    call = float(np.median([part.call for part in parts]))
    return Costs(parts[-1].machine, tables, call)


def _network(comm: Communicator, mpiexec: str) -> Machine:
    """Return what messages take here; collective.

    Raises
    ------
    ValueError
        If that cannot be measured.
    """
    if comm.size > 1:
        return measure_network(comm)
    found = measured_apart(mpiexec)
    if found is None:
        raise ValueError(
            f"{mpiexec} does not start two ranks to measure messages: name it with --mpiexec, or "
            "run mpiexec -n 2 pint calibrate"
        )
    return found


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pint predict``."""
    parser.description = "Predict time, speedup and memory from the costs of pint calibrate."
    parser.add_argument("costs", metavar="COSTS", help="file of pint calibrate")
    parser.add_argument("--machine", help="TOML file with a section [machine]: another network")
    parser.add_argument("--ranks", type=_numbers, default=RANKS, help="1,2,4,...")
    parser.add_argument("--groups", type=_numbers, default=(1,), help="that share the batch: 1,2")
    parser.add_argument("--plot", metavar="FILE", help="figure to draw")
    parser.add_argument("--csv", metavar="FILE", help="table to write")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    for name in ("steps", "levels", "forward_iterations", "backward_iterations", "truncation"):
        parser.add_argument("--" + name.replace("_", "-"), type=_steps, help="other than measured")
    for name in ("coarsening", "relax"):
        parser.add_argument(f"--{name}", type=_numbers, help="other than measured")
    parser.add_argument("--coarsest", help="other than measured")


def _steps(text: str) -> int:
    """Return a whole number, which may be written 1e7."""
    value = float(text)
    if value != int(value):
        raise ValueError(text)
    return int(value)


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict, print and draw."""
    costs = Costs.load(arguments.costs, arguments.machine)
    names = (
        "steps", "levels", "forward_iterations", "backward_iterations", "truncation", "coarsening",
        "relax", "coarsest",
    )  # fmt: skip
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    workload = workload_of({**costs.problem, **given})
    found = [
        predict(workload.run(groups), costs, ranks)
        for groups in _tuple(arguments.groups)
        for ranks in _tuple(arguments.ranks)
        if ranks % groups == 0
    ]
    title = f"{workload.kind}, {workload.steps} steps, predicted for {costs.machine.name}"
    show(found, title)
    if arguments.csv:
        write_csv(arguments.csv, found)
    if arguments.plot:
        draw(arguments.plot, [one for one in found if one.groups == found[0].groups], title)
    if arguments.json:
        least = {name: crossover(found, name) for name in costs.baselines}
        print(json.dumps({"predictions": rows(found), "crossover": least}))
    return 0


def _tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def show(predictions: list[Prediction], title: str) -> None:
    """Print a table of predictions, and from where on they pay."""
    table = Shown(title=title)
    baselines = list(predictions[0].speedup)
    names = ["ranks", "groups", "ms", *(f"x {name}" for name in baselines), "efficiency", "MB/rank"]
    for name in [*names, "most time in"]:
        table.add_column(name, justify="right")
    for one in predictions:
        longest = sorted(one.phases, key=lambda name: -one.phases[name])[:2]
        parts = ", ".join(f"{name} {one.phases[name] / one.seconds:.0%}" for name in longest)
        speedups = [f"{one.speedup[name]:.2f}" for name in baselines]
        table.add_row(
            f"{one.ranks:,}", str(one.groups), f"{1e3 * one.seconds:.4g}", *speedups,
            f"{one.efficiency:.3f}", f"{one.megabytes:.1f}", parts,
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    for name in baselines:
        pays = crossover([one for one in predictions if one.groups == predictions[0].groups], name)
        told = "on none of these" if pays is None else f"from {pays[0]:,} to {pays[1]:,} ranks"
        print(f"faster than {name}: {told}")
