"""The way of a gradient through the code, and the messages of a training batch."""

import sys
import threading
from collections import Counter

import numpy as np
import pytest

from pint import MGRITOptions, run_on_threads
from pint.parallel.thread_ranks import ThreadCommunicator
from pint.rnn import Network, NetworkSolver, RecurrenceOptions
from pint.train import Trainer, TrainingOptions, TrainingProgress
from tests.training_data import loss_of, make, pooling_of

EXACT = MGRITOptions(levels=1)
CYCLES = {
    "max_iterations": 2,
    "skip_first_down": True,
    "relax": (0, 1),
    "coarsest": "pipelined",  # its messages go from neighbour to neighbour
}
OPTIONS = {
    "exact": EXACT,
    "two levels": MGRITOptions(levels=2, coarsening=4, **CYCLES),
    "three levels": MGRITOptions(levels=3, coarsening=2, **CYCLES),
}
COLLECTIVES = ("allgather_blocks", "gather_blocks", "sum", "bcast", "barrier")


class EndOfBatch(TrainingProgress):
    """Calls an action after each batch."""

    def __init__(self, action):
        self.action = action

    def batch(self, *_):
        self.action()


def trainer(options, comm=None, action=lambda: None, kind="labels"):
    data = make(kind, num_steps=24)
    shape = RecurrenceOptions(num_features=2, hidden=4, layers=2)
    network = Network(shape, 3, pooling=pooling_of(data), seed=1)
    solver = NetworkSolver(network, 24, options, options, comm, loss_of(data))
    training = TrainingOptions(epochs=1, batch=2)
    return Trainer(solver, data, training, progress=EndOfBatch(action))


def depth_of(frame):
    """Number of frames of pint from the trainer to a frame; 0 outside of a batch."""
    depth = 0
    while frame is not None and frame.f_code.co_name != "_train_epoch":
        depth += "/pint/" in frame.f_code.co_filename
        frame = frame.f_back
    return 0 if frame is None else depth + 2  # with Trainer.train


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_gradient_goes_through_at_most_22_frames(options):
    """Frames that call products: Python's last ones before compiled code."""
    training, depths = trainer(options), Counter()
    training.train()  # compiled now

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_name == "multiply":
            depths[depth_of(frame)] += 1

    again = trainer(options)
    sys.setprofile(profile)
    try:
        again.train()
    finally:
        sys.setprofile(None)
    assert 10 < max(depths) <= 22


def count_collectives(monkeypatch, num_ranks, options, kind):
    """Return the collectives of each batch but the first, on rank 0."""
    counts, batches = Counter(), []

    def counting(name):
        original = getattr(ThreadCommunicator, name)

        def counted(self, *arguments, **more):
            if threading.current_thread() in ranks:
                counts[name] += 1
            return original(self, *arguments, **more)

        return counted

    ranks = set()
    for name in COLLECTIVES:
        monkeypatch.setattr(ThreadCommunicator, name, counting(name))

    def action(comm):
        def note():
            batches.append(sum(counts.values()))

        if comm.rank == 0:
            ranks.add(threading.current_thread())
        trainer(options, comm, note if comm.rank == 0 else lambda: None, kind).train()

    run_on_threads(num_ranks, action)
    return np.diff(batches)


@pytest.mark.parametrize("kind", ["labels", "labels per step"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_batch_makes_at_most_7_collectives(monkeypatch, options, kind):
    counts = count_collectives(monkeypatch, 2, options, kind)
    assert counts.size > 2
    assert counts.min() >= 2  # the scalars and the gradient
    assert counts.max() <= 7
