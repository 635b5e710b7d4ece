"""Options that train fastest at a wanted gradient error: predicted times, measured errors."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Shown

from pint.options import at_least, positive
from pint.rnn.network import Network
from pint.rnn.solver import NetworkSolver
from pint.scaling.costs import Costs, Key, Table
from pint.scaling.predict import predict
from pint.scaling.workload import EXACT, GRUWorkload, workload_of
from pint.train.datasets import SequenceData, load_digits, load_har
from pint.train.optimizers import Adam

CYCLES = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 4))
"""Forward and backward iterations that are tried."""

_STEPS = ("sweep", "chain", "residual", "coarse_rhs", "linearize")
"""Work that evaluates gates."""


@dataclass(eq=False)
class Candidate:
    """A way to train.

    Attributes
    ----------
    workload : GRUWorkload
        With its options.
    groups : int
        Groups of ranks that share the batch.
    seconds : float
        Of a step, predicted.
    error : float
        Greatest relative error of a gradient, measured; NaN if it was not.
    """

    workload: GRUWorkload
    groups: int
    seconds: float
    error: float = field(default=float("nan"))

    @property
    def label(self) -> str:
        """What it does, in a few words."""
        w = self.workload
        if w.levels == 1:
            return f"exact stepping, {self.groups} x batch"
        coarsest = f" truncated to {w.truncation}" if w.truncation else ""
        return (
            f"levels {w.levels}, m {w.coarsening}, relax {w.relax}, {w.coarse_step} {w.substep}, "
            f"{w.forward_iterations}+{w.backward_iterations} cycles{coarsest}, "
            f"{self.groups} x batch"
        )

    def options(self, ranks: int) -> dict[str, Any]:
        """Return the options of ``apps.train`` for so many ranks."""
        w = self.workload
        return {
            "hidden": w.hidden,
            "layers": w.layers,
            "cell": w.cell,
            "batch": w.batch,
            "levels": w.levels,
            "coarsening": w.coarsening,
            "relax": w.relax,
            "coarse-step": w.coarse_step,
            "substep": w.substep,
            "coarsest": w.coarsest,
            **({"truncation": w.truncation} if w.truncation else {}),
            "forward-iterations": w.forward_iterations,
            "backward-iterations": w.backward_iterations,
            "time-ranks": ranks // self.groups,
        }


def candidates(
    workload: GRUWorkload, costs: Costs, ranks: int, tell: Callable[[float], None] = lambda _: None
) -> list[Candidate]:
    """Return ways to train on so many ranks with their predicted times, the fastest first.

    Parameters
    ----------
    workload : GRUWorkload
        The network and its batch.
    costs : Costs
        Of such a network, measured with at least two levels.
    ranks : int
        All ranks.
    tell : callable, optional
        Called with the part that is done.
    """
    splits = [g for g in range(1, ranks + 1) if ranks % g == 0 and workload.batch % g == 0]
    exact = workload.changed(levels=1, coarsest="gather", truncation=0)
    plans = [(way, groups) for groups in splits for way in _ways(workload, ranks // groups)]
    found = []
    if ranks <= workload.batch:
        found.append(Candidate(exact, ranks, _exact_seconds(exact, costs, ranks)))
    for index, (way, groups) in enumerate(plans):
        for cycles, seconds in _by_cycles(way, costs, ranks, groups):
            forward, backward = cycles
            changed = way.changed(forward_iterations=forward, backward_iterations=backward)
            found.append(Candidate(changed, groups, seconds))
        tell((index + 1) / len(plans))
    return sorted(found, key=lambda one: one.seconds)


def _exact_seconds(workload: GRUWorkload, costs: Costs, ranks: int) -> float:
    """Return the seconds of exact stepping, with the batch split over all ranks."""
    per_step = costs.baselines["serial stepping"] / costs.machine.speed
    gradient = workload.run().num_parameters * 4
    share = -(-workload.batch // ranks) / workload.batch
    return per_step * workload.steps * share + costs.machine.collective("sum", gradient, ranks)


def _ways(workload: GRUWorkload, size: int) -> Iterator[GRUWorkload]:
    """Yield hierarchies for so many ranks along time."""
    steps = workload.steps
    if size == 1:
        return  # what one rank could do along time, exact stepping does sooner
    one_each = -(-(steps + 1) // size)
    factors = sorted({m for m in (4, 16, 64, one_each) if 2 <= m <= steps // 2})
    coarsenings: list[Any] = [(2, m) for m in factors]
    coarsenings += [(3, (m, 4)) for m in factors if steps // (4 * m) >= 4]
    for (levels, m), substep, truncation in product(coarsenings, (2, 4, 8), (0, 4, 8)):
        first = m if isinstance(m, int) else m[0]
        num_coarse = steps // (first if isinstance(m, int) else m[0] * m[1])
        if substep > first or (truncation and num_coarse <= 2 * truncation):
            continue
        for relax in (0, (0, 1)) if levels == 3 else (0, 1):
            yield workload.changed(
                levels=levels, coarsening=m, relax=relax, coarse_step="averaged", substep=substep,
                coarsest="truncated" if truncation else "gather", truncation=truncation,
                min_coarse=1,
            )  # fmt: skip


def _by_cycles(
    way: GRUWorkload, costs: Costs, ranks: int, groups: int
) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield predicted seconds of each number of cycles: every further one takes as long."""
    seconds = {}
    for cycles in ((2, 2), (3, 2), (2, 3), (1, 1)):
        changed = way.changed(forward_iterations=cycles[0], backward_iterations=cycles[1])
        seconds[cycles] = _predicted(changed, costs, ranks, groups)
    forward, backward = (seconds[more] - seconds[2, 2] for more in ((3, 2), (2, 3)))
    for cycles in CYCLES:
        if cycles == (1, 1):
            yield cycles, seconds[cycles]
        elif 1 not in cycles:
            yield cycles, seconds[2, 2] + (cycles[0] - 2) * forward + (cycles[1] - 2) * backward
        else:
            changed = way.changed(forward_iterations=cycles[0], backward_iterations=cycles[1])
            yield cycles, _predicted(changed, costs, ranks, groups)


