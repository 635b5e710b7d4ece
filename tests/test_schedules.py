"""Learning-rate schedules at the points where their values are known."""

from itertools import pairwise

import numpy as np
import pytest

from pint.train.learning_rate import LearningRate
from pint.train.log import TrainingProgress
from pint.train.optimizers import SGD
from pint.train.trainer import TrainingOptions
from tests.test_trainer import make_trainer


def test_constant_is_one():
    assert {LearningRate().factor(update, 10) for update in range(10)} == {1.0}


def test_cosine_falls_from_one_over_a_half_to_zero():
    schedule = LearningRate(kind="cosine")
    assert schedule.factor(0, 100) == 1.0
    assert schedule.factor(50, 100) == pytest.approx(0.5, abs=1e-15)
    assert schedule.factor(100, 100) == pytest.approx(0.0, abs=1e-15)
    third = schedule.factor(100, 300)
    assert third == pytest.approx((1 + np.cos(np.pi / 3)) / 2, rel=1e-14)


def test_step_decays_after_every_period():
    schedule = LearningRate(kind="step", period=10, decay=0.1)
    assert [schedule.factor(update, 99) for update in (0, 9, 10, 19, 20)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )


def test_warm_up_rises_linearly_to_the_schedule():
    schedule = LearningRate(warm_up=3)
    assert [schedule.factor(update, 99) for update in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_equals_torch_cosine():
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for update in range(20):
        expected = optimizer.param_groups[0]["lr"]
        assert LearningRate(kind="cosine").factor(update, 20) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        peer.step()


@pytest.mark.parametrize("name", ["step", "warm_up"])
def test_equals_torch_steps_and_warm_up(name):
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    if name == "step":
        ours = LearningRate(kind="step", period=7, decay=0.3)
        peer = schedulers.StepLR(optimizer, step_size=7, gamma=0.3)
    else:
        ours = LearningRate(warm_up=9)
        peer = schedulers.LinearLR(optimizer, start_factor=0.1, end_factor=1.0, total_iters=9)
    for update in range(50):
        expected = optimizer.param_groups[0]["lr"]
        assert ours.factor(update, 50) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        peer.step()


class Watched(TrainingProgress):
    """Keeps the parameters after every update."""

    def batch(self, epoch, index, num_batches, means):
        self.states.append(self.parameters.copy())


def moves(schedule):
    """Return how far each of two updates moves the parameters, and the last learning rate."""
    options = TrainingOptions(
        epochs=1, batch=25, optimizer=SGD(learning_rate=1e-3), schedule=schedule
    )
    progress = Watched()
    trainer = make_trainer(options, progress=progress)
    progress.parameters = trainer.solver.network.parameters
    progress.states = [progress.parameters.copy()]
    log = trainer.train()
    lengths = [np.linalg.norm(after - before) for before, after in pairwise(progress.states)]
    return lengths, log.epochs[0]["learning_rate"]


def test_the_trainer_follows_the_schedule():
    """With a factor of 0.1 after the first update, the second moves a tenth as far."""
    constant, _ = moves(LearningRate())
    decayed, rate = moves(LearningRate(kind="step", period=1, decay=0.1))
    assert rate == pytest.approx(1e-4)
    assert decayed[0] == pytest.approx(constant[0], rel=1e-6)
    assert decayed[1] == pytest.approx(0.1 * constant[1], rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "linear"}, "kind must be one of constant, step, cosine, got 'linear'"),
        ({"period": 0}, "period must be at least 1, got 0"),
        ({"decay": 0.0}, r"decay must be in \(0, 1\], got 0.0"),
        ({"warm_up": -1}, "warm_up must be at least 0, got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(**options)
