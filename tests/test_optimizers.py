"""Optimizers against torch's, and against the published formula by hand."""

import numpy as np
import pytest

from pint.train.optimizers import SGD, Adam, clip_by_norm


def test_first_adam_step_is_the_learning_rate_in_each_direction():
    parameters = np.zeros(3)
    optimizer = Adam(learning_rate=0.1)
    optimizer.update(parameters, np.array([5.0, -1e-3, 0.0]), optimizer.init(parameters))
    np.testing.assert_allclose(parameters, [-0.1, 0.1, 0.0], rtol=2e-5)


def test_momentum_accumulates():
    parameters = np.zeros(1)
    optimizer = SGD(learning_rate=1.0, momentum=0.5)
    state = optimizer.init(parameters)
    for _ in range(3):
        optimizer.update(parameters, np.ones(1), state)
    assert parameters[0] == -(1 + 1.5 + 1.75)
    assert state.num_updates == 3


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_equals_torch(name):
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    rng = np.random.default_rng(3)
    start = rng.standard_normal(7)
    ours = start.copy()
    theirs = torch.tensor(start, requires_grad=True)
    if name == "Adam":
        optimizer, peer = Adam(learning_rate=0.03), torch.optim.Adam([theirs], lr=0.03)
    elif name == "AdamW":
        optimizer = Adam(learning_rate=0.03, weight_decay=0.1)
        peer = torch.optim.AdamW([theirs], lr=0.03, weight_decay=0.1)
    else:
        optimizer = SGD(learning_rate=0.03, momentum=0.9)
        peer = torch.optim.SGD([theirs], lr=0.03, momentum=0.9)
    state = optimizer.init(ours)
    for _ in range(20):
        gradient = rng.standard_normal(7)
        optimizer.update(ours, gradient, state)
        theirs.grad = torch.tensor(gradient)
        peer.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_clipping_keeps_the_direction():
    gradient = np.array([3.0, 4.0], dtype=np.float32)
    clipped, norm = clip_by_norm(gradient, 1.0)
    assert norm == 5.0
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
    assert clipped.dtype == np.float32
    assert clip_by_norm(gradient, 6.0)[0] is gradient
    assert clip_by_norm(gradient, None)[0] is gradient


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(learning_rate=0), "learning_rate must be a positive number, got 0"),
        (lambda: Adam(beta1=1.0), r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda: SGD(momentum=-0.1), r"momentum must be in \[0, 1\), got -0.1"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