def _predicted(way: GRUWorkload, costs: Costs, ranks: int, groups: int) -> float:
    return predict(way.run(groups), fitted(costs, way), ranks).seconds


def fitted(costs: Costs, way: GRUWorkload) -> Costs:
    """Return costs for other levels: a coarse step takes as long as its gate evaluations do.

    Parameters
    ----------
    costs : Costs
        Measured with some levels, which their `problem` tells.
    way : GRUWorkload
        With the levels that are wanted.
    """
    measured = cast(GRUWorkload, workload_of(costs.problem)).evaluations()
    wanted = way.evaluations()
    tables: dict[Key, Table] = {
        key: table for key, table in costs.tables.items() if key[2] <= 0 or key[1] not in _STEPS
    }
    for solve, name in product(("forward", "adjoint"), _STEPS):
        levels = sorted(key[2] for key in costs.tables if key[:2] == (solve, name) and key[2] > 0)
        if not levels:
            continue
        level = levels[0]
        table = costs.tables[solve, name, level]
        one = table.seconds / measured[min(level, len(measured) - 1)]
        for index in range(1, len(wanted)):
            tables[solve, name, index] = Table(table.sizes, one * wanted[index])
    return replace(costs, tables=tables)


def gradient_error(
    way: GRUWorkload, network: Network, batches: Iterable[tuple[Any, ...]], exact: Sequence[Any]
) -> float:
    """Return the greatest relative error of the gradients of some batches.

    Parameters
    ----------
    way : GRUWorkload
        How they are computed.
    network : Network
        At which parameters.
    batches : iterable of (x, y, mask)
        As `NetworkSolver.loss_and_gradient` takes them.
    exact : sequence of ndarray
        Their gradients by exact stepping.
    """
    if way.levels == 1:
        return 0.0
    kept = network.options
    network.options = replace(kept, coarse_step=way.coarse_step, substep=way.substep)
    try:
        solver = NetworkSolver(network, way.steps, way.options, way.backward)
    finally:
        network.options = kept
    errors = []
    for (x, y, mask), right in zip(batches, exact, strict=True):
        try:
            gradient = solver.loss_and_gradient(x, y, mask).gradient
        except FloatingPointError:
            return float("inf")
        errors.append(float(np.linalg.norm(gradient - right) / np.linalg.norm(right)))
    return max(errors)


def tune(
    ordered: Sequence[Candidate],
    bound: float,
    error_of: Callable[[GRUWorkload], float],
    most: int,
) -> tuple[Candidate | None, list[Candidate]]:
    """Measure errors, the fastest first, until one is small enough.

    Parameters
    ----------
    ordered : sequence of Candidate
        The fastest first.
    bound : float
        Wanted relative error of gradients.
    error_of : callable
        Measures one.
    most : int
        Measure no more than so many.

    Returns
    -------
    best : Candidate or None
        The fastest that is accurate enough, or None.
    tried : list of Candidate
        Those whose error is known.
    """
    known: dict[str, float] = {}
    tried = []
    for candidate in ordered:
        key = repr(candidate.workload)
        if key not in known:
            if len(known) == most:
                break
            known[key] = error_of(candidate.workload)
        candidate.error = known[key]
        tried.append(candidate)
        if candidate.error <= bound:
            return candidate, tried
    return None, tried


