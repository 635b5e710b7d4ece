"""Chains of steps in compiled loops against the same gate evaluations taken one by one."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pint.rnn.kernels import gru_backward, gru_forward, lstm_backward, lstm_forward
from pint.simd.products import multiply_at
from tests.gate_kernels import CLASSIC, LSTM, gates_backward, gates_linearize, is_narrow
from tests.test_kernels import (
    CELLS,
    FLOATS,
    NUM_COEFFICIENTS,
    NUM_GATES,
    NUM_STATES,
    STEPS,
    assert_close,
)

TABLES = [[False], [True, False], [False, False], [True, False, False, True, False]]
"""Which evaluations of a step are middles."""


@dataclass
class Chain:
    """n steps of P evaluations each, of one layer, for B sequences."""

    cell: int
    middles: list
    gi: np.ndarray
    rows: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    u: np.ndarray
    g: np.ndarray
    grows: bool
    steps: np.ndarray
    slots: np.ndarray
    num_slots: int

    @property
    def factors(self):
        return np.array([1 if is_middle else 2 for is_middle in self.middles])

    @property
    def hidden(self):
        return self.weight.shape[0]

    def states(self, n=None):
        return np.full((len(self.steps) if n is None else n, *self.u.shape), np.nan, self.u.dtype)

    def all_layers(self):
        """Room for the states of three layers, the second of which is the chain's own."""
        return np.full((len(self.steps), 3, *self.u.shape), np.nan, self.u.dtype)

    @staticmethod
    def own_layer(out):
        """The chain's own states, after a look at the other states."""
        assert np.isnan(out[:, [0, 2]]).all()
        return out[:, 1]

    def parts(self):
        """The first sequence by itself, as another thread would have it, and then the others."""
        return [(0, 1), (1, len(self.u))]

    @property
    def kind(self):
        """The first arguments of the kernels but for the classic unit's."""
        return is_narrow(self.hidden, self.u.dtype)

    @property
    def multiply_at(self):
        return multiply_at(self.u.dtype)

    def forward(self, *, recording):
        """The outputs of layer_forward: states, all h, coefficients."""
        out, held = self.all_layers(), self.num_slots if recording else 0
        news = np.full((*self.steps.shape, self.hidden), np.nan, self.u.dtype)
        width = NUM_COEFFICIENTS[self.cell] * self.hidden
        coefficients = np.full((held, len(self.u), width), np.nan, self.u.dtype)
        kernel = lstm_forward if self.cell == LSTM else gru_forward
        for first, last in self.parts():
            kernel(
                self.kind, self.cell == CLASSIC, True, self.multiply_at, self.gi, self.rows,
                self.weight, self.bias, self.u, self.g, self.grows, self.factors,
                np.array(self.middles), self.steps, out, 1, news, self.slots, coefficients, first,
                last,
            )  # fmt: skip
        return self.own_layer(out), news, coefficients

    def backward(self, w, g, d_above, coefficients):
        """The outputs of layer_backward: adjoint states, and adjoints of the pre-activations."""
        n, num_evaluations, batch = self.steps.shape
        out, shape = self.all_layers(), (num_evaluations, n, batch, 4 * self.hidden)
        # in the order of time, opposite to the order of the steps
        in_time = d_above[::-1].swapaxes(0, 1).reshape(-1, n * batch, self.hidden)
        in_time = in_time[: num_evaluations if len(d_above) else 0].copy()
        d_gates = np.full(shape, np.nan, self.u.dtype)
        kernel = lstm_backward if self.cell == LSTM else gru_backward
        for first, last in self.parts():
            kernel(
                self.kind, True, self.multiply_at, w, g, in_time, self.weight.T.copy(),
                np.array(self.middles), self.steps, self.slots, coefficients, out, 1,
                d_gates.reshape(num_evaluations, n * batch, -1), first, last,
            )  # fmt: skip
        return self.own_layer(out), d_gates.swapaxes(0, 1)[::-1]

    def places(self):
        """For each evaluation of a step: whose result it blends and whose its gates see.

        Result 0 is the step's start, result p + 1 the result of evaluation p.
        """
        blended = 0
        for p, is_middle in enumerate(self.middles):
            yield p, blended, p
            blended = blended if is_middle else p + 1


