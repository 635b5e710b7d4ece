"""The command `pint predict`: tables, a figure, and from how many ranks on it pays."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Shown

from pint.cli.figures import check_figure
from pint.options import at_least
from pint.results.atomic import check_folder
from pint.scaling.costs import Costs
from pint.scaling.fit import fitted, run_of, share_of
from pint.scaling.predict import Crossover, Prediction, crossover, predict, rows, write_csv
from pint.scaling.predict_figure import draw
from pint.scaling.workload import Workload, workload_of

RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 100_000)
FAR = 10.0
"""Ratio to the largest measured work above which a warning is printed."""


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pint predict``."""
    parser.description = "Predict time, speedup and memory from the costs of pint calibrate."
    parser.add_argument("costs", metavar="COSTS", help="file of pint calibrate")
    parser.add_argument("--machine", help="TOML file with a section [machine]: another network")
    parser.add_argument("--ranks", type=numbers, default=RANKS, help="1,2,4,...")
    parser.add_argument("--groups", type=numbers, default=1, help="that share the batch: 1,2")
    parser.add_argument("--plot", metavar="FILE", help="figure to draw")
    parser.add_argument("--csv", metavar="FILE", help="table to write")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )
    for name, kind in _CHANGES.items():
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help="other than measured")


def numbers(text: str) -> int | tuple[int, ...]:
    """Return a number, or several that are separated by commas."""
    found = tuple(int(part) for part in text.split(","))
    return found[0] if len(found) == 1 else found


def _whole(text: str) -> int:
    """Return a whole number, which may be written 1e7."""
    value = float(text)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text}")
    return int(value)


