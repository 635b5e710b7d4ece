"""Recurrent layers against torch: outputs, and every gradient tensor by name."""

import numpy as np
import pytest

from tests.recurrent_models import (
    BATCH,
    FEATURES,
    HIDDEN,
    LAYERS,
    assert_same_gradients,
    backpropagate,
    make,
    mask_of,
    normal,
    states,
)

torch = pytest.importorskip(
    "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
)
MODULES = {"classic": torch.nn.GRU, "lstm": torch.nn.LSTM}
T = 9


def module_like(model):
    """torch's own layers, with random parameters that `model` takes over as they are."""
    torch.manual_seed(3)
    dtype = torch.float64 if model.dtype == np.float64 else torch.float32
    make_module = MODULES[model.options.cell]
    module = make_module(FEATURES, HIDDEN, model.options.layers, batch_first=True, dtype=dtype)
    for name, tensor in module.state_dict().items():
        model.weights[name][...] = tensor.numpy()
    return module


def implicit_gru(weights, x, u):
    """The implicit unit in torch's operations: all states of the top layer, and the last ones."""
    h, top = list(u), []
    for t in range(x.shape[1]):
        below = x[:, t]
        for layer in range(len(h)):
            gi = below @ weights[f"weight_ih_l{layer}"].T + weights[f"bias_ih_l{layer}"]
            gh = h[layer] @ weights[f"weight_hh_l{layer}"].T + weights[f"bias_hh_l{layer}"]
            (i_r, i_z, i_n), (h_r, h_z, h_n) = gi.chunk(3, dim=1), gh.chunk(3, dim=1)
            a = 1 - torch.sigmoid(i_z + h_z)
            n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
            h[layer] = below = (h[layer] + a * n) / (1 + a)
        top.append(below)
    return torch.stack(top, dim=1), torch.stack(h)


def run(module, x, u, mask):
    """torch's outputs and last states (layers, B, W); sequences that end early are packed."""
    state = tuple(part.contiguous() for part in u.chunk(2, dim=-1))
    state = state if isinstance(module, torch.nn.LSTM) else u
    if mask is not None:
        lengths = torch.tensor(mask.sum(axis=1))
        x = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
    outputs, last = module(x, state)
    if mask is not None:
        outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(
            outputs, batch_first=True, total_length=mask.shape[1]
        )
    return outputs, last if isinstance(last, torch.Tensor) else torch.cat(last, dim=-1)


def solution(model, x, u, w, mask=None):
    """torch's outputs, last states and gradients of <w, u_N>, for weights that `model` has too."""
    x, u = torch.tensor(x, requires_grad=True), torch.tensor(u, requires_grad=True)
    if model.options.cell == "implicit":
        weights = {k: torch.tensor(v, requires_grad=True) for k, v in model.weights.items()}
        outputs, last = implicit_gru(weights, x, u)
    else:
        module = module_like(model)
        weights = dict(module.named_parameters())
        outputs, last = run(module, x, u, mask)
    (last * torch.tensor(w)).sum().backward()
    leaves = {**weights, "initial_state": u, "inputs": x}
    gradients = {name: tensor.grad.numpy() for name, tensor in leaves.items()}
    return outputs.detach().numpy(), last.detach().numpy(), gradients


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize(
    ("cell", "masked"),
    [("classic", "whole"), ("classic", "padded"), ("lstm", "whole"), ("lstm", "padded"),
     ("implicit", "whole")],
)  # fmt: skip
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-5)])
def test_outputs_and_every_gradient(cell, layers, masked, dtype, tolerance):
    model, mask = make(layers, cell, dtype), mask_of(masked, T)
    x, u, w = normal(BATCH, T, FEATURES, dtype=dtype), *states(model, 2)
    outputs, last, expected = solution(model, x, u, w, mask)
    for recording in (False, True):
        result, adjoint, gradients = backpropagate(model, x, u, w, mask=mask, recording=recording)
        computed = result.u[1:, -1, :, :HIDDEN].swapaxes(0, 1)
        if mask is not None:
            computed = np.where(mask[:, :, None], computed, 0)  # as torch pads
        assert adjoint.parameter_gradient.dtype == dtype
        np.testing.assert_allclose(computed, outputs, rtol=0, atol=tolerance)
        np.testing.assert_allclose(result.final_state(), last, rtol=0, atol=tolerance)
        assert_same_gradients(gradients, expected, tolerance)


@pytest.mark.parametrize("cell", MODULES)
def test_the_flat_vector_is_that_of_torch(cell):
    model = make(layers=2, cell=cell)
    module = module_like(model)
    flat = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    np.testing.assert_array_equal(model.parameters, flat)
