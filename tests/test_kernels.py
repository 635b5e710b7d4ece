"""The kernels against NumPy: exp, sigmoid, tanh; a gate evaluation, its derivative, its transpose.

The reference below is analytic, so its derivatives come from complex steps, to the last digits.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from pint.rnn.kernels import bounded_exp, gates_backward, gates_forward, gates_linearize
from tests.gru_reference import EPSILON, sigmoid

FLOATS = [np.float32, np.float64]
LIMIT = {np.float32: 80, np.float64: 700}
EXP_ERROR = {np.float32: 2e-7, np.float64: 1e-15}
GATE_ERROR = {np.float32: 1e-6, np.float64: 1e-14}
POWERS2 = [1, 2, 3, 4, 7, 8, 16, 31, 32]


@njit(error_model="numpy", fastmath={"contract", "nsz", "arcp", "afn"})
def exp_into(x, out):
    for i in range(x.size):
        out[i] = bounded_exp(x[i])


@njit
def forward_inside(arguments, out):
    gates_forward(*arguments, out)


@njit
def linearize_inside(arguments, out, slots, c, q):
    gates_linearize(*arguments, out, slots, c, q)


@njit
def backward_inside(v, slots, c, q, d_gates, d_h):
    gates_backward(v, slots, c, q, d_gates, d_h)


def evaluate(gi, gh, bias, h, classic, gamma, power):
    """The gate evaluation of the module's docstring, for any float or complex type."""
    gi_r, gi_z, gi_n = np.split(gi, 3, axis=-1)
    gh_r, gh_z, gh_n = np.split(gh, 3, axis=-1)
    b_r, b_z, b_in, b_hn = np.split(bias, 4)
    r = sigmoid(gi_r + gh_r + b_r)
    z = sigmoid(gi_z + gh_z + b_z)
    n = np.tanh(gi_n + b_in + r * (gh_n + b_hn))
    t = z if classic else 1 / (1 + gamma * (1 - z))
    q = t**power
    return q * h + (1 - q) * n


def pre_activations(gi, gh, h, name):
    """(gi, gh, h) with an imaginary step in one of the quantities that `evaluate` depends on."""
    hidden = h.shape[-1]
    moved = {"gi": gi.astype(complex), "gh": gh.astype(complex), "h": h.astype(complex)}
    array, block = {
        "e": ("gh", slice(2 * hidden, 3 * hidden)),
        "r": ("gi", slice(hidden)),
        "z": ("gi", slice(hidden, 2 * hidden)),
        "n": ("gi", slice(2 * hidden, 3 * hidden)),
        "h": ("h", slice(hidden)),
    }[name]
    moved[array][..., block] += 1j * EPSILON
    return moved["gi"], moved["gh"], moved["h"]


def coefficient(name, gi, gh, bias, h, classic, gamma, power):
    """Derivative of out; each entry of out depends on its own entries alone."""
    moved_gi, moved_gh, moved_h = pre_activations(gi, gh, h, name)
    out = evaluate(moved_gi, moved_gh, bias, moved_h, classic, gamma, power)
    return np.imag(out) / EPSILON


