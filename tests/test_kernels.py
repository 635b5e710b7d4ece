"""The kernels against NumPy: exp, sigmoid, tanh; a gate evaluation, its derivative, its transpose.

The reference below is analytic, so its derivatives come from complex steps, to the last digits.
Chains of steps are in test_kernel_chains.py.
"""

from dataclasses import dataclass, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from pint.rnn.kernels import _power_and_sum, bounded_exp
from pint.simd.vectors import load, single, store
from tests.gate_kernels import (
    CLASSIC,
    IMPLICIT,
    LSTM,
    gates_backward,
    gates_forward,
    gates_linearize,
)
from tests.recurrent_reference import EPSILON, sigmoid

FLOATS = [np.float32, np.float64]
CELLS = [IMPLICIT, CLASSIC, LSTM]
NUM_GATES = {IMPLICIT: 3, CLASSIC: 3, LSTM: 4}
NUM_STATES = {IMPLICIT: 1, CLASSIC: 1, LSTM: 2}
NUM_COEFFICIENTS = {IMPLICIT: 5, CLASSIC: 5, LSTM: 6}
LIMIT = {np.float32: 80, np.float64: 700}
EXP_ERROR = {np.float32: 2e-7, np.float64: 1e-15}
GATE_ERROR = {np.float32: 1e-6, np.float64: 1e-14}
STEPS = [0, 1, 2, 3, 4, 7, 8, 16, 31]
POWERS2 = [1, 2, 3, 4, 5, 7, 8, 14, 16, 31, 32, 62, 64, 255]


@njit(error_model="numpy", fastmath={"contract", "nsz", "arcp", "afn"})
def exp_into(x, out):
    for i in range(x.size):
        out[i] = bounded_exp(x[i])


@njit
def power_and_sum_into(f, power2, out):
    for j in range(f.size):
        numbers = _power_and_sum(load(single(f), f, (j,)), power2)
        for i in range(4):
            store(numbers[i], out, (i, j))


@dataclass
class Problem:
    """Arguments of the gate kernels, in their order, up to their outputs."""

    cell: int
    gi: np.ndarray
    rows: np.ndarray
    gh: np.ndarray
    bias: np.ndarray
    u: np.ndarray
    grows: bool
    factor: int
    steps: np.ndarray

    @property
    def hidden(self):
        return self.bias.size // 4

    @property
    def arguments(self):
        return tuple(getattr(self, field.name) for field in fields(self))

    def doubled(self):
        """The same problem in float64, with one row of gi for each point."""
        gathered = np.stack([self.gi[row] for row in self.rows])
        gi, gh, bias, u = (x.astype(np.float64) for x in (gathered, self.gh, self.bias, self.u))
        rows = np.arange(len(self.rows))
        return Problem(self.cell, gi, rows, gh, bias, u, self.grows, self.factor, self.steps)

    def rounding(self):
        """Twenty units of rounding, times the factor by which q magnifies an error of z or f."""
        return 20 * np.finfo(self.u.dtype).eps * (1 + self.steps.max())


def normal_problem(rng, cell, dtype=np.float64, shape=(3, 2, 4), held=3, scale=1.0, factor=2):
    """Normal numbers of the given scale, and any numbers of steps."""
    n, batch, hidden = shape
    gi = scale * rng.standard_normal((held, batch, NUM_GATES[cell] * hidden))
    gh = scale * rng.standard_normal((n, batch, NUM_GATES[cell] * hidden))
    bias = rng.standard_normal(4 * hidden)
    u = rng.standard_normal((n, batch, NUM_STATES[cell] * hidden))
    gi, gh, bias, u = (array.astype(dtype) for array in (gi, gh, bias, u))
    steps = rng.choice(STEPS, (n, batch))
    return Problem(cell, gi, rng.integers(0, held, n), gh, bias, u, False, factor, steps)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(draw(st.integers(1, greatest)) for greatest in (4, 3, 9))
    cell, dtype = draw(st.sampled_from(CELLS)), draw(st.sampled_from(FLOATS))
    held, scale = draw(st.integers(1, 5)), draw(st.sampled_from([0.1, 1.0, 4.0]))
    problem = normal_problem(rng, cell, dtype, shape, held, scale, draw(st.sampled_from([1, 2])))
    problem.grows = cell == IMPLICIT and draw(st.booleans())
    return problem


