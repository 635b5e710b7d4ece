"""Steps of recurrent layers against the plain reference; options, parameters, inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pint import Status, TimeGrid
from pint.propagator import Propagator
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from tests.recurrent_models import (
    BATCH,
    CASES,
    CELLS,
    FEATURES,
    HIDDEN,
    LAYERS,
    MASKS,
    make,
    mask_of,
    normal,
    reference_of,
    reference_steps,
    solvers,
    stack,
    states,
)
from tests.recurrent_reference import Sequences, derivative

EVERY_WINDOW = np.array([(last, m) for last in range(1, 25) for m in range(1, min(last, 8) + 1)])


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_trajectory(cell, layers, masked, dtype, tolerance):
    model, mask = make(layers, cell, dtype), mask_of(masked, 20)
    x, (u,) = normal(BATCH, 20, FEATURES, dtype=dtype), states(model, 1)
    model.set_inputs(x, mask=mask)
    result = solvers(model, 20)[0].solve(u)
    assert result.status is Status.STEPPED
    assert result.u.dtype == dtype
    expected = reference_of(model).trajectory(Sequences(x, mask), u)
    np.testing.assert_allclose(result.u, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("cell", "kind"), CASES)
class TestCoarseSteps:
    @pytest.mark.parametrize("masked", MASKS)
    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("substep", [1, 3, 8])
    def test_against_the_reference(self, cell, kind, substep, layers, masked):
        model, mask = make(layers, cell, coarse_step=kind, substep=substep), mask_of(masked, 24)
        x, u = normal(BATCH, 24, FEATURES), states(model, 3)
        model.set_inputs(x, EVERY_WINDOW, mask)
        for num_fine in (2, 3, 4, 7, 16):
            step = stack([num_fine, 24, 20], num_fine, level=1)
            expected = reference_steps(model, x, mask, u, step)
            np.testing.assert_allclose(model.step(u, step), expected, rtol=0, atol=2e-14)

    @pytest.mark.parametrize("masked", MASKS)
    def test_in_single_precision(self, cell, kind, masked):
        model, mask = make(2, cell, np.float32, coarse_step=kind), mask_of(masked, 24)
        x, u = normal(BATCH, 24, FEATURES, dtype=np.float32), states(model, 3)
        model.set_inputs(x, EVERY_WINDOW, mask)
        step = stack([16, 24, 20], 16, level=2)
        expected = reference_steps(model, x, mask, u, step)
        assert model.step(u, step).dtype == np.float32
        np.testing.assert_allclose(model.step(u, step), expected, rtol=0, atol=1e-5)

    def test_substep_of_each_level(self, cell, kind):
        model = make(1, cell, coarse_step=kind, substep=(4, 2))
        x, u = normal(BATCH, 24, FEATURES), states(model, 1)
        model.set_inputs(x, EVERY_WINDOW)
        for level, substep in ((1, 4), (2, 2), (3, 2)):
            same = make(1, cell, coarse_step=kind, substep=substep)
            same.set_inputs(x, EVERY_WINDOW)
            step = stack([16], 8, level)
            np.testing.assert_array_equal(model.step(u, step), same.step(u, step))

    @pytest.mark.parametrize("masked", MASKS)
    @pytest.mark.parametrize("num_fine", [2, 3, 7, 16])
    def test_exact_while_gates_do_not_change(self, cell, kind, num_fine, masked):
        """A property of the coarse steps, and none of the implicit one, whatever the reference."""
        model, mask = make(1, cell, coarse_step=kind), mask_of(masked, 24)
        if mask is not None:
            mask[:, 0] = True  # before its first element a sequence has another input
        model.weights["weight_hh_l0"][...] = 0
        model.set_inputs(np.repeat(normal(BATCH, 1, FEATURES), 24, axis=1), EVERY_WINDOW, mask)
        u = states(model, 2)
        coarse = model.step(u, stack([num_fine, 24], num_fine, level=1))
        fine = u
        for i in range(num_fine):
            fine = model.step(fine, stack([i + 1, 25 - num_fine + i], 1))
        error = np.abs(coarse - fine).max()
        assert error > 1e-3 if kind == "implicit" else error < 1e-14

    @pytest.mark.parametrize("with_g", [False, True])
    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("masked", MASKS)
    def test_chain_equals_steps(self, cell, kind, masked, layers, with_g):
        model, mask = make(layers, cell, coarse_step=kind), mask_of(masked, 24)
        model.set_inputs(normal(BATCH, 24, FEATURES), EVERY_WINDOW, mask)
        (u,), g = states(model, 1), states(model, 24, seed=3) if with_g else None
        for num_fine in (1, 4):
            steps = stack(np.arange(num_fine, 25, num_fine), num_fine, level=num_fine // 4)
            out, expected = (np.full_like(states(model, 24 // num_fine), np.nan) for _ in range(2))
            model.chain(u, steps, g, out)
            Propagator.chain(model, u, steps, g, expected)
            np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("masked", ["padded", "holes"])
@pytest.mark.parametrize(("cell", "kind"), CASES)
def test_missing_elements_are_not_read(cell, kind, masked):
    """NaN in their places changes nothing; steps over none of them keep the state's bits."""
    model, mask = make(2, cell, coarse_step=kind), mask_of(masked, 24)
    x, u = normal(BATCH, 24, FEATURES), states(model, 4)
    steps = [stack([3, 9, 24, 20], 1), stack([6, 12, 20, 24], 6, level=1)]
    model.set_inputs(x, EVERY_WINDOW, mask)
    expected = [model.step(u, step) for step in steps]
    x[~mask] = np.nan
    model.set_inputs(x, EVERY_WINDOW, mask)
    for step, old in zip(steps, expected, strict=True):
        new = model.step(u, step)
        np.testing.assert_array_equal(new, old)
        for row, (first, last) in enumerate(zip(step.first, step.last, strict=True)):
            empty = ~mask[:, first - 1 : last].any(axis=1)
            np.testing.assert_array_equal(new[row][:, empty], u[row][:, empty])


