"""Sequences of many elements train on one process, in little memory."""

import subprocess
import sys

import pytest

from tests.launcher import environment

BATCH, STEPS, HIDDEN = 4, 16384, 64

TRAINING = f"""
import pathlib, sys
import numpy as np
from pint import MGRITOptions
from pint.parallel.comm import SerialCommunicator
from pint.rnn.network import Network
from pint.rnn.recurrence import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.data.sequences import SequenceData
from pint.train.optimizers import Adam
from pint.train.trainer import Trainer, TrainingOptions

rng = np.random.default_rng(0)
y = np.arange(8) % 2
x = (rng.standard_normal((8, {STEPS}, 9)) + y[:, None, None]).astype(np.float32)
data = SequenceData(
    name="noise", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4], class_names=("a", "b")
)
options = MGRITOptions(levels=int(sys.argv[1]), coarsening=4, max_iterations=2)
network = Network(RecurrenceOptions(num_features=9, hidden={HIDDEN}), 2)
solver = NetworkSolver(network, {STEPS}, options, options)
how = TrainingOptions(epochs=2, batch={BATCH}, optimizer=Adam(learning_rate=1e-2))
log = Trainer(solver, data, how, SerialCommunicator()).train()
assert log.epochs[-1]["train_loss"] < log.epochs[0]["train_loss"]
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").open())
print(status["VmHWM"].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the greatest memory is read from /proc")
@pytest.mark.parametrize("levels", [1, 3], ids=["stepping", "cycles"])
def test_training_takes_less_than_one_gigabyte(levels):
    """The whole process with its libraries, at its greatest: losses, updates and both tests too.

    Not so the compiler, which has done its work once the first process is through. `getrusage`
    would not do: what it calls the greatest memory of a process begins with its parent's.
    """
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", TRAINING, str(levels)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 1e9
