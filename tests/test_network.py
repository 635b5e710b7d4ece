"""The classifier: loss and gradient against finite differences and torch; solvers agree."""

import dataclasses

import numpy as np
import pytest

from pint import MGRITOptions
from pint.rnn.losses import CrossEntropy
from pint.rnn.network import Network
from pint.rnn.recurrence import RecurrenceOptions
from pint.rnn.solver import NetworkSolver

STEPPING = MGRITOptions(levels=1)


def make(layers=2, dtype=np.float64, **options):
    cell = RecurrenceOptions(num_features=3, hidden=6, layers=layers, dtype=dtype, **options)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, 24, 3)).astype(dtype)
    return Network(cell, 5, seed=1), x, np.array([0, 3, 4, 3])


def test_cross_entropy_of_equal_scores():
    terms, d_scores = CrossEntropy().terms(np.zeros((2, 4)), np.array([1, 3]))
    np.testing.assert_allclose(terms, np.log(4), rtol=1e-14)
    expected = np.full((2, 4), 0.25)
    expected[[0, 1], [1, 3]] -= 1
    np.testing.assert_allclose(d_scores, expected, rtol=1e-14)


def test_cross_entropy_survives_great_scores():
    terms, d_scores = CrossEntropy().terms(np.array([[1e4, -1e4]]), np.array([1]))
    assert terms[0] == 2e4
    np.testing.assert_array_equal(d_scores, [[1, -1]])


def test_gradient_of_every_tensor_by_central_differences():
    model, x, y = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    gradient = solver.loss_and_gradient(x, y).gradient
    start = 0
    rng = np.random.default_rng(0)
    for name, tensor in model.weights.items():
        direction = rng.standard_normal(tensor.shape)
        kept, h = tensor.copy(), 1e-5
        losses = []
        for sign in (1, -1):
            tensor[...] = kept + sign * h * direction
            losses.append(solver.loss_and_gradient(x, y).loss)
        tensor[...] = kept
        slope = (losses[0] - losses[1]) / (2 * h)
        got = gradient[start : start + tensor.size] @ direction.ravel()
        assert got == pytest.approx(slope, rel=1e-7, abs=1e-10), name
        start += tensor.size
    assert start == gradient.size


def test_loss_and_every_gradient_equal_torch():
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    model, x, y = make(cell="classic")
    got = NetworkSolver(model, 24, STEPPING, STEPPING).loss_and_gradient(x, y)
    gru = torch.nn.GRU(3, 6, 2, batch_first=True).double()
    head = torch.nn.Linear(6, 5).double()
    state = {name: torch.tensor(value) for name, value in model.weights.items()}
    gru.load_state_dict({name: value for name, value in state.items() if "head" not in name})
    head.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})
    scores = head(gru(torch.tensor(x))[0][:, -1])
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(y))
    loss.backward()
    assert got.loss == pytest.approx(loss.item(), rel=1e-12)
    theirs = {**dict(gru.named_parameters()), "head.weight": head.weight, "head.bias": head.bias}
    start = 0
    for name, tensor in model.weights.items():
        ours = got.gradient[start : start + tensor.size].reshape(tensor.shape)
        np.testing.assert_allclose(ours, theirs[name].grad.numpy(), atol=1e-13, err_msg=name)
        start += tensor.size


@pytest.mark.parametrize("coarse_step", ["midpoint", "matched", "implicit"])
def test_enough_iterations_give_serial_backpropagation(coarse_step):
    model, x, y = make(coarse_step=coarse_step)
    exact = NetworkSolver(model, 24, STEPPING, STEPPING).loss_and_gradient(x, y)
    many = MGRITOptions(levels=3, coarsening=2, relax=(0, 1), max_iterations=13)
    got = NetworkSolver(model, 24, many, many).loss_and_gradient(x, y)
    assert got.loss == pytest.approx(exact.loss, rel=1e-12)
    np.testing.assert_allclose(got.gradient, exact.gradient, rtol=0, atol=1e-12)
    assert got.num_correct == exact.num_correct