@st.composite
def problems(draw):
    """Arguments of the gate kernels up to their outputs."""
    dtype = draw(st.sampled_from(FLOATS))
    n, batch, hidden = (draw(st.integers(1, greatest)) for greatest in (4, 3, 9))
    held = draw(st.integers(1, 5))
    rows = draw(st.lists(st.integers(0, held - 1), min_size=n, max_size=n))
    classic = draw(st.booleans())
    gamma = draw(st.sampled_from([1, 4, 16]))
    power2 = draw(st.sampled_from(POWERS2))
    scale = draw(st.sampled_from([0.1, 1.0, 4.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    gi = scale * rng.standard_normal((held, batch, 3 * hidden))
    gh = scale * rng.standard_normal((n, batch, 3 * hidden))
    bias = rng.standard_normal(4 * hidden)
    h = rng.standard_normal((n, batch, hidden))
    gi, gh, bias, h = (array.astype(dtype) for array in (gi, gh, bias, h))
    return gi, np.array(rows), gh, bias, h, classic, dtype(gamma), power2


def doubled(problem):
    """The same problem for `evaluate`, in float64, with the rows gathered."""
    gi, rows, gh, bias, h, classic, gamma, power2 = problem
    gathered = np.stack([gi[row] for row in rows])
    arrays = (array.astype(np.float64) for array in (gathered, gh, bias, h))
    return *arrays, classic, float(gamma), power2 / 2


def rounding(problem):
    """Twenty units of rounding, times the factor by which q magnifies an error of z."""
    gamma, power2 = problem[6:]
    return 20 * np.finfo(gamma.dtype).eps * (1 + float(gamma) * power2 / 2)


def linearized(problem):
    """Outputs of gates_linearize, which must overwrite every entry."""
    out, c, q = outputs(problem)
    gates_linearize(*problem, out, np.arange(len(out)), c, q)
    return out, c, q


def outputs(problem):
    """Arrays for gates_linearize, full of NaN."""
    n, batch, hidden = problem[4].shape
    widths = (hidden, 4 * hidden, hidden)
    return [np.full((n, batch, width), np.nan, problem[4].dtype) for width in widths]


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
        h = np.zeros((1, 1, z.size), dtype)
        problem = (gi, np.array([0]), np.zeros_like(gi), np.zeros(4 * z.size, dtype), h)
        out, _, q = linearized((*problem, True, dtype(1), 2))
        return out[0, 0], q[0, 0]

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


class TestGates:
    @settings(max_examples=300, deadline=None)
    @given(problem=problems())
    def test_forward(self, problem):
        out = np.full_like(problem[4], np.nan)
        gates_forward(*problem, out)
        assert_close(out, evaluate(*doubled(problem)), out.dtype, rounding(problem))

    @settings(max_examples=300, deadline=None)
    @given(problem=problems())
    def test_linearize(self, problem):
        out, c, q = linearized(problem)
        exact, dtype, tolerance = doubled(problem), out.dtype, rounding(problem)
        assert_close(out, evaluate(*exact), dtype, tolerance)
        for name, block in zip("erzn", np.split(c, 4, axis=-1), strict=True):
            assert_close(block, coefficient(name, *exact), dtype, tolerance)
        assert_close(q, coefficient("h", *exact), dtype, tolerance)

    def test_linearize_writes_the_given_slots_only(self):
        rng = np.random.default_rng(2)
        gi, gh = rng.standard_normal((2, 2, 3, 12))
        problem = (gi, np.arange(2), gh, rng.standard_normal(16), rng.standard_normal((2, 3, 4)))
        problem = (*problem, False, np.float64(1), 2)
        out, c, q = linearized(problem)
        held_c, held_q = np.full((5, 3, 16), np.nan), np.full((5, 3, 4), np.nan)
        gates_linearize(*problem, np.empty_like(out), np.array([4, 1]), held_c, held_q)
        np.testing.assert_array_equal(held_c[[4, 1]], c)
        np.testing.assert_array_equal(held_q[[4, 1]], q)
        assert np.isnan(held_c[[0, 2, 3]]).all()
        assert np.isnan(held_q[[0, 2, 3]]).all()

    @settings(max_examples=150, deadline=None)
    @given(
        dtype=st.sampled_from(FLOATS),
        shape=st.tuples(*(st.integers(1, greatest) for greatest in (4, 3, 9))),
        held=st.integers(4, 9),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_backward(self, dtype, shape, held, seed):
        n, batch, hidden = shape
        rng = np.random.default_rng(seed)
        slots = rng.permutation(held)[:n]
        v = rng.standard_normal(shape).astype(dtype)
        c = rng.standard_normal((held, batch, 4 * hidden)).astype(dtype)
        q = rng.standard_normal((held, batch, hidden)).astype(dtype)
        d_gates = np.full((n, batch, 4 * hidden), np.nan, dtype)
        d_h = np.full(shape, np.nan, dtype)
        gates_backward(v, slots, c, q, d_gates, d_h)
        for i, row in enumerate(slots):
            np.testing.assert_array_equal(d_h[i], v[i] * q[row])
            np.testing.assert_array_equal(d_gates[i], np.tile(v[i], 4) * c[row])

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("classic", [False, True])
    @pytest.mark.parametrize("power2", POWERS2)
    def test_every_power(self, dtype, classic, power2):
        z = np.linspace(-6, 6, 25)
        gi = np.concatenate([0 * z, z, 1 + 0 * z])[None, None].astype(dtype)
        h = np.full((1, 1, 25), 0.5, dtype)
        problem = (gi, np.array([0]), np.zeros_like(gi), np.zeros(100, dtype), h)
        _, c, q = linearized((*problem, classic, dtype(1), power2))
        t = sigmoid(z) if classic else 1 / (2 - sigmoid(z))
        assert_close(q[0, 0], t ** (power2 / 2), dtype, 10 * GATE_ERROR[dtype])
        dt = 1 if classic else t**2
        dz = sigmoid(z) * (1 - sigmoid(z))
        expected = (0.5 - np.tanh(1)) * power2 / 2 * t ** (power2 / 2 - 1) * dt * dz
        assert_close(c[0, 0, 50:75], expected, dtype, 10 * GATE_ERROR[dtype])

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("power2", [1, 2, 3, 16])
    @pytest.mark.parametrize("classic", [False, True])
    def test_saturated_gates_have_a_finite_derivative(self, dtype, power2, classic):
        gi = np.array([-np.inf, np.inf, -1e4, 1e4] * 3, dtype)[None, None]
        h = np.full((1, 1, 4), 0.5, dtype)
        problem = (gi, np.array([0]), np.zeros_like(gi), np.ones(16, dtype), h)
        assert all(
            np.isfinite(array).all() for array in linearized((*problem, classic, dtype(1), power2))
        )

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("place", [*range(9), "bias", "h"])
    def test_nan_goes_into_its_unit_and_no_other(self, dtype, place):
        gi, gh = np.zeros((2, 1, 1, 9), dtype)
        bias, h = np.zeros(12, dtype), np.zeros((1, 1, 3), dtype)
        array, index = {"bias": (bias, 4), "h": (h, (0, 0, 1))}.get(place, (gi, (0, 0, place)))
        array[index] = np.nan
        unit = place % 3 if isinstance(place, int) else 1
        problem = (gi, np.array([0]), gh, bias, h, False, dtype(1), 3)
        out = np.empty_like(h)
        gates_forward(*problem, out)
        np.testing.assert_array_equal(np.isnan(out[0, 0]), np.arange(3) == unit)
        out, _, _ = linearized(problem)
        np.testing.assert_array_equal(np.isnan(out[0, 0]), np.arange(3) == unit)

    def test_inputs_stay_unchanged(self):
        rng = np.random.default_rng(2)
        arrays = [rng.standard_normal(shape) for shape in ((3, 2, 12), (3, 2, 12), 16, (3, 2, 4))]
        before = [array.copy() for array in arrays]
        gi, gh, bias, h = arrays
        problem = (gi, np.arange(3), gh, bias, h, True, 1.0, 5)
        _, c, q = linearized(problem)
        gates_forward(*problem, np.empty_like(h))
        kept = c.copy(), q.copy()
        gates_backward(h, np.arange(3), c, q, np.empty((3, 2, 16)), np.empty_like(h))
        for array, old in zip((*arrays, c, q), (*before, *kept), strict=True):
            np.testing.assert_array_equal(array, old)


class TestInsideCompiledCode:
    """Inlining must not change what the kernels compute beyond rounding."""

    @staticmethod
    def problem(dtype):
        rng = np.random.default_rng(4)
        gi, gh = rng.standard_normal((2, 5, 3, 24)).astype(dtype)
        bias, h = rng.standard_normal(32).astype(dtype), rng.standard_normal((5, 3, 8))
        return gi, np.arange(5)[::-1].copy(), gh, bias, h.astype(dtype), False, dtype(4), 7

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_forward(self, dtype):
        problem = self.problem(dtype)
        plain, inside = np.empty_like(problem[4]), np.full_like(problem[4], np.nan)
        gates_forward(*problem, plain)
        forward_inside(problem, inside)
        assert_close(inside, plain, dtype, GATE_ERROR[dtype])

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_linearize_and_backward(self, dtype):
        problem = self.problem(dtype)
        plain, inside = linearized(problem), outputs(problem)
        linearize_inside(problem, inside[0], np.arange(5), *inside[1:])
        for one, other in zip(plain, inside, strict=True):
            assert_close(one, other, dtype, GATE_ERROR[dtype])
        out, c, q = plain
        products = []
        for kernel in (gates_backward, backward_inside):
            d_gates, d_h = np.full_like(c[1::2], np.nan), np.full_like(out[1::2], np.nan)
            kernel(out[1::2].copy(), np.array([1, 3]), c, q, d_gates, d_h)
            products.append((d_gates, d_h))
        np.testing.assert_array_equal(products[0][0], products[1][0])
        np.testing.assert_array_equal(products[0][1], products[1][1])