def trained(
    network: Network, data: SequenceData, steps: int, batch: int, epochs: int, tell: Any
) -> None:
    """Train a network by exact stepping: errors at random weights say little about later ones."""
    solver, adam = NetworkSolver(network, steps, EXACT, EXACT), Adam(learning_rate=1e-3)
    state = adam.init(network.parameters)
    for epoch in range(epochs):
        order = np.random.default_rng([0, epoch]).permutation(len(data.y_train))
        parts = np.split(order, range(batch, order.size, batch))
        for index, chosen in enumerate(parts):
            x, y, mask = data.train(chosen)
            update = adam.update(solver.loss_and_gradient(x, y, mask).gradient, state,
                                 network.parameters)  # fmt: skip
            network.parameters += update.change
            state = update.state
            tell((epoch + (index + 1) / len(parts)) / epochs)


def add_tune(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pint tune``."""
    parser.description = (
        "Find how to train a network on so many ranks in the least time for a wanted gradient "
        "error, and write the options to a file for apps.train --config."
    )
    parser.add_argument("costs", metavar="COSTS", help="file of pint calibrate gru")
    parser.add_argument("--machine", help="TOML file with a section [machine]: another network")
    parser.add_argument("--ranks", type=int, default=2, help="ranks that will train (default: 2)")
    parser.add_argument("--bound", type=float, default=0.05, help="relative error (default: 0.05)")
    parser.add_argument("--data", choices=("digits", "har"), default="digits")
    parser.add_argument("--data-dir", help="folder of UCI-HAR")
    parser.add_argument("--epochs", type=int, default=2, help="trained before (default: 2)")
    parser.add_argument("--batches", type=int, default=2, help="that are compared (default: 2)")
    parser.add_argument("--most", type=int, default=40, help="errors that are measured at most")
    parser.add_argument("--output", default="tuned.toml", help="file to write")


def run_tune(arguments: argparse.Namespace) -> int:
    """Search, print and write."""
    for name, least in (("ranks", 1), ("epochs", 0), ("batches", 1), ("most", 1)):
        at_least(name, getattr(arguments, name), least)
    positive("bound", arguments.bound)
    costs = Costs.load(arguments.costs, arguments.machine)
    data = load_digits() if arguments.data == "digits" else load_har(arguments.data_dir)
    measured = workload_of(costs.problem)
    if not isinstance(measured, GRUWorkload) or measured.levels == 1:
        raise ValueError(f"{arguments.costs}: must be of pint calibrate gru with 2 levels or more")
    workload = measured.changed(
        steps=data.num_steps, features=data.num_features, outputs=data.num_classes
    )
    network = workload.network()
    with Progress(console=Console(stderr=True)) as progress:
        ordered = _with_progress(
            progress, "times of all ways", candidates, workload, costs, arguments.ranks
        )
        _with_progress(
            progress, "training before", trained, network, data, workload.steps, workload.batch,
            arguments.epochs,
        )  # fmt: skip
        batches = [data.train(rows) for rows in _rows(data, workload.batch, arguments.batches)]
        serial = NetworkSolver(network, workload.steps, EXACT, EXACT)
        exact = [serial.loss_and_gradient(x, y, mask).gradient for x, y, mask in batches]
        task = progress.add_task("errors, the fastest first", total=arguments.most)

        def error_of(way: GRUWorkload) -> float:
            progress.advance(task)
            return gradient_error(way, network, batches, exact)

        best, tried = tune(ordered, arguments.bound, error_of, arguments.most)
    _show(tried, best, arguments)
    if best is None:
        raise ValueError(
            f"none of the {arguments.most} fastest ways has an error below {arguments.bound}: "
            "raise --most or --bound"
        )
    write_options(arguments.output, best, arguments.ranks, arguments.data)
    print(f"{arguments.output}: python -m apps.train --config {arguments.output}")
    return 0


def _with_progress(progress: Progress, what: str, action: Callable[..., Any], *given: Any) -> Any:
    """Call an action whose last argument hears of the part that is done."""
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


def write_options(path: str | os.PathLike[str], best: Candidate, ranks: int, data: str) -> None:
    """Write a TOML file that ``apps.train --config`` takes."""
    lines = [
        f"# For {ranks} ranks: {1e3 * best.seconds:.3g} ms a step by the model, gradient error "
        f"{best.error:.2%} as measured.",
        f"data = {json.dumps(data)}",
    ]
    lines += [f"{name} = {json.dumps(value)}" for name, value in best.options(ranks).items()]
    Path(path).write_text("\n".join(lines) + "\n")