def test_few_midpoint_iterations_come_closer_than_implicit_ones():
    """On a smooth sequence, where a coarse step can know the inputs between its ends."""
    times = np.linspace(0, 3, 64)[None, :, None] + np.arange(3)
    x = np.sin(times * np.arange(1, 5)[:, None, None])
    errors = {}
    for coarse_step in ("midpoint", "implicit"):
        model, _, y = make(coarse_step=coarse_step)
        few = MGRITOptions(levels=3, coarsening=4, relax=(0, 1), max_iterations=2)
        exact = NetworkSolver(model, 64, STEPPING, STEPPING).loss_and_gradient(x, y).gradient
        got = NetworkSolver(model, 64, few, few).loss_and_gradient(x, y).gradient
        errors[coarse_step] = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    assert errors["midpoint"] < 0.1 * errors["implicit"]


def test_solvers_share_the_parameters():
    model, x, _ = make()
    exact = NetworkSolver(model, 24, STEPPING, STEPPING)
    before = exact.predict(x)[0]
    model.parameters += 0.1
    assert not np.allclose(before, exact.predict(x)[0])


def test_nan_parameters_are_told():
    model, x, y = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    solver.loss_and_gradient(x, y)
    model.weights["head.bias"][0] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss is nan .*smaller learning rate"):
        solver.loss_and_gradient(x, y)


def test_wrong_length_is_told():
    model, x, _ = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    with pytest.raises(
        ValueError, match=r"shape \(batch, 24, 3\), batch at least 1, got \(4, 20, 3\)"
    ):
        solver.predict(x[:, :20])


def test_seed_fixes_the_parameters_and_options_are_kept():
    model, _, _ = make()
    again = Network(model.options, 5, seed=1)
    np.testing.assert_array_equal(model.parameters, again.parameters)
    assert not np.array_equal(again.parameters, Network(model.options, 5, seed=2).parameters)
    wide = Network(dataclasses.replace(model.options, hidden=100), 5)
    assert abs(wide.parameters).max() <= 0.1  # 100^(-1/2)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, -1, 2], r"classes must be in 0\.\.4, got -1\.\.2"),
        ([0, 1, 5, 2], r"classes must be in 0\.\.4, got 0\.\.5"),
        ([0, 1], r"classes must be integers of shape \(4,\), got \(2,\)"),
        ([0.0, 1.0, 2.0, 3.0], r"classes must be integers of shape \(4,\), got .* of float64"),
    ],
)
def test_wrong_classes_are_told(y, message):
    model, x, _ = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    with pytest.raises(ValueError, match=message):
        solver.loss_and_gradient(x, np.array(y))


def test_nan_sequences_are_told():
    model, x, y = make()
    x[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="sequences must not hold NaN"):
        NetworkSolver(model, 24, STEPPING, STEPPING).loss_and_gradient(x, y)


def test_a_diverged_backward_solve_is_told():
    model, x, y = make()
    loose = MGRITOptions(levels=2, coarsening=4, max_iterations=3, divergence_factor=1e-30)
    with pytest.raises(FloatingPointError, match="diverged"):
        NetworkSolver(model, 24, STEPPING, loose).loss_and_gradient(x, y)
    with pytest.raises(FloatingPointError, match="diverged"):
        NetworkSolver(model, 24, loose, STEPPING).predict(x)


def test_loaded_weights_predict_alike():
    model, x, _ = make()
    other = Network(model.options, 5, seed=9)
    other.load(model.weights)
    solvers = [NetworkSolver(each, 24, STEPPING, STEPPING) for each in (model, other)]
    np.testing.assert_array_equal(solvers[0].predict(x)[0], solvers[1].predict(x)[0])
    with pytest.raises(ValueError, match="weights must have the shapes"):
        other.load({"head.bias": np.zeros(5)})