def plain(problem, gi, gh, u):
    """The gate evaluation of the module's docstring, for any float or complex type."""
    m = problem.steps[..., None]
    power2 = 2 if problem.grows else problem.factor * m
    if problem.cell == LSTM:
        new = plain_lstm(gi + gh + problem.bias, u, power2)
    else:
        gamma = m if problem.grows else 1
        new = plain_gru(gi, gh, problem.bias, u, problem.cell == CLASSIC, gamma, power2)
    return np.where(m == 0, u, new)


def plain_gru(gi, gh, bias, h, classic, gamma, power2):
    gi_r, gi_z, gi_n = np.split(gi, 3, axis=-1)
    gh_r, gh_z, gh_n = np.split(gh, 3, axis=-1)
    b_r, b_z, b_in, b_hn = np.split(bias, 4)
    r = sigmoid(gi_r + gh_r + b_r)
    z = sigmoid(gi_z + gh_z + b_z)
    n = np.tanh(gi_n + b_in + r * (gh_n + b_hn))
    t = z if classic else 1 / (1 + gamma * (1 - z))
    q = t ** (power2 / 2)
    return q * h + (1 - q) * n


def plain_lstm(a, u, power2):
    """S = (1 - q) / (1 - f) as the sum of s^k, k < power2, over 1 + s, with s = sqrt(f)."""
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=-1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    s = np.sqrt(f)
    total = sum(np.where(k < power2, s**k, 0) for k in range(np.max(power2))) / (1 + s)
    c = s**power2 * u[..., u.shape[-1] // 2 :] + total * i * g
    return np.concatenate([o * np.tanh(c), c], axis=-1)


def expected_states(problem):
    exact = problem.doubled()
    return plain(exact, exact.gi, exact.gh, exact.u)


def derivative(problem, name):
    """Derivative of the new state: h', or for LSTM h' and c', by one of what it depends on.

    Each entry depends on the entries of its own unit alone, so that one imaginary step in all
    units gives all derivatives.
    """
    exact, hidden = problem.doubled(), problem.hidden
    moved = {"gi": exact.gi + 0j, "gh": exact.gh + 0j, "u": exact.u + 0j}
    array, block = {
        "e": ("gh", 2), "r": ("gi", 0), "z": ("gi", 1), "n": ("gi", 2), "h": ("u", 0),
        "i": ("gi", 0), "f": ("gi", 1), "g": ("gi", 2), "o": ("gi", 3), "c": ("u", 1),
    }[name]  # fmt: skip
    moved[array][..., block * hidden : (block + 1) * hidden] += 1j * EPSILON
    return np.imag(plain(exact, **moved)) / EPSILON


def linearized(problem):
    """Outputs of gates_linearize, which must overwrite every entry."""
    out, c = outputs(problem)
    gates_linearize(*problem.arguments, out, np.arange(len(out)), c)
    return out, c


def outputs(problem):
    """Arrays for gates_linearize, full of NaN."""
    n, batch, _ = problem.u.shape
    widths = problem.u.shape[-1], NUM_COEFFICIENTS[problem.cell] * problem.hidden
    return [np.full((n, batch, width), np.nan, problem.u.dtype) for width in widths]


def transposed(problem, v, c, slots=None):
    """Outputs of gates_backward: d_gates and d_u."""
    n, batch, _ = v.shape
    d_gates = np.full((n, batch, 4 * problem.hidden), np.nan, v.dtype)
    d_u = np.full_like(v, np.nan)
    slots = np.arange(n) if slots is None else slots
    gates_backward(problem.cell, v, slots, c, problem.steps, d_gates, d_u)
    return d_gates, d_u


def assert_close(actual, expected, dtype, tolerance):
    assert actual.dtype == dtype
    scale = np.maximum(1, np.abs(expected))
    assert np.max(np.abs(actual - expected) / scale) < tolerance


class TestFunctions:
    @staticmethod
    def arguments(dtype):
        """Zero, both signs, from subnormal numbers to far outside the range."""
        limit = LIMIT[dtype]
        small = np.geomspace(1e-40, 1, 2001)
        wide = np.linspace(0, limit, 200_001)
        far = np.geomspace(limit, 1e30, 101)
        x = np.concatenate([[0.0], small, wide, far]).astype(dtype)
        return np.concatenate([-x[::-1], x])

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_exp(self, dtype):
        x = self.arguments(dtype)
        out = np.full_like(x, np.nan)
        exp_into(x, out)
        exact = np.exp(np.clip(x.astype(np.longdouble), -LIMIT[dtype], LIMIT[dtype]))
        assert np.max(np.abs(out / exact - 1)) < EXP_ERROR[dtype]

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_exp_beyond_its_range(self, dtype):
        limit = LIMIT[dtype]
        x = np.array([np.inf, 1e30, limit, -limit, -1e30, -np.inf], dtype=dtype)
        out = np.empty_like(x)
        exp_into(x, out)
        assert (out[:3] == out[2]).all()
        assert (out[3:] == out[3]).all()
        assert 0 < out[3] < out[2] < np.inf

    @pytest.mark.parametrize(
        ("dtype", "bits"),
        [
            (np.float32, [0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FC001FF, 0xFFFFFFFF]),
            (np.float64, [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF8 << 48) + 1, 0x7FF80000000007A2]),
        ],
    )
    def test_exp_of_any_nan_is_nan(self, dtype, bits):
        x = np.array(bits, dtype=f"u{np.dtype(dtype).itemsize}").view(dtype)
        out = np.zeros_like(x)
        exp_into(x, out)
        assert np.isnan(out).all()

    def test_exp_is_for_compiled_code(self):
        with pytest.raises(NotImplementedError, match="compiled code"):
            bounded_exp(1.0)

    @staticmethod
    def evaluated(dtype, z=0.0, n=0.0):
        """(out, q) of classic units that blend the state 0, pre-activations z and n."""
        z, n = np.broadcast_arrays(np.asarray(z, dtype), np.asarray(n, dtype))
        gi = np.concatenate([np.zeros_like(z), z, n])[None, None]
        h, one = np.zeros((1, 1, z.size), dtype), np.ones((1, 1), np.int64)
        row, bias = np.array([0]), np.zeros(4 * z.size, dtype)
        problem = Problem(CLASSIC, gi, row, np.zeros_like(gi), bias, h, False, 2, one)
        out, c = linearized(problem)
        return out[0, 0], c[0, 0, 4 * z.size :]

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_sigmoid(self, dtype):
        x = self.arguments(dtype)
        _, z = self.evaluated(dtype, z=x)
        exact = 1 / (1 + np.exp(-np.clip(x.astype(np.longdouble), -1e4, 1e4)))
        assert np.max(np.abs(z - exact)) < GATE_ERROR[dtype]
        assert (z > 0).all()  # the derivative divides by it
        assert (z <= 1).all()

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_tanh(self, dtype):
        x = self.arguments(dtype)
        n, _ = self.evaluated(dtype, z=-np.inf, n=x)
        assert np.max(np.abs(n - np.tanh(x.astype(np.longdouble)))) < GATE_ERROR[dtype]
        assert (np.abs(n) <= 1).all()

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_infinite_pre_activations_saturate(self, dtype):
        _, z = self.evaluated(dtype, z=np.array([-np.inf, np.inf]))
        np.testing.assert_allclose(z, [0, 1], rtol=0, atol=1e-30)
        n, _ = self.evaluated(dtype, z=-np.inf, n=np.array([-np.inf, np.inf]))
        np.testing.assert_allclose(n, [-1, 1], rtol=0, atol=1e-30)