def make_chain(rng, cell, dtype, sizes, middles, *, with_g, grows=False):
    """Normal numbers; rows of inputs and coefficients in any order; some steps keep the state."""
    n, batch, hidden = sizes
    shape = (n, len(middles))
    count = n * len(middles)
    width = NUM_STATES[cell] * hidden
    gi = rng.standard_normal((count + 2, batch, NUM_GATES[cell] * hidden))
    weight = rng.standard_normal((hidden, NUM_GATES[cell] * hidden)) / np.sqrt(hidden)
    bias = rng.standard_normal(4 * hidden)
    u = rng.standard_normal((batch, width))
    g = rng.standard_normal((n if with_g else 0, batch, width))
    gi, weight, bias, u, g = (array.astype(dtype) for array in (gi, weight, bias, u, g))
    rows = rng.integers(0, count + 2, shape)
    steps = rng.choice(STEPS, (*shape, batch))
    slots = rng.permutation(count + 3)[:count].reshape(shape)
    return Chain(cell, middles, gi, rows, weight, bias, u, g, grows, steps, slots, count + 3)


def one_by_one(chain):
    """What `Chain.forward` must give."""
    batch, hidden, u = len(chain.u), chain.hidden, chain.u
    out, news = chain.states(), np.empty((*chain.steps.shape, hidden), u.dtype)
    width = NUM_COEFFICIENTS[chain.cell] * hidden
    coefficients = np.full((chain.num_slots, batch, width), np.nan, u.dtype)
    for i in range(len(chain.steps)):
        results = [u]
        for p, blended, seen in chain.places():
            gh, new = results[seen][:, :hidden] @ chain.weight, chain.states(1)
            gates_linearize(
                chain.cell, chain.gi, chain.rows[i, p : p + 1], gh[None], chain.bias,
                results[blended][None], chain.grows, chain.factors[p], chain.steps[i, p : p + 1],
                new, chain.slots[i, p : p + 1], coefficients,
            )  # fmt: skip
            results.append(new[0])
            news[i, p] = new[0, :, :hidden]
        out[i] = u = results[-1] + (chain.g[i] if len(chain.g) else 0)
    return out, news, coefficients


def one_by_one_backward(chain, w, g, d_above, coefficients):
    """What `Chain.backward` must give: every result hands its adjoint to what it came from."""
    hidden, num_gates = chain.hidden, chain.weight.shape[1]
    out, d_gates = chain.states(), np.empty((*chain.steps.shape, 4 * hidden), w.dtype)
    for i in range(len(chain.steps)):
        adjoints = [np.zeros_like(w) for _ in chain.middles] + [w.copy()]
        for p, blended, seen in reversed(list(chain.places())):
            v, d_u = adjoints[p + 1], chain.states(1)
            if len(d_above):
                v[:, :hidden] += d_above[i, p]
            gates_backward(
                chain.cell, v[None], chain.slots[i, p : p + 1], coefficients,
                chain.steps[i, p : p + 1], d_gates[i, p][None], d_u,
            )  # fmt: skip
            adjoints[blended] += d_u[0]
            adjoints[seen][:, :hidden] += d_gates[i, p][:, :num_gates] @ chain.weight.T
        out[i] = w = adjoints[0] + (g[i] if len(g) else 0)
    return out, d_gates


def tolerance(chain):
    """A hundred units of rounding, times the steps that magnify the error of a gate."""
    return 100 * np.finfo(chain.u.dtype).eps * (1 + chain.steps.max())


