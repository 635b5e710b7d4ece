"""Torch modules as cells: against torch's own loop over time, and what is wrong with a module."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import pint
from pint import MGRIT, AdjointSolver, ContractError, MGRITOptions, TimeGrid, check_propagator
from pint.rnn import from_torch
from tests.launcher import ROOT, environment

WITHOUT_TORCH = """
try:
    import pint.rnn
    pint.rnn.from_torch(None)
except ImportError as error:
    print(error)
"""


def run_python(script, **variables):
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pint_never_imports_torch():
    script = "import sys, pint, pint.rnn, pint.rnn.network; print('torch' in sys.modules)"
    assert run_python(script) == "False\n"


def test_without_torch_the_error_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch')\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    said = run_python(WITHOUT_TORCH, PYTHONPATH=paths)
    assert said == (
        "from_torch needs torch, which cannot be imported (there is no torch): "
        'pip install "pint-mgrit[torch]"\n'
    )


@pytest.fixture
def torch():
    module = pytest.importorskip(
        "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
    )
    module.manual_seed(0)
    return module


NUM_STEPS, BATCH, FEATURES, HIDDEN = 12, 2, 3, 4


def sequences(seed=0, num_steps=NUM_STEPS):
    return np.random.default_rng(seed).standard_normal((BATCH, num_steps, FEATURES))


def bound(module, hidden=None):
    cell = from_torch(module, hidden)
    cell.set_inputs(sequences())
    return cell


def solve(cell, u, w, options):
    forward = MGRIT(cell, TimeGrid.uniform(0, NUM_STEPS, NUM_STEPS), options)
    result = forward.solve(u)
    return result, AdjointSolver(forward).solve(result, w)


SERIAL = MGRITOptions(levels=1)
ENOUGH = MGRITOptions(levels=2, coarsening=3, max_iterations=3)  # FCF is exact after N / 2m


@pytest.mark.parametrize("options", [SERIAL, ENOUGH], ids=["stepping", "cycles"])
@pytest.mark.parametrize("kind", ["GRUCell", "RNNCell"])
def test_cells_of_torch(torch, kind, options):
    """They fit unchanged; states and every gradient equal torch's loop."""
    module = getattr(torch.nn, kind)(FEATURES, HIDDEN).double()
    cell = bound(module)
    u, w = torch.randn(2, BATCH, HIDDEN, dtype=torch.float64)
    result, adjoint = solve(cell, u, w, options)
    h = start = u.clone().requires_grad_()
    for t in range(NUM_STEPS):
        h = module(torch.tensor(sequences()[:, t]), h)
        assert torch.allclose(result.u[t + 1], h, rtol=0, atol=1e-13)
    (h * w).sum().backward()
    assert isinstance(result.u, torch.Tensor)
    assert isinstance(adjoint.w, torch.Tensor)
    np.testing.assert_allclose(adjoint.initial_gradient, start.grad, rtol=0, atol=1e-12)
    first = 0
    for name, weight in module.named_parameters():
        got = adjoint.parameter_gradient[first : first + weight.numel()].reshape(weight.shape)
        first += weight.numel()
        scale = float(weight.grad.abs().max())
        assert scale > 1e-3, name
        assert np.abs(got - weight.grad.numpy()).max() < 1e-10 * scale, name
    assert first == adjoint.parameter_gradient.size


