"""A plain and slow stack of gated recurrent units, written from the equations.

The tests hold the fast one of `pint.rnn` against it. Only NumPy expressions that are analytic, so
that complex weights and states give exact derivatives: df = Im f(x + 1e-30 i v) / 1e-30
(Squire & Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review
40 (1998), 110-112).
"""

from itertools import pairwise

import numpy as np

EPSILON = 1e-30


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gates(weights, layer, x, h):
    """Return r, z, n of one layer, shape (B, H), for its input x (B, K) and the state h (B, H)."""
    W_ir, W_iz, W_in = np.split(weights[f"weight_ih_l{layer}"], 3)
    W_hr, W_hz, W_hn = np.split(weights[f"weight_hh_l{layer}"], 3)
    b_ir, b_iz, b_in = np.split(weights[f"bias_ih_l{layer}"], 3)
    b_hr, b_hz, b_hn = np.split(weights[f"bias_hh_l{layer}"], 3)
    r = sigmoid(x @ W_ir.T + b_ir + h @ W_hr.T + b_hr)
    z = sigmoid(x @ W_iz.T + b_iz + h @ W_hz.T + b_hz)
    n = np.tanh(x @ W_in.T + b_in + r * (h @ W_hn.T + b_hn))
    return r, z, n


def num_layers(weights):
    return sum(name.startswith("weight_hh") for name in weights)


def fine_step(weights, cell, x, u):
    """One step of all layers: u of shape (layers, B, H), x of shape (B, num_features)."""
    return implicit_step(weights, x, u, 1) if cell == "implicit" else classic_step(weights, x, u)


def classic_step(weights, x, u):
    new = []
    for layer in range(num_layers(weights)):
        _, z, n = gates(weights, layer, x, u[layer])
        new.append(z * u[layer] + (1 - z) * n)
        x = new[-1]
    return np.stack(new)


def implicit_step(weights, x, u, gamma):
    new = []
    for layer in range(num_layers(weights)):
        _, z, n = gates(weights, layer, x, u[layer])
        a = gamma * (1 - z)
        new.append((u[layer] + a * n) / (1 + a))
        x = new[-1]
    return np.stack(new)


def frozen_steps(weights, cell, x, gates_from, u, count):
    """`count` steps (also half ones) with the gates that x and `gates_from` give."""
    new = []
    for layer in range(num_layers(weights)):
        _, z, n = gates(weights, layer, x, gates_from[layer])
        keeps = z if cell == "classic" else 1 / (1 + (1 - z))
        q = keeps**count
        new.append(q * u[layer] + (1 - q) * n)
        x = new[-1]
    return np.stack(new)


def midpoint_step(weights, cell, sequence, u, i, m):
    """The m fine steps that end at point i, through the state in their middle."""
    x_middle, x_end = sequence[:, i - m // 2 - 1], sequence[:, i - 1]
    middle = frozen_steps(weights, cell, x_middle, u, u, m / 2)
    return frozen_steps(weights, cell, x_end, middle, u, m)


def parts(m, substep):
    """Lengths of the fewest parts of at most `substep` fine steps, as equal as can be."""
    count = 1
    while count * substep < m:
        count += 1
    ends = [part * m // count for part in range(count + 1)]
    return [stop - start for start, stop in pairwise(ends)]


def coarse_step(weights, cell, kind, substep, sequence, u, i, m):
    """The step that stands for the m fine steps which end at point i; sequence is (B, T, F)."""
    x = sequence[:, i - 1]
    if m == 1:
        return fine_step(weights, cell, x, u)
    if kind == "implicit":
        return implicit_step(weights, x, u, m)
    if kind == "matched":
        return frozen_steps(weights, cell, x, u, u, m)
    i -= m
    for length in parts(m, substep):
        i += length
        if length <= 2:
            for j in range(i - length, i):
                u = fine_step(weights, cell, sequence[:, j], u)
        else:
            u = midpoint_step(weights, cell, sequence, u, i, length)
    return u


def trajectory(weights, cell, sequence, u):
    """All states, shape (T + 1, layers, B, H), by fine steps."""
    states = [u]
    for i in range(1, sequence.shape[1] + 1):
        states.append(fine_step(weights, cell, sequence[:, i - 1], states[-1]))
    return np.stack(states)


def derivative(function, x, v):
    """Return the derivative of an analytic function at the array x in the direction v."""
    return np.imag(function(x + 1j * EPSILON * v)) / EPSILON


def gradients(function, tensors):
    """Return the gradient of a number, function(tensors), entry by entry, under the same names."""
    gradient = {}
    for name, tensor in tensors.items():
        gradient[name] = np.empty_like(tensor)
        for entry in np.ndindex(tensor.shape):
            moved = tensor.astype(complex)
            moved[entry] += 1j * EPSILON
            gradient[name][entry] = np.imag(function({**tensors, name: moved})) / EPSILON
    return gradient
