"""What apps.train can be trained on: data sets, and generated sequences of any length."""

from __future__ import annotations

import argparse

from pint.cli.data_sources import load
from pint.data.generated import BASELINES, TASKS
from pint.data.sequences import SequenceData
from pint.parallel.comm import Communicator
from pint.results import check_target

from .tracing import check_trace


def prepare(args: argparse.Namespace, comm: Communicator) -> SequenceData:
    """Check the output file and load the data, the same on every rank; collective.

    Rank 0 goes first, because it may have to download.
    """
    data: SequenceData | None = None
    for turn in (comm.rank == 0, comm.rank > 0):
        with comm.collective():
            if turn:
                check_target(args.output)
                check_trace(args.trace)
                data = load(args, args.seed)
    assert data is not None
    if args.data in TASKS:  # processors may round differently, and chaos magnifies that
        for array in (data.x_train, data.y_train, data.x_test, data.y_test):
            comm.bcast(array, 0)
    return data


def kind_of(data: SequenceData) -> str:
    """Describe the targets of the sequences."""
    what = f"{data.num_classes} classes" if data.is_classification else "numbers to be predicted"
    return what + (" at every step" if data.is_per_step else "")


def baseline_of(name: str, data: SequenceData) -> tuple[str, float] | None:
    """Return what a result is to be held against, and its meaning; None for data sets."""
    for task, baseline in BASELINES.items():
        if task == name:
            return baseline.says, baseline.of(data)
    return None
