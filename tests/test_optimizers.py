"""Optimizers against torch's, against the published formulas by hand, and as pure functions."""

import dataclasses

import numpy as np
import pytest

from pint.train.optimizers import SGD, Adam, AdamW, clip_by_norm

EACH = {
    "SGD": SGD(learning_rate=0.03),
    "SGD, decay": SGD(learning_rate=0.03, weight_decay=0.1),
    "momentum": SGD(learning_rate=0.03, momentum=0.9),
    "momentum, decay": SGD(learning_rate=0.03, momentum=0.9, weight_decay=0.1),
    "Nesterov": SGD(learning_rate=0.03, momentum=0.9, nesterov=True),
    "Nesterov, decay": SGD(learning_rate=0.03, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": Adam(learning_rate=0.03),
    "Adam, betas": Adam(learning_rate=0.03, beta1=0.8, beta2=0.95, epsilon=1e-3),
    "AdamW": AdamW(learning_rate=0.03),
    "AdamW, decay": AdamW(learning_rate=0.03, beta1=0.8, weight_decay=0.3),
}
each = pytest.mark.parametrize("optimizer", EACH.values(), ids=EACH)


def test_first_adam_step_is_the_learning_rate_in_each_direction():
    optimizer, parameters = Adam(learning_rate=0.1), np.zeros(3)
    gradient = np.array([5.0, -1e-3, 0.0])
    change, _ = optimizer.update(gradient, optimizer.init(parameters), parameters)
    np.testing.assert_allclose(change, [-0.1, 0.1, 0.0], rtol=2e-5)


def test_momentum_accumulates():
    optimizer, parameters = SGD(learning_rate=1.0, momentum=0.5), np.zeros(1)
    state = optimizer.init(parameters)
    for _ in range(3):
        change, state = optimizer.update(np.ones(1), state, parameters)
        parameters = parameters + change
    assert parameters[0] == -(1 + 1.5 + 1.75)
    assert state.num_updates == 3


def torch_peer(torch, optimizer, tensor):
    """Return torch's optimizer with the same settings."""
    if isinstance(optimizer, SGD):
        settings = dataclasses.asdict(optimizer)
        return torch.optim.SGD([tensor], lr=settings.pop("learning_rate"), **settings)
    common = {
        "lr": optimizer.learning_rate,
        "betas": (optimizer.beta1, optimizer.beta2),
        "eps": optimizer.epsilon,
    }
    if isinstance(optimizer, AdamW):
        return torch.optim.AdamW([tensor], weight_decay=optimizer.weight_decay, **common)
    return torch.optim.Adam([tensor], **common)


@each
def test_equals_torch(optimizer):
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    rng = np.random.default_rng(3)
    ours = rng.standard_normal(7)
    theirs = torch.tensor(ours, requires_grad=True)
    peer = torch_peer(torch, optimizer, theirs)
    state = optimizer.init(ours)
    for update in range(50):
        gradient = rng.standard_normal(7)
        rate = 0.03 * np.cos(update / 40)
        change, state = optimizer.update(gradient, state, ours, rate)
        ours = ours + change
        theirs.grad = torch.tensor(gradient)
        peer.param_groups[0]["lr"] = rate
        peer.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-12)
    assert state.num_updates == 50


@each
def test_pure(optimizer):
    """The same arguments give the same bits, and nothing that was passed in changes."""
    rng = np.random.default_rng(0)
    parameters, gradient = rng.standard_normal((2, 5)).astype(np.float32)
    _, state = optimizer.update(gradient, optimizer.init(parameters), parameters)
    passed = [parameters, gradient, *state.moments]
    kept = [array.copy() for array in passed]
    first, second = (optimizer.update(gradient, state, parameters) for _ in range(2))
    for array, before in zip(passed, kept, strict=True):
        np.testing.assert_array_equal(array, before)
    assert (state.num_updates, first.state.num_updates) == (1, 2)
    np.testing.assert_array_equal(first.change, second.change)
    assert first.change.dtype == np.float32
    assert all(moment.dtype == np.float32 for moment in first.state.moments)
    assert not any(
        np.shares_memory(old, new) for old in passed for new in (first.change, *first.state.moments)
    )


@each
@pytest.mark.parametrize("size", [1, 16383, 16384, 40001])
def test_given_arrays_take_the_same_result(optimizer, size):
    rng = np.random.default_rng(1)
    parameters = rng.standard_normal(size)
    last = optimizer.update(parameters, optimizer.init(parameters), parameters)
    taken = optimizer.update(parameters, optimizer.init(parameters), parameters)
    for _ in range(3):
        gradient = rng.standard_normal(size)
        last = optimizer.update(gradient, last.state, parameters)
        arrays = [taken.change, *taken.state.moments]
        taken = optimizer.update(gradient, taken.state, parameters, out=taken)
        assert all(
            a is b for a, b in zip(arrays, [taken.change, *taken.state.moments], strict=True)
        )
        np.testing.assert_array_equal(taken.change, last.change)
        for ours, other in zip(taken.state.moments, last.state.moments, strict=True):
            np.testing.assert_array_equal(ours, other)


def test_wrong_shapes_are_told():
    optimizer, parameters = Adam(), np.zeros(4)
    with pytest.raises(ValueError, match=r"of one length, got parameters of shape \(4,\)"):
        optimizer.update(np.zeros(3), optimizer.init(parameters), parameters)
    with pytest.raises(ValueError, match="of one length"):
        optimizer.update(np.zeros(4), optimizer.init(np.zeros(5)), parameters)


def test_clipping_keeps_the_direction():
    gradient = np.array([3.0, 4.0], dtype=np.float32)
    clipped, norm = clip_by_norm(gradient, 1.0)
    assert norm == 5.0
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
    assert clipped.dtype == np.float32
    np.testing.assert_array_equal(gradient, [3, 4])
    assert clip_by_norm(gradient, 6.0)[0] is gradient
    assert clip_by_norm(gradient, None)[0] is gradient


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(learning_rate=0), "learning_rate must be a positive number, got 0"),
        (lambda: Adam(beta1=1.0), r"beta1 must be in \[0, 1\), got 1.0"),
        (lambda: AdamW(epsilon=-1.0), "epsilon must be a positive number, got -1.0"),
        (lambda: AdamW(weight_decay=1.0), r"weight_decay must be in \[0, 1\), got 1.0"),
        (lambda: SGD(momentum=-0.1), r"momentum must be in \[0, 1\), got -0.1"),
        (lambda: SGD(weight_decay=-0.1), r"weight_decay must be in \[0, 1\), got -0.1"),
        (lambda: SGD(nesterov=True), "nesterov needs a momentum above 0"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