def test_numpy_states_give_the_same_numbers(torch):
    cell = bound(torch.nn.GRUCell(FEATURES, HIDDEN).double())
    u, w = np.random.default_rng(1).standard_normal((2, BATCH, HIDDEN))
    plain, plain_adjoint = solve(cell, u, w, ENOUGH)
    tensors, adjoint = solve(cell, torch.tensor(u), torch.tensor(w), ENOUGH)
    mixed, mixed_adjoint = solve(cell, torch.tensor(u), w, ENOUGH)
    assert isinstance(plain.u, np.ndarray)
    assert isinstance(plain_adjoint.w, np.ndarray)
    assert isinstance(mixed_adjoint.w, torch.Tensor)  # as the forward states
    for result, its_adjoint in ((plain, plain_adjoint), (mixed, mixed_adjoint)):
        np.testing.assert_array_equal(result.u, tensors.u)
        np.testing.assert_array_equal(its_adjoint.w, adjoint.w)
        np.testing.assert_array_equal(its_adjoint.parameter_gradient, adjoint.parameter_gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_check_propagator_passes(torch, dtype):
    cell = bound(torch.nn.GRUCell(FEATURES, HIDDEN).to(getattr(torch, dtype)))
    assert cell.dtype == np.dtype(dtype)
    assert cell.parameters.dtype == np.dtype(dtype)
    done = check_propagator(cell, initial_value=torch.zeros(BATCH, HIDDEN, dtype=cell.torch_dtype))
    assert {"linearize on level 2", "adjoint_gradient on level 2"} <= set(done)
    assert done == check_propagator(cell)  # states of NumPy


def test_parameters_are_those_of_the_module(torch):
    module = torch.nn.GRUCell(FEATURES, HIDDEN)
    before = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()
    cell = bound(module)
    np.testing.assert_array_equal(cell.parameters, before)
    cell.parameters[:] = 0.25
    assert all((weight == 0.25).all() for weight in module.parameters())
    other = torch.nn.GRUCell(FEATURES, HIDDEN)
    module.load_state_dict(other.state_dict())
    flat = torch.nn.utils.parameters_to_vector(other.parameters()).detach().numpy()
    np.testing.assert_array_equal(cell.parameters, flat)
    cell.refresh()


def test_parameters_that_moved_are_noticed(torch):
    cell = bound(torch.nn.GRUCell(FEATURES, HIDDEN))
    cell.module.double()
    with pytest.raises(RuntimeError, match=r"replaced or moved; .* call from_torch after"):
        cell.refresh()


def test_frozen_and_unused_parameters(torch):
    """Frozen ones are no parameters; the gradient of unused ones is zero."""

    class Partly(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.RNNCell(FEATURES, HIDDEN)
            self.unused = torch.nn.Parameter(torch.ones(2))
            self.inner.bias_ih.requires_grad_(False)

        def forward(self, x, h):
            return self.inner(x, h)

    cell = bound(Partly(), HIDDEN)
    assert cell.parameters.size == 2 + FEATURES * HIDDEN + HIDDEN * HIDDEN + HIDDEN
    u = torch.randn(1, BATCH, HIDDEN)
    step = TimeGrid.uniform(0, 1, 1).steps(slice(1, 2, 1))
    gradient = cell.adjoint_gradient(torch.ones_like(u), u, step)
    assert cell.parameters[0] == gradient[0] + 1 == gradient[1] + 1 == 1
    assert np.abs(gradient[2:]).min() > 0


def test_module_without_parameters(torch):
    class Decay(torch.nn.Module):
        def forward(self, x, h, dt):
            return h / (1 + dt)

    cell = bound(Decay(), HIDDEN)
    assert cell.parameters is None
    _, adjoint = solve(cell, torch.ones(BATCH, HIDDEN), torch.ones(BATCH, HIDDEN), SERIAL)
    assert adjoint.parameter_gradient.size == 0
    np.testing.assert_allclose(adjoint.initial_gradient, 0.5**NUM_STEPS, rtol=1e-6)


def test_states_of_several_dimensions_and_dt(torch):
    """The shapes that a module sees, and which input and dt belong to which row."""

    class Spy(torch.nn.Module):
        def forward(self, x, h, dt):
            self.seen = x, h, dt
            return h + 0 * dt

    cell = from_torch(Spy(), (2, 5))
    x = np.arange(BATCH * NUM_STEPS * 4).reshape(BATCH, NUM_STEPS, 4)
    cell.set_inputs(x)
    assert cell.state_shape == (BATCH, 2, 5)
    coarse = TimeGrid(np.arange(NUM_STEPS + 1) ** 2).coarsen(4)
    u = torch.randn(3, BATCH, 2, 5)
    assert cell.step(u, coarse.steps(slice(1, 4, 1))).shape == u.shape
    seen, h, dt = cell.module.seen
    np.testing.assert_array_equal(h, u.reshape(6, 2, 5))
    np.testing.assert_array_equal(dt[:, 0, 0], [16, 16, 48, 48, 80, 80])
    assert dt.shape == (6, 1, 1)
    middle = [2, 6, 10]  # of finest steps 1..4, 5..8, 9..12, counted from 1
    np.testing.assert_array_equal(seen, [x[b, i - 1] for i in middle for b in range(BATCH)])


def wrong(torch, result, hidden=HIDDEN):
    """A cell whose module returns `result(h)`."""

    class Wrong(torch.nn.Module):
        def forward(self, x, h):
            return result(h)

    return bound(Wrong(), hidden)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda h: (h, h), "Wrong returned tuple, expected one tensor"),
        (
            lambda h: h[:, :1],
            r"Wrong returned shape \(\d+, 1\) for states of shape \(\d+, 4\), expected the same",
        ),
        (lambda h: h.double(), r"Wrong returned torch.float64 for states of torch.float32"),
    ],
)
def test_wrong_module_is_one_clear_error(torch, result, message):
    cell = wrong(torch, result)
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        pint.solve(cell, np.arange(NUM_STEPS + 1.0), torch.zeros(BATCH, HIDDEN), SERIAL)
    with pytest.raises(ContractError) as caught:
        check_propagator(cell)
    assert len(str(caught.value).splitlines()) == 2  # the heading, and what is wrong
    assert re.search(message, str(caught.value))


