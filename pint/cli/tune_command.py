"""The command `pint tune`: which options train fastest at a wanted gradient error."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Shown

from pint.cli.data_sources import add_source, load
from pint.data.loss import loss_of
from pint.data.sequences import SequenceData
from pint.options import at_least, positive
from pint.results.atomic import check_folder
from pint.rnn.network import Network
from pint.scaling.candidates import Candidate, candidates
from pint.scaling.costs import Costs
from pint.scaling.tune import exact_gradients, gradient_error, trained, tune
from pint.scaling.workload import GRUWorkload, workload_of

SEED = 0
"""Of generated data, as apps.train has it."""


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pint tune``."""
    parser.description = (
        "Find the fastest options to train a network on a number of ranks at a given gradient "
        "error, and write the options to a file for apps.train --config."
    )
    parser.add_argument("costs", metavar="COSTS", help="file of pint calibrate gru")
    parser.add_argument("--machine", help="TOML file with a section [machine]: another network")
    parser.add_argument("--ranks", type=int, default=2, help="ranks that will train (default: 2)")
    parser.add_argument("--bound", type=float, default=0.05, help="relative error (default: 0.05)")
    add_source(parser)
    parser.add_argument("--epochs", type=int, default=2, help="trained before (default: 2)")
    parser.add_argument("--batches", type=int, default=2, help="that are compared (default: 2)")
    parser.add_argument("--most", type=int, default=40, help="errors that are measured at most")
    parser.add_argument("--output", default="tuned.toml", help="file to write")


def run_tune(arguments: argparse.Namespace) -> int:
    """Search, print and write."""
    for name, least in (("ranks", 1), ("epochs", 0), ("batches", 1), ("most", 1)):
        at_least(name, getattr(arguments, name), least)
    positive("bound", arguments.bound)
    check_folder(Path(arguments.output))
    costs = Costs.load(arguments.costs, arguments.machine)
    costs.stepping()
    data = load(arguments, SEED)
    workload = _fitting(costs, data, arguments)
    with Progress(console=Console(stderr=True)) as progress:
        ordered = _with_progress(
            progress, "times of all ways", candidates, workload, costs, arguments.ranks
        )
        error_of = _errors(workload, data, arguments, progress)
        best, tried = tune(ordered, arguments.bound, error_of, arguments.most)
    _show(tried, best, arguments)
    if best is None:
        raise ValueError(f"no way has an error below {arguments.bound}: raise --bound")
    untried = ordered.index(best) + 1 - len(tried)
    if untried:
        print(f"{untried} faster ways were not measured: --most was {arguments.most}")
    write_options(arguments.output, best, arguments)
    print(f"{arguments.output}: python -m apps.train --config {arguments.output}")
    return 0


def _fitting(costs: Costs, data: SequenceData, arguments: argparse.Namespace) -> GRUWorkload:
    """Return what was measured, if it is the training of a network on such data.

    Raises
    ------
    ValueError
        If not; with the command that measures it.
    """
    measured = workload_of(costs.problem)
    if not isinstance(measured, GRUWorkload) or measured.levels == 1:
        raise ValueError(f"{arguments.costs}: must be of pint calibrate gru with 2 levels or more")
    num_samples = len(data.y_train)
    wanted = {
        "steps": data.num_steps,
        "features": data.num_features,
        "batch": min(measured.batch, num_samples),
    }
    for name, value in wanted.items():
        if getattr(measured, name) != value:
            told = {
                **wanted, "hidden": measured.hidden, "layers": measured.layers,
                "cell": measured.cell, "outputs": data.num_outputs,
            }  # fmt: skip
            options = " ".join(f"--{key} {value}" for key, value in told.items())
            raise ValueError(
                f"{arguments.costs} is of {name} {getattr(measured, name)}, {arguments.data} needs "
                f"{value}: pint calibrate gru {options} --output {arguments.costs}"
            )
    return measured.changed(outputs=data.num_outputs)


def _errors(
    workload: GRUWorkload, data: SequenceData, arguments: argparse.Namespace, progress: Progress
) -> Callable[[GRUWorkload], float]:
    """Train a network, and return what measures errors of its gradients."""
    loss = loss_of(data)
    network = Network(
        workload.network().options,
        data.num_outputs,
        pooling="every" if data.is_per_step else "last",
    )
    _with_progress(
        progress, "training before", trained, network, data, loss, workload.batch, arguments.epochs
    )
    batches = [data.train(rows) for rows in _rows(data, workload.batch, arguments.batches)]
    exact = exact_gradients(network, batches, loss)
    task = progress.add_task("errors, the fastest first", total=arguments.most)

    def error_of(way: GRUWorkload) -> float:
        progress.advance(task)
        return gradient_error(way, network, batches, exact, loss)

    return error_of


def _with_progress(progress: Progress, what: str, action: Callable[..., Any], *given: Any) -> Any:
    """Call an action whose last argument is called with the finished part."""
    task = progress.add_task(what, total=1.0)
    done = action(*given, lambda part: progress.update(task, completed=part))
    progress.update(task, completed=1.0)
    return done


def _rows(data: SequenceData, batch: int, count: int) -> list[NDArray[np.int64]]:
    """Return some batches of the training data."""
    order = np.random.default_rng(1).permutation(len(data.y_train))
    return [part for part in np.split(order, range(batch, order.size, batch))[:count] if part.size]


def _show(tried: list[Candidate], best: Candidate | None, arguments: argparse.Namespace) -> None:
    table = Shown(title=f"{arguments.ranks} ranks, the fastest first, until {arguments.bound:.1%}")
    for name in ("", "predicted ms", "gradient error"):
        table.add_column(name, justify="right")
    for one in tried:
        style = "bold" if one is best else ""
        error = f"{one.error:.2%}"
        table.add_row(one.label, f"{1e3 * one.seconds:.2f}", error, style=style)
    Console(width=140).print(table)


def write_options(
    path: str | os.PathLike[str], best: Candidate, arguments: argparse.Namespace
) -> None:
    """Write a TOML file that ``apps.train --config`` takes."""
    names = ("data", "data_dir", "features", "length", "samples")
    given = {name.replace("_", "-"): getattr(arguments, name) for name in names}
    options = {name: value for name, value in given.items() if value is not None}
    options = {**options, **best.options(arguments.ranks), "seed": SEED}
    options = {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }
    comment = (
        f"# For {arguments.ranks} ranks: {1e3 * best.seconds:.3g} ms a step by the model, gradient "
        f"error {best.error:.2%} as measured.\n"
    )
    Path(path).write_text(comment + tomli_w.dumps(options))
