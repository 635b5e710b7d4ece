"""A recurrent network as plain torch code, differentiated by autograd.

Layers of the classic unit and of the LSTM are torch's own; the implicit unit, which torch lacks, is
written from its equations (docs/gru.md): h' = (h + a n) / (1 + a), a = 1 - z. A sequence with
missing elements is the shorter one that is left of it.
"""

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")

F64 = torch.float64


@dataclass
class Expected:
    """Everything that a batch gives, as NumPy arrays; `gradient` by the tensors' names."""

    scores: np.ndarray
    loss: float
    gradient: dict
    d_x: np.ndarray
    d_start: np.ndarray


def evaluate(architecture, weights, x, y, *, loss, mask=None, start=None):
    """Scores, loss and all gradients; `loss` is a function of scores and targets of elements."""
    named = {name: tensor(value) for name, value in weights.items()}
    x = tensor(x)
    learned = named.get("initial_state", torch.zeros(states_shape(architecture), dtype=F64))
    begin = learned if start is None else tensor(start)
    full = begin[:, None].expand(-1, len(x), -1) if start is None else begin
    full.retain_grad() if full.requires_grad else full.requires_grad_()
    elements = np.ones(x.shape[:2], bool) if mask is None else mask
    scores = pooled(architecture, named, x, full, elements)
    scores = scores @ named["head.weight"].T + named["head.bias"]
    y = torch.tensor(y)
    if architecture.pooling == "every":
        value = loss(scores[torch.tensor(elements)], y[torch.tensor(elements)])
    else:
        value = loss(scores, y)
    value.backward()
    gradient = {
        name: np.zeros(value.shape) if value.grad is None else value.grad.numpy()
        for name, value in named.items()
    }
    return Expected(
        scores.detach().numpy(), value.item(), gradient, x.grad.numpy(), full.grad.numpy()
    )


def tensor(array):
    return torch.tensor(np.asarray(array, np.float64), requires_grad=True)


def states_shape(a):
    directions = 2 if a.bidirectional else 1
    return a.layers * directions, a.hidden * (2 if a.cell == "lstm" else 1)


def pooled(a, named, x, start, elements):
    """What the head takes: one sequence after another, without its missing elements."""
    rows = []
    for b, here in enumerate(elements):
        outputs, finals = layers(a, named, x[b, torch.tensor(here)], start[:, b])
        if a.pooling == "last":
            rows.append(torch.cat(list(finals[-2:] if a.bidirectional else finals[-1:])))
        elif a.pooling == "mean":
            rows.append(outputs.mean(0))
        else:
            at_all_times = torch.zeros(len(here), outputs.shape[1], dtype=F64)
            at_all_times[torch.tensor(here)] = outputs
            rows.append(at_all_times)
    return torch.stack(rows)


def layers(a, named, x, start):
    """Outputs (T, D H) of the top layer and last h of all layers and directions, one sequence."""
    if a.cell == "implicit":
        return implicit_layers(a, named, x, start)
    kind = {"classic": torch.nn.GRU, "lstm": torch.nn.LSTM}[a.cell]
    module = kind(a.num_features, a.hidden, a.layers, bidirectional=a.bidirectional, dtype=F64)
    own = {name: value for name, value in named.items() if name.startswith(("weight_", "bias_"))}
    if a.cell == "classic":
        return torch.func.functional_call(module, own, (x, start))
    h, c = start.split(a.hidden, dim=1)
    outputs, (finals, _) = torch.func.functional_call(
        module, own, (x, (h.contiguous(), c.contiguous()))
    )
    return outputs, finals


def implicit_layers(a, named, x, start):
    finals, endings = [], ("", "_reverse") if a.bidirectional else ("",)
    for layer in range(a.layers):
        outputs = []
        for ending in endings:
            kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            own = [named[f"{kind}_l{layer}{ending}"] for kind in kinds]
            h, states = start[len(finals)], []
            for element in x.flip(0) if ending else x:
                h = implicit_step(*own, element, h)
                states.append(h)
            finals.append(h)
            outputs.append(torch.stack(states[::-1] if ending else states))
        x = torch.cat(outputs, dim=1)
    return x, torch.stack(finals)


def implicit_step(W_ih, W_hh, b_ih, b_hh, x, h):
    of_x, of_h = (W_ih @ x + b_ih).chunk(3), (W_hh @ h + b_hh).chunk(3)
    r = torch.sigmoid(of_x[0] + of_h[0])
    a = 1 - torch.sigmoid(of_x[1] + of_h[1])
    n = torch.tanh(of_x[2] + r * of_h[2])
    return (h + a * n) / (1 + a)