def test_lstm_cell_is_refused_when_it_is_tried(torch):
    cell = bound(torch.nn.LSTMCell(FEATURES, HIDDEN))
    with pytest.raises(ContractError, match="step on level 0 raised"):
        check_propagator(cell)


def test_states_of_another_dtype(torch):
    cell = bound(torch.nn.GRUCell(FEATURES, HIDDEN).double())
    message = "states are torch.float32, the module's parameters torch.float64"
    with pytest.raises(TypeError, match=message):
        pint.solve(cell, np.arange(NUM_STEPS + 1.0), torch.zeros(BATCH, HIDDEN), SERIAL)


def test_bad_arguments(torch):
    linear = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got int"):
        from_torch(3)
    with pytest.raises(ValueError, match="Linear has no hidden_size: give from_torch the width"):
        from_torch(linear)
    with pytest.raises(ValueError, match="hidden must be a positive int or a tuple of them, got 0"):
        from_torch(linear, 0)
    with pytest.raises(TypeError, match=r"all float32 or float64, got torch\.float16"):
        from_torch(torch.nn.Linear(2, 2).half(), 2)
    mixed = torch.nn.Sequential(linear, torch.nn.Linear(2, 2).double())
    with pytest.raises(TypeError, match=r"got torch\.float32, torch\.float64"):
        from_torch(mixed, 2)
    with pytest.raises(ValueError, match=r"must be on the CPU, got \['meta'\]"):
        from_torch(torch.nn.Linear(2, 2, device="meta"), 2)


def test_bad_sequences(torch):
    cell = from_torch(torch.nn.GRUCell(FEATURES, HIDDEN))
    grid = TimeGrid.uniform(0, 1, NUM_STEPS + 1)
    step = grid.steps(slice(1, NUM_STEPS + 2, 1))
    u = torch.zeros(NUM_STEPS + 1, BATCH, HIDDEN)
    with pytest.raises(ValueError, match="set_inputs was not called"):
        cell.step(u, step)
    for shape in ((BATCH, NUM_STEPS), (0, NUM_STEPS, FEATURES)):
        with pytest.raises(ValueError, match=r"inputs must have shape \(batch, time, ...features"):
            cell.set_inputs(np.zeros(shape))
    cell.set_inputs(sequences())
    with pytest.raises(ValueError, match="sequences have 12 elements, too few for step 13"):
        cell.step(u, step)