@st.composite
def problems(draw):
    """A model, sequences with any mask, and a step of any kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell, kind = draw(st.sampled_from(CASES))
    features, hidden, layers, batch = (draw(st.integers(1, most)) for most in (3, 6, 3, 4))
    num_fine, substep, n = (draw(st.integers(1, most)) for most in (12, 12, 3))
    options = RecurrenceOptions(
        num_features=features, hidden=hidden, layers=layers, cell=cell, coarse_step=kind,
        substep=substep, dtype=np.float64,
    )  # fmt: skip
    model = Recurrence(options, seed=draw(st.integers(0, 99)))
    x = rng.standard_normal((batch, 20, features))
    mask = rng.random((batch, 20)) < draw(st.sampled_from([0.2, 0.8, 1.1]))
    step = stack(rng.integers(num_fine, 21, n), num_fine, level=min(num_fine - 1, 1))
    model.set_inputs(x, model.input_windows(step), mask)
    u, v, w = rng.standard_normal((3, n, *model.state_shape))
    return model, x, mask, step, (u, v, w), rng.standard_normal(model.parameters.size)


@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_steps_and_derivatives_of_any_shape(problem):
    model, x, mask, step, (u, v, w), direction = problem
    expected = reference_steps(model, x, mask, u, step)
    np.testing.assert_allclose(model.step(u, step), expected, rtol=0, atol=1e-13)

    Jv = derivative(lambda u: reference_steps(model, x, mask, u, step), u, v)
    size = np.abs(w * Jv).sum() + 1
    assert abs((w * Jv - model.adjoint_step(w, u, step) * v).sum()) < 1e-12 * size

    def at(flat):
        ends = np.cumsum([tensor.size for tensor in model.weights.values()])[:-1]
        pieces = zip(model.weights.items(), np.split(flat, ends), strict=True)
        weights = {name: piece.reshape(tensor.shape) for (name, tensor), piece in pieces}
        return reference_steps(model, x, mask, u, step, weights)

    slope = (w * derivative(at, model.parameters, direction)).sum()
    gradient = model.adjoint_gradient(w, u, step)
    assert abs(slope - gradient @ direction) < 1e-12 * (np.abs(gradient * direction).sum() + 1)


class TestSetInputs:
    @pytest.mark.parametrize("shape", [(4, 9, FEATURES + 1), (9, FEATURES), (1, 4, 9, FEATURES)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=rf"\(batch, time, {FEATURES}\), got \({shape[0]}, "):
            make().set_inputs(np.zeros(shape))

    @pytest.mark.parametrize("cell", CELLS)
    def test_sets_the_shape_of_the_states(self, cell):
        model = make(layers=3, cell=cell)
        for batch in (5, 2):
            model.set_inputs(np.zeros((batch, 4, FEATURES)))
            assert model.state_shape == (3, batch, HIDDEN * (2 if cell == "lstm" else 1))

    @pytest.mark.parametrize("again", ["set_inputs", "refresh"])
    @pytest.mark.parametrize("cell", CELLS)
    def test_takes_changed_parameters(self, cell, again):
        model, x, step = make(2, cell), normal(BATCH, 4, FEATURES), stack([3], 1)
        u = states(model, 1)
        model.set_inputs(x)
        model.parameters += 0.25
        if again == "refresh":
            model.refresh()
        else:
            model.set_inputs(x)
        expected = reference_steps(model, x, None, u, step)
        np.testing.assert_allclose(model.step(u, step), expected, rtol=0, atol=1e-14)

    def test_bits_do_not_depend_on_what_else_is_bound(self):
        """Ranks bind different inputs, and the same step gives the same bits on all of them."""
        options = RecurrenceOptions(num_features=9, hidden=20)
        model, x, step = Recurrence(options), normal(25, 24, 9), stack([8], 4, level=1)
        model.set_inputs(x, model.input_windows(step))
        u = normal(1, *model.state_shape, dtype=np.float32)
        alone = model.step(u, step)
        for count in (20, 24, len(EVERY_WINDOW)):
            windows = np.concatenate([EVERY_WINDOW[:count], model.input_windows(step)])
            model.set_inputs(x, windows)
            np.testing.assert_array_equal(model.step(u, step), alone)

    def test_what_is_missing_is_told(self):
        model = Recurrence(RecurrenceOptions(num_features=2, hidden=3))
        grid = TimeGrid.uniform(0, 12, 12)
        with pytest.raises(ValueError, match="set_inputs was not called"):
            model.step(np.zeros((1, 1, 4, 3), np.float32), grid.steps(slice(1, 2, 1)))
        model.set_inputs(np.zeros((4, 10, 2)))
        with pytest.raises(ValueError, match="left out the input of finest step 11"):
            model.step(np.zeros((2, 1, 4, 3), np.float32), grid.steps(slice(10, 12, 1)))
        model.set_inputs(np.zeros((4, 10, 2)), np.array([[2, 2]]))
        with pytest.raises(ValueError, match=r"left out the mean of the 2 inputs up to .* step 4$"):
            model.step(np.zeros((1, 1, 4, 3), np.float32), stack([4], 4, level=1))


@pytest.mark.parametrize(("cell", "kind"), CASES)
@pytest.mark.parametrize(
    ("level", "num_fine", "substep"), [(0, 1, 8), (1, 4, 8), (2, 16, 8), (1, 7, 3)]
)
class TestInputWindows:
    def test_hold_exactly_what_steps_read(self, cell, kind, level, num_fine, substep):
        model = make(1, cell, coarse_step=kind, substep=substep)
        step, u = stack([num_fine, 30], num_fine, level), states(model, 2)
        read = {i for last, length in model.input_windows(step) for i in range(last - length, last)}
        points = np.array(sorted(read))
        x = np.full((BATCH, 32, FEATURES), np.nan)
        x[:, points] = normal(BATCH, points.size, FEATURES)
        model.set_inputs(x, model.input_windows(step))
        assert np.isfinite(model.step(u, step)).all()
        for point in points:
            spoilt = x.copy()
            spoilt[:, point] = np.nan
            model.set_inputs(spoilt, model.input_windows(step))
            assert np.isnan(model.step(u, step)).any()

    def test_one_left_out_is_named(self, cell, kind, level, num_fine, substep):
        model = make(1, cell, coarse_step=kind, substep=substep)
        step, u = stack([num_fine, 30], num_fine, level), states(model, 2)
        windows = model.input_windows(step)
        for i, (last, length) in enumerate(windows):
            model.set_inputs(normal(BATCH, 32, FEATURES), np.delete(windows, i, axis=0))
            what = "the input of" if length == 1 else f"the mean of the {length} inputs up to"
            for method in (model.step, model.linearize):
                with pytest.raises(ValueError, match=rf"left out {what} finest step {last}$"):
                    method(u, step)


class TestParameters:
    @pytest.mark.parametrize(("cell", "gates"), [("implicit", 3), ("classic", 3), ("lstm", 4)])
    def test_are_shared(self, cell, gates):
        options = RecurrenceOptions(
            num_features=FEATURES, hidden=HIDDEN, cell=cell, dtype=np.float64
        )
        flat = np.arange(gates * HIDDEN * (FEATURES + HIDDEN + 2.0))
        model = Recurrence(options, flat)
        assert model.parameters is flat
        model.weights["bias_hh_l0"][-1] = -1
        assert flat[-1] == -1

    def test_are_drawn_by_seed(self):
        options = RecurrenceOptions(num_features=FEATURES, hidden=16)
        first, same, other = (Recurrence(options, seed=seed).parameters for seed in (1, 1, 2))
        assert first.dtype == np.float32
        np.testing.assert_array_equal(first, same)
        assert (first != other).any()
        assert 0.24 < np.abs(first).max() <= 0.25  # 16^(-1/2)

    @pytest.mark.parametrize("flat", [np.zeros(5, np.float32), np.zeros(63, np.float64)])
    def test_must_fit(self, flat):
        with pytest.raises(ValueError, match="parameters must be 63 numbers of float32"):
            Recurrence(RecurrenceOptions(num_features=2, hidden=3), flat)


def test_default_options():
    options = RecurrenceOptions(num_features=1)
    assert (options.cell, options.coarse_step, options.substep) == ("implicit", "averaged", 4)
    assert (options.hidden, options.layers, options.dtype) == (100, 1, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_features": 0}, "num_features must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"layers": 1.5}, "layers must be an integer, got 1.5"),
        ({"substep": 0}, "substep must be at least 1, got 0"),
        ({"substep": (8, 0)}, "substep must be at least 1, got 0"),
        ({"cell": "rnn"}, "cell must be one of implicit, classic, lstm, got 'rnn'"),
        ({"coarse_step": "exact"}, "coarse_step must be one of averaged, .*, got 'exact'"),
        ({"cell": "classic", "coarse_step": "implicit"}, "needs cell 'implicit'; use 'averaged'"),
        ({"cell": "lstm", "coarse_step": "implicit"}, "needs cell 'implicit'; use 'averaged'"),
        ({"dtype": np.float16}, "dtype must be float32 or float64, got float16"),
        ({"dtype": np.complex128}, "dtype must be float32 or float64, got complex128"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        RecurrenceOptions(**{"num_features": FEATURES, **changes})