@st.composite
def chains(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell, dtype = draw(st.sampled_from(CELLS)), draw(st.sampled_from(FLOATS))
    sizes = tuple(draw(st.integers(1, greatest)) for greatest in (4, 5, 9))
    middles, with_g = draw(st.sampled_from(TABLES)), draw(st.booleans())
    return make_chain(rng, cell, dtype, sizes, middles, with_g=with_g)


class TestForward:
    @settings(max_examples=200, deadline=None)
    @given(chain=chains(), recording=st.booleans())
    def test_equals_single_evaluations(self, chain, recording):
        out, news, coefficients = one_by_one(chain)
        got = chain.forward(recording=recording)
        assert_close(got[0], out, out.dtype, tolerance(chain))
        assert_close(got[1], news, out.dtype, tolerance(chain))
        if recording:
            unused = np.setdiff1d(np.arange(chain.num_slots), chain.slots)
            assert np.isnan(got[2][unused]).all()
            used = chain.slots.ravel()
            assert_close(got[2][used], coefficients[used], out.dtype, tolerance(chain))

    @pytest.mark.parametrize("recording", [False, True])
    def test_longer_steps_of_the_implicit_unit(self, recording):
        rng = np.random.default_rng(5)
        chain = make_chain(rng, 0, np.float64, (3, 2, 5), [False], with_g=True, grows=True)
        got = chain.forward(recording=recording)
        assert_close(got[0], one_by_one(chain)[0], np.float64, tolerance(chain))


class TestBackward:
    @settings(max_examples=200, deadline=None)
    @given(chain=chains(), with_g=st.booleans(), above=st.booleans(), seed=st.integers(0, 2**32))
    def test_equals_single_evaluations(self, chain, with_g, above, seed):
        n, num_phases, batch = chain.steps.shape
        rng, dtype = np.random.default_rng(seed), chain.u.dtype
        w, g = rng.standard_normal(chain.u.shape), rng.standard_normal(chain.states().shape)
        d_above = rng.standard_normal((n, num_phases, batch, chain.hidden))
        w, g, d_above = (
            array.astype(dtype) for array in (w, g[: n * with_g], d_above[: n * above])
        )
        coefficients = one_by_one(chain)[2]
        out, d_gates = one_by_one_backward(chain, w, g, d_above, coefficients)
        got = chain.backward(w, g, d_above, coefficients)
        scale = max(np.abs(out).max(), 1)  # adjoints grow along a chain
        assert_close(got[0] / scale, out / scale, dtype, tolerance(chain))
        assert_close(got[1] / scale, d_gates / scale, dtype, tolerance(chain))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("batch", "hidden"), [*product([1, 2, 3, 5], [1, 4, 6, 7]), (14, 21), (11, 40)]
)
def test_few_and_many_sequences(cell, batch, hidden):
    """Products with few rows or columns take another way than those with many; so do widths 4 k."""
    rng = np.random.default_rng(6)
    chain = make_chain(rng, cell, np.float64, (3, batch, hidden), [True, False], with_g=True)
    out, news, coefficients = one_by_one(chain)
    got = chain.forward(recording=True)
    assert_close(got[0], out, np.float64, tolerance(chain))
    assert_close(got[1], news, np.float64, tolerance(chain))
    none = np.empty((0, *chain.steps.shape[1:], hidden))
    expected = one_by_one_backward(chain, chain.u, chain.g, none, coefficients)
    got = chain.backward(chain.u, chain.g, none, coefficients)
    for one, other in zip(got, expected, strict=True):
        scale = np.abs(other).max()
        assert_close(one / scale, other / scale, np.float64, tolerance(chain))


@pytest.mark.parametrize("cell", CELLS)
def test_arguments_stay_unchanged(cell):
    def make():
        rng = np.random.default_rng(7)
        return make_chain(rng, cell, np.float64, (3, 2, 4), [True, False], with_g=True)

    chain, before = make(), make()
    coefficients = chain.forward(recording=True)[2]
    kept, d_above = coefficients.copy(), np.ones((3, 2, 2, 4))
    chain.backward(chain.u, chain.g, d_above, coefficients)
    np.testing.assert_array_equal(coefficients, kept)
    np.testing.assert_array_equal(d_above, 1)
    for name in ("gi", "rows", "weight", "bias", "u", "g", "steps", "slots"):
        np.testing.assert_array_equal(getattr(chain, name), getattr(before, name))