class TestPowerAndSum:
    """q = f^(power2 / 2), S = (1 - q) / (1 - f) and their derivatives, against longer sums."""

    @staticmethod
    def forgets(dtype):
        """From almost 0 to almost 1, both as close as sigmoids come."""
        eps = np.finfo(dtype).eps
        small = np.geomspace(np.exp(-float(LIMIT[dtype])), 0.5, 500)
        return np.concatenate([small, 1 - np.geomspace(eps, 0.5, 500)]).astype(dtype)

    @staticmethod
    def computed(f, power2):
        out = np.full((4, f.size), np.nan, f.dtype)
        power_and_sum_into(f, power2, out)
        return out

    @staticmethod
    def exact(f, power2):
        """With s = sqrt(f), term by term: S (1 + s) = 1 + s + ... + s^(power2 - 1)."""
        s = np.sqrt(f.astype(np.longdouble))
        k = np.arange(power2)[:, None]
        total, d_total = (s**k).sum(axis=0), (k[1:] * s ** (k[1:] - 1)).sum(axis=0)
        d_sum = (d_total * (1 + s) - total) / (1 + s) ** 2
        return s**power2, total / (1 + s), power2 * s ** (power2 - 1) / (2 * s), d_sum / (2 * s)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("power2", POWERS2)
    def test_value_and_derivative(self, dtype, power2):
        f, eps = self.forgets(dtype), np.finfo(dtype).eps
        q, total, dq_df, ds_df = self.computed(f, power2)
        exact_q, exact_total, exact_dq, exact_ds = self.exact(f, power2)
        normal = exact_q * exact_dq > np.finfo(dtype).tiny  # elsewhere, exponents run out
        assert normal.sum() > 100
        for got, exact in ((q, exact_q), (dq_df, exact_dq)):
            assert (np.abs(got - exact) <= 4 * power2 * eps * exact)[normal].all()
        # errors as rounding f makes them; the unit takes f (1 - f) dS/df, next to S
        condition = 1 + 2 * f * np.abs(exact_ds) / exact_total
        size = exact_total + f * np.abs(exact_ds)
        assert (np.abs(total - exact_total) < 4 * eps * condition * exact_total).all()
        assert (f * np.abs(ds_df - exact_ds) < 4 * eps * condition * size).all()
        assert np.isfinite((q, total, dq_df, ds_df)).all()

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_one_step_is_exact(self, dtype):
        f = self.forgets(dtype)
        q, total, dq_df, ds_df = self.computed(f, 2)
        np.testing.assert_array_equal(q, f)
        np.testing.assert_array_equal((total, dq_df), 1)
        np.testing.assert_array_equal(ds_df, 0)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("power2", POWERS2)
    def test_limit_where_nothing_is_forgotten(self, dtype, power2):
        """At f = 1: q = 1, S = m, dq/df = m, dS/df = m (m - 1) / 2, with m steps."""
        m = power2 / 2
        got = self.computed(np.ones(1, dtype), power2)[:, 0]
        np.testing.assert_allclose(got, [1, m, m, m * (m - 1) / 2], rtol=8 * np.finfo(dtype).eps)