_CHANGES: dict[str, Any] = {
    "steps": _whole,
    "levels": _whole,
    "coarsening": numbers,
    "relax": numbers,
    "coarsest": str,
    "truncation": _whole,
    "coarse_step": str,
    "substep": numbers,
    "forward_iterations": _whole,
    "backward_iterations": _whole,
}
"""What may be other than measured."""


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict, print and draw."""
    _check_targets(arguments)
    costs = Costs.load(arguments.costs, arguments.machine)
    workload = _changed(costs, arguments)
    by_groups = _predictions(workload, costs, _several(arguments, "ranks"), arguments)
    title = f"{workload.kind}, {workload.steps} steps, predicted for {costs.machine.name}"
    for found in by_groups.values():
        show(found, title)
        show_phases(found)
    pays = {
        groups: {name: crossover(found, name) for name in costs.baselines}
        for groups, found in by_groups.items()
    }
    for groups, crossovers in pays.items():
        for name, one in crossovers.items():
            print(f"{groups} x batch, faster than {name}: {_told(one)}")
    everything = [one for found in by_groups.values() for one in found]
    _warn(everything, costs, is_measured=arguments.machine is None)
    _write(arguments, by_groups, pays, title)
    return 0


def _check_targets(arguments: argparse.Namespace) -> None:
    if arguments.plot:
        check_figure(Path(arguments.plot))
    for target in (arguments.plot, arguments.csv):
        if target:
            check_folder(Path(target))


def _write(
    arguments: argparse.Namespace,
    by_groups: dict[int, list[Prediction]],
    pays: dict[int, dict[str, Crossover]],
    title: str,
) -> None:
    """Write the table, the figure and the JSON line, as far as requested."""
    everything = [one for found in by_groups.values() for one in found]
    if arguments.csv:
        write_csv(arguments.csv, everything)
    if arguments.plot:
        draw(arguments.plot, by_groups, title)
        print(f"{arguments.plot}: figure")
    if arguments.json:
        least = {
            str(groups): {name: asdict(one) for name, one in crossovers.items()}
            for groups, crossovers in pays.items()
        }
        print(json.dumps({"predictions": rows(everything), "crossover": least}))


def _changed(costs: Costs, arguments: argparse.Namespace) -> Workload:
    """Return what was measured, with what the command line changes of it."""
    given = {
        name: getattr(arguments, name)
        for name in _CHANGES
        if getattr(arguments, name) is not None
    }  # fmt: skip
    measured = workload_of(costs.problem)
    known = {one.name for one in fields(measured)}
    for name in given:
        if name not in known:
            raise ValueError(f"--{name.replace('_', '-')} is not for costs of {measured.kind}")
    return measured.changed(**given)


def _several(arguments: argparse.Namespace, name: str) -> tuple[int, ...]:
    value = getattr(arguments, name)
    at_least(name, value, 1)
    return tuple(sorted(set(value))) if isinstance(value, tuple) else (value,)


def _predictions(
    workload: Workload, costs: Costs, all_ranks: Sequence[int], arguments: argparse.Namespace
) -> dict[int, list[Prediction]]:
    """Return predictions by groups; those numbers of ranks that groups do not divide are left out.

    Raises
    ------
    ValueError
        If they divide none.
    """
    found = {}
    fit = fitted(costs, workload)
    for groups in _several(arguments, "groups"):
        run, share = run_of(workload, costs, groups), share_of(workload, groups)
        split = [ranks for ranks in all_ranks if ranks % groups == 0]
        if not split:
            raise ValueError(f"groups must divide the ranks, {list(all_ranks)}, got {groups}")
        found[groups] = [predict(run, fit, ranks, share) for ranks in split]
    return found


def show(predictions: Sequence[Prediction], title: str) -> None:
    """Print a table of times, speedups and memory."""
    baselines = list(predictions[0].speedup)
    names = ["ranks", "groups", "seconds", *(f"x {name}" for name in baselines)]
    table = _table(title, [*names, "efficiency", "MB/rank"])
    for one in predictions:
        table.add_row(
            f"{one.ranks:,}", str(one.groups), f"{one.seconds:.4g}",
            *(f"{one.speedup[name]:.2f}" for name in baselines),
            f"{one.efficiency:.3f}", f"{one.megabytes:.1f}",
        )  # fmt: skip
    _print(table)


def show_phases(predictions: Sequence[Prediction]) -> None:
    """Print seconds by phase, of the rank that is done last, for each number of ranks."""
    phases = list(dict.fromkeys(name for one in predictions for name in one.phases))
    title = f"seconds by phase, {predictions[0].groups} x batch"
    table = _table(title, ["ranks", *(f"{one.ranks:,}" for one in predictions)])
    for phase in phases:
        seconds = (one.phases.get(phase, 0.0) for one in predictions)
        table.add_row(phase, *(f"{value:.2g}" for value in seconds))
    table.add_row("all", *(f"{one.seconds:.2g}" for one in predictions), style="bold")
    _print(table)


def _table(title: str, names: Sequence[str]) -> Shown:
    table = Shown(title=title)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _print(table: Shown) -> None:
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _told(one: Crossover) -> str:
    """Say on which of the listed numbers of ranks it pays, and from where on it stays so."""
    if not one.faster:
        return "on none of these"
    ranges = [
        f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in one.faster
    ]
    told = f"on {', '.join(ranges)} ranks"
    if one.ranks is None:
        return f"{told}, and no more on the most"
    if one.slower_at is None:
        return f"{told}: all of these"
    return f"{told}; stays so from between {one.slower_at:,} and {one.ranks:,} on"


def _warn(predictions: Sequence[Prediction], costs: Costs, *, is_measured: bool) -> None:
    """Say on stderr what the predictions rest on less."""
    beyond = max(one.beyond for one in predictions)
    if beyond > FAR:
        print(
            f"pint predict: some work is {beyond:,.0f} times larger than the largest measured: its "
            "time is extrapolated. Measure longer problems for numbers to rely on",
            file=sys.stderr,
        )
    most, node = max(one.ranks for one in predictions), costs.machine.ranks_per_node
    if is_measured and most > 4 * node:
        print(
            f"pint predict: messages were measured among the {node} ranks of a node, and are taken "
            f"for {most:,}: name a network with --machine",
            file=sys.stderr,
        )
