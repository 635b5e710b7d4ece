"""A plain and slow stack of recurrent layers, written from the equations.

The tests hold the fast one of `pint.rnn` against it. Only NumPy expressions that are analytic, so
that complex weights, inputs and states give exact derivatives: df = Im f(x + 1e-30 i v) / 1e-30
(Squire & Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review
40 (1998), 110-112).
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

EPSILON = 1e-30


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_gates(weights, layer, x, h):
    """Return r, z, n of one layer, shape (B, H), for its input x (B, K) and the state h (B, H)."""
    W_ir, W_iz, W_in = np.split(weights[f"weight_ih_l{layer}"], 3)
    W_hr, W_hz, W_hn = np.split(weights[f"weight_hh_l{layer}"], 3)
    b_ir, b_iz, b_in = np.split(weights[f"bias_ih_l{layer}"], 3)
    b_hr, b_hz, b_hn = np.split(weights[f"bias_hh_l{layer}"], 3)
    r = sigmoid(x @ W_ir.T + b_ir + h @ W_hr.T + b_hr)
    z = sigmoid(x @ W_iz.T + b_iz + h @ W_hz.T + b_hz)
    n = np.tanh(x @ W_in.T + b_in + r * (h @ W_hn.T + b_hn))
    return r, z, n


def lstm_gates(weights, layer, x, h):
    """Return i, f, g, o of one layer, shape (B, H)."""
    W_ii, W_if, W_ig, W_io = np.split(weights[f"weight_ih_l{layer}"], 4)
    W_hi, W_hf, W_hg, W_ho = np.split(weights[f"weight_hh_l{layer}"], 4)
    b_ii, b_if, b_ig, b_io = np.split(weights[f"bias_ih_l{layer}"], 4)
    b_hi, b_hf, b_hg, b_ho = np.split(weights[f"bias_hh_l{layer}"], 4)
    i = sigmoid(x @ W_ii.T + b_ii + h @ W_hi.T + b_hi)
    f = sigmoid(x @ W_if.T + b_if + h @ W_hf.T + b_hf)
    g = np.tanh(x @ W_ig.T + b_ig + h @ W_hg.T + b_hg)
    o = sigmoid(x @ W_io.T + b_io + h @ W_ho.T + b_ho)
    return i, f, g, o


def one_step(weights, cell, layer, x, u):
    """One fine step of one layer, from the state u: h, or (h, c) side by side."""
    if cell == "lstm":
        h, c = np.split(u, 2, axis=-1)
        i, f, g, o = lstm_gates(weights, layer, x, h)
        c = f * c + i * g
        return np.concatenate([o * np.tanh(c), c], axis=-1)
    _, z, n = gru_gates(weights, layer, x, u)
    return (u + (1 - z) * n) / (1 + (1 - z)) if cell == "implicit" else z * u + (1 - z) * n


def frozen_steps(weights, cell, layer, x, h, u, m):
    """m steps (also half ones) of one layer from u, with the gates that x and h give."""
    if cell == "lstm":
        i, f, g, o = lstm_gates(weights, layer, x, h)
        q = f**m
        c = q * np.split(u, 2, axis=-1)[1] + (1 - q) / (1 - f) * i * g
        return np.concatenate([o * np.tanh(c), c], axis=-1)
    _, z, n = gru_gates(weights, layer, x, h)
    q = (1 / (1 + (1 - z)) if cell == "implicit" else z) ** m
    return q * u + (1 - q) * n


def longer_step(weights, layer, x, u, gamma):
    """One step of one layer of implicit units, `gamma` times as long."""
    _, z, n = gru_gates(weights, layer, x, u)
    a = gamma * (1 - z)
    return (u + a * n) / (1 + a)


def parts(m, substep):
    """Lengths of the fewest parts of at most `substep` fine steps, as equal as can be."""
    count = 1
    while count * substep < m:
        count += 1
    ends = [part * m // count for part in range(count + 1)]
    return [stop - start for start, stop in pairwise(ends)]


@dataclass
class Sequences:
    """Elements x, shape (B, T, F); `mask`, shape (B, T), is False where there is none."""

    x: np.ndarray
    mask: np.ndarray | None = None

    @property
    def elements(self):
        return np.ones(self.x.shape[:2], bool) if self.mask is None else self.mask

    def count(self, first, last):
        """How many elements the fine steps first..last have, shape (B, 1)."""
        return self.elements[:, first - 1 : last].sum(axis=1, keepdims=True)

    def at(self, i):
        """The last element at or before fine step i; zero where there is none."""
        rows = []
        for x, elements in zip(self.x[:, :i], self.elements[:, :i], strict=True):
            rows.append(x[elements][-1] if elements.any() else np.zeros_like(self.x[0, 0]))
        return np.stack(rows)

    def mean(self, first, last):
        """The mean over the elements of the steps first..last; where there is none, `at(last)`."""
        rows = self.at(last)
        for b in range(len(rows)):
            elements = self.elements[b, first - 1 : last]
            if elements.any():
                rows[b] = self.x[b, first - 1 : last][elements].mean(axis=0)
        return rows


@dataclass
class Reference:
    """A stack of layers; states have shape (layers, B, W).

    `substep` is one number; `weights` are named as in torch.
    """

    weights: dict
    cell: str
    kind: str = "matched"
    substep: int = 1

    @property
    def num_layers(self):
        return sum(name.startswith("weight_hh") for name in self.weights)

    def evaluate(self, advance, x, count):
        """States that advance(layer, x) gives, where there are elements to step over, upwards."""
        new = []
        for layer in range(self.num_layers):
            moved, kept = advance(layer, x)
            new.append(np.where(count == 0, kept, moved))
            x = new[-1][:, : self.weights[f"weight_hh_l{layer}"].shape[1]]
        return np.stack(new)

    def fine_step(self, sequences, u, i):
        def advance(layer, x):
            return one_step(self.weights, self.cell, layer, x, u[layer]), u[layer]

        return self.evaluate(advance, sequences.at(i), sequences.count(i, i))

    def frozen(self, x, seen, u, count, m):
        def advance(layer, x):
            h = seen[layer][:, : self.weights[f"weight_hh_l{layer}"].shape[1]]
            return frozen_steps(self.weights, self.cell, layer, x, h, u[layer], m), u[layer]

        return self.evaluate(advance, x, count)

    def longer(self, x, u, count):
        def advance(layer, x):
            return longer_step(self.weights, layer, x, u[layer], count), u[layer]

        return self.evaluate(advance, x, count)

    def through_the_middle(self, sequences, u, i, m):
        """The m fine steps that end at point i, with the gates of the state in their middle."""
        half, count = i - m // 2, sequences.count(i - m + 1, i)
        x_middle, x_end = sequences.at(half), sequences.at(i)
        if self.kind == "averaged":
            x_middle, x_end = sequences.mean(i - m + 1, half), sequences.mean(half + 1, i)
        middle = self.frozen(x_middle, u, u, count, count / 2)
        return self.frozen(x_end, middle, u, count, count)

    def step(self, sequences, u, i, m):
        """The step that stands for the m fine steps which end at point i."""
        if m == 1:
            return self.fine_step(sequences, u, i)
        x, count = sequences.at(i), sequences.count(i - m + 1, i)
        if self.kind == "implicit":
            return self.longer(x, u, count)
        if self.kind == "matched":
            return self.frozen(x, u, u, count, count)
        end = i - m
        for length in parts(m, self.substep):
            end += length
            if length <= 2:
                for j in range(end - length + 1, end + 1):
                    u = self.fine_step(sequences, u, j)
            else:
                u = self.through_the_middle(sequences, u, end, length)
        return u

    def trajectory(self, sequences, u):
        """All states, shape (T + 1, layers, B, W), by fine steps."""
        states = [u]
        for i in range(1, sequences.x.shape[1] + 1):
            states.append(self.fine_step(sequences, states[-1], i))
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
