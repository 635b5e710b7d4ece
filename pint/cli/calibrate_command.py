"""The commands `pint calibrate`, `pint predict` and `pint tune`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from pint.cli.predict_command import add_predict, numbers, run_predict
from pint.cli.tune_command import add_tune, run_tune
from pint.options import at_least
from pint.parallel.comm import Communicator, world
from pint.parallel.launcher import mpiexec_path
from pint.results.atomic import check_folder
from pint.scaling.calibrate import lengths
from pint.scaling.costs import Machine
from pint.scaling.measurement import mean_costs, measured
from pint.scaling.message_costs import measure_network, measured_apart
from pint.scaling.workload import WORKLOADS, Workload

_TYPES: dict[str, Any] = {"int": int, "str": str, "CellName": str, "CoarseStep": str}


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
    actions = {"calibrate": calibrate, "predict": run_predict, "tune": run_tune}
    with ExitStack() as stack:
        if argv[0] == "calibrate" and world().rank > 0:  # one rank prints errors
            silence = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stderr(silence))
        arguments = parser.parse_args(argv)
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
        for one in fields(workload):
            sub.add_argument(
                "--" + one.name.replace("_", "-"), type=_TYPES.get(str(one.type), numbers),
                default=one.default, help=f"default: {one.default}",
            )  # fmt: skip
        sub.add_argument("--repeats", type=int, default=5, help="of which medians are taken")
        sub.add_argument("--longest", type=int, default=16384, help="longest problem that is run")
        sub.add_argument("--output", default="costs.toml", help="file to write")
        found = "starts two ranks, to measure messages; the one that is found, if left out"
        sub.add_argument("--mpiexec", help=found)


def calibrate(arguments: argparse.Namespace) -> int:
    """Measure and write; collective."""
    comm = world()
    workload, of_lengths = _asked(arguments)
    with comm.collective():
        check_folder(Path(arguments.output))
    machine = _network(comm, arguments.mpiexec or mpiexec_path() or "mpiexec")
    with Progress(console=Console(stderr=True), disable=comm.rank > 0) as progress:
        costs = measured(
            workload, of_lengths, arguments.repeats,
            lambda given: progress.track(given, description="problems of growing length"),
        )  # fmt: skip
    baselines = workload.baselines(of_lengths[0])
    costs = replace(
        mean_costs(replace(costs, baselines=baselines), comm),
        machine=machine,
        problem={**costs.problem, "measured_on_ranks": comm.size},
    )
    if comm.rank == 0:
        costs.save(arguments.output)
        print(
            f"{arguments.output}: {len(costs.tables)} tables; "
            f"a message takes {1e6 * machine.latency:.2g} us, and 1 s for "
            f"{machine.bandwidth / 1e9:.2g} GB"
        )
    return 0


def _asked(arguments: argparse.Namespace) -> tuple[Workload, list[int]]:
    """Return the workload to measure, and its lengths."""
    for name in ("repeats", "longest"):
        at_least(name, getattr(arguments, name), 1)
    chosen: Any = WORKLOADS[arguments.kind]
    workload: Workload = chosen(
        **{one.name: getattr(arguments, one.name) for one in fields(chosen)}
    )
    return workload, lengths(workload.steps, workload.first_factor, arguments.longest)


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
