"""Training with masks over the ranks: what one process learns, for every kind of targets."""

from dataclasses import replace

import numpy as np
import pytest

from pint import MGRITOptions
from pint.parallel.comm import SerialCommunicator, world
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.accuracy import EXACT, AccuracyControl, AccuracyOptions
from pint.train.optimizers import SGD
from pint.train.trainer import Trainer, TrainingOptions
from tests.training_data import KINDS, loss_of, make, pooling_of

FEW = MGRITOptions(levels=2, coarsening=3, max_iterations=2)
STEPPING = MGRITOptions(levels=1)


def train(data, comm, mgrit):
    """Two epochs, each gradient compared with the exact one."""
    options = RecurrenceOptions(num_features=2, hidden=4, cell="classic", dtype=np.float64)
    network = Network(options, 3, pooling=pooling_of(data), seed=1)
    solver = NetworkSolver(network, data.num_steps, mgrit, mgrit, comm, loss_of(data))
    training = TrainingOptions(
        epochs=2,
        batch=4,
        optimizer=SGD(learning_rate=0.3),
        accuracy=AccuracyOptions(check_every=1),
    )
    return Trainer(solver, data, training, comm).train(), network.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_masked_training_does_not_depend_on_the_ranks(kind):
    data = make(kind, num_steps=24)
    mgrit = (FEW, STEPPING)[(KINDS.index(kind) + world().size) % 2]
    expected, reference = train(data, SerialCommunicator(), mgrit)
    log, parameters = train(data, world(), mgrit)
    np.testing.assert_allclose(parameters, reference, rtol=1e-9, atol=1e-11)
    for name, values in expected.columns().items():
        if name != "seconds":
            np.testing.assert_allclose(log.columns()[name], values, rtol=1e-8, err_msg=name)
    measured = np.array(log.accuracy.measured_error)
    np.testing.assert_allclose(measured, expected.accuracy.measured_error, rtol=1e-6)


@pytest.mark.parametrize("what", ["parameters", "training data", "options"])
def test_ranks_that_differ_are_told(what):
    data = make(KINDS[0], num_steps=24)
    if what == "training data":
        data = replace(data, y_train=(data.y_train + world().rank) % 3)
    options = RecurrenceOptions(num_features=2, hidden=4)
    network = Network(
        options, 3, pooling=pooling_of(data), seed=world().rank * (what == "parameters")
    )
    solver = NetworkSolver(network, data.num_steps, STEPPING, STEPPING, world(), loss_of(data))
    training = TrainingOptions(batch=4 + world().rank * (what == "options"))
    with pytest.raises(ValueError, match=f"the ranks differ in their {what}: make them equal"):
        Trainer(solver, data, training).train()


class Clocks(AccuracyControl):
    """Believes that its solves took these seconds per sequence."""

    cycles: float
    stepping: float

    def _keep_time(self, used, seconds):
        super()._keep_time(used, self.stepping if used == EXACT else self.cycles)


@pytest.mark.parametrize(
    ("cycles", "stepping", "tried"), [((1, 3), (2, 2), [2, 0]), ((2, 2), (1, 3), [2, 2])]
)
def test_ranks_step_exactly_together_whatever_their_clocks_say(cycles, stepping, tried):
    """The slowest rank counts; it is the last one. So it is in the epoch that tries again."""
    options = RecurrenceOptions(num_features=2, hidden=4, dtype=np.float64)
    solver = NetworkSolver(Network(options, 3, seed=1), 24, FEW, FEW, world())
    control = Clocks(solver, AccuracyOptions(mode="adaptive", bound=1e9))
    last = world().rank == world().size - 1
    control.cycles, control.stepping = cycles[last], stepping[last]
    x, y, mask = make("labels", num_steps=24).train(slice(0, 4))
    control.warm_up(x, y, mask)
    for _ in range(2):
        control.start_epoch()
        for _ in range(2):
            control.loss_and_gradient(x, y, mask)
    assert control.log.forward_iterations == tried * 2