class TestGates:
    @settings(max_examples=300, deadline=None)
    @given(problem=problems())
    def test_forward(self, problem):
        out = np.full_like(problem.u, np.nan)
        gates_forward(*problem.arguments, out)
        assert_close(out, expected_states(problem), out.dtype, problem.rounding())

    @settings(max_examples=300, deadline=None)
    @given(problem=problems())
    def test_linearize(self, problem):
        out, c = linearized(problem)
        dtype, tolerance = out.dtype, problem.rounding()
        assert_close(out, expected_states(problem), dtype, tolerance)
        blocks = np.split(c, NUM_COEFFICIENTS[problem.cell], axis=-1)
        if problem.cell != LSTM:
            for name, block in zip("erznh", blocks, strict=True):
                assert_close(block, derivative(problem, name), dtype, tolerance)
            return
        c_i, c_f, c_g, c_o, k, q = blocks
        for name, block in (("i", c_i), ("f", c_f), ("g", c_g), ("c", q)):
            dh, dc = np.split(derivative(problem, name), 2, axis=-1)
            assert_close(block, dc, dtype, tolerance)
            assert_close(k * block, dh, dtype, tolerance)
        dh, dc = np.split(derivative(problem, "o"), 2, axis=-1)
        assert_close(c_o, dh, dtype, tolerance)
        assert (dc == 0).all()

    @settings(max_examples=300, deadline=None)
    @given(problem=problems(), seed=st.integers(0, 2**32 - 1))
    def test_backward(self, problem, seed):
        """Adjoints of every pre-activation and of the state, of the new state's adjoint v."""
        v = np.random.default_rng(seed).standard_normal(problem.u.shape).astype(problem.u.dtype)
        d_gates, d_u = transposed(problem, v, linearized(problem)[1])
        num_states = NUM_STATES[problem.cell]
        gates, states = ("ifgo", "hc") if problem.cell == LSTM else ("erzn", "h")
        computed = np.concatenate([d_gates, d_u], axis=-1)
        for name, block in zip(gates + states, np.split(computed, 4 + num_states, -1), strict=True):
            by_state = np.split(v * derivative(problem, name), num_states, axis=-1)
            assert_close(block, sum(by_state), v.dtype, 10 * problem.rounding())

    @pytest.mark.parametrize("cell", CELLS)
    def test_slots_choose_rows_of_the_coefficients(self, cell):
        problem = normal_problem(np.random.default_rng(2), cell, shape=(2, 3, 4))
        out, c = linearized(problem)
        slots, held = np.array([4, 1]), np.full((5, *c.shape[1:]), np.nan)
        gates_linearize(*problem.arguments, np.empty_like(out), slots, held)
        np.testing.assert_array_equal(held[[4, 1]], c)
        assert np.isnan(held[[0, 2, 3]]).all()
        got, expected = transposed(problem, out, held, slots), transposed(problem, out, c)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("grows", [False, True])
    def test_no_step_keeps_the_state_whatever_the_gates_are(self, dtype, cell, grows):
        problem = normal_problem(np.random.default_rng(3), cell, dtype)
        problem.grows, problem.steps[...] = grows, 0
        problem.gi[...] = problem.gh[...] = np.nan
        out, v = np.full_like(problem.u, np.nan), problem.u[::-1].copy()
        gates_forward(*problem.arguments, out)
        np.testing.assert_array_equal(out, problem.u)
        out, c = linearized(problem)
        np.testing.assert_array_equal(out, problem.u)
        d_gates, d_u = transposed(problem, v, c)
        np.testing.assert_array_equal(d_gates, 0)
        np.testing.assert_array_equal(d_u, v)

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("factor", [1, 2])
    @pytest.mark.parametrize("steps", [1, 2, 3, 16])
    @pytest.mark.parametrize("cell", CELLS)
    def test_saturated_gates_have_a_finite_derivative(self, dtype, factor, steps, cell):
        a = [-np.inf, np.inf, -1e4, 1e4] * NUM_GATES[cell]
        gi = np.array(a, dtype)[None, None]
        problem = Problem(
            cell, gi, np.array([0]), np.zeros_like(gi), np.ones(16, dtype),
            np.full((1, 1, 4 * NUM_STATES[cell]), 0.5, dtype), False, factor, np.array([[steps]]),
        )  # fmt: skip
        out, c = linearized(problem)
        assert np.isfinite(out).all()
        assert np.isfinite(c).all()

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("cell", CELLS)
    def test_nan_goes_into_its_unit_and_no_other(self, dtype, cell):
        hidden, gates = 3, NUM_GATES[cell]
        places = [("gi", j) for j in range(gates * hidden)]
        places += [("gh", j) for j in range(gates * hidden)]
        places += [("bias", j) for j in range(4 * hidden)]
        places += [("u", (NUM_STATES[cell] - 1) * hidden + j) for j in range(hidden)]
        for array, place in places:
            problem = normal_problem(np.random.default_rng(4), cell, dtype, (1, 1, hidden), 1)
            problem.steps[...] = 3
            getattr(problem, array)[..., place] = np.nan
            out = np.empty_like(problem.u)
            gates_forward(*problem.arguments, out)
            for new in (out, linearized(problem)[0]):
                h = new[0, 0, :hidden]
                np.testing.assert_array_equal(np.isnan(h), np.arange(3) == place % 3)

    @pytest.mark.parametrize("cell", CELLS)
    def test_arguments_stay_unchanged(self, cell):
        problem = normal_problem(np.random.default_rng(5), cell)
        before = normal_problem(np.random.default_rng(5), cell)
        gates_forward(*problem.arguments, np.empty_like(problem.u))
        out, c = linearized(problem)
        kept = out.copy(), c.copy()
        transposed(problem, out, c)
        for array, old in zip(
            (*problem.arguments, out, c), (*before.arguments, *kept), strict=True
        ):
            np.testing.assert_array_equal(array, old)
