"""Derivatives of recurrent steps: adjoints, gradients, and what is kept between calls."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, TimeGrid
from pint.propagator import Linearization
from pint.rnn.linearization import RecurrenceLinearization
from pint.rnn.recurrence import Recurrence
from tests.recurrent_models import (
    BATCH,
    CASES,
    CELLS,
    FEATURES,
    LAYERS,
    MASKS,
    by_name,
    make,
    mask_of,
    normal,
    reference_of,
    reference_steps,
    stack,
    states,
)
from tests.recurrent_reference import Sequences, derivative, gradients

STEPS = [(0, 1), (1, 4), (2, 16)]
"""Level of a step, and how many finest steps it covers."""
EVERY = slice(0, 6, 1)


def bind(model, step, num_steps=24, masked="whole"):
    """Bind sequences, and return them with their mask."""
    x, mask = normal(BATCH, num_steps, FEATURES, dtype=model.dtype), mask_of(masked, num_steps)
    model.set_inputs(x, model.input_windows(step), mask)
    return x, mask


@pytest.mark.parametrize(("cell", "kind"), CASES)
class TestAdjoint:
    @pytest.mark.parametrize("masked", MASKS)
    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("substep", [8, (3, 5)])
    @pytest.mark.parametrize(("level", "num_fine"), STEPS)
    def test_identity(self, cell, kind, level, num_fine, substep, layers, masked):
        """<w, J v> = <adjoint_step(w, u), v>, for each step of the stack."""
        model = make(layers, cell, coarse_step=kind, substep=substep)
        step = stack([num_fine, 24, 17], num_fine, level)
        x, mask = bind(model, step, masked=masked)
        u, v, w = (states(model, 3, seed) for seed in (2, 3, 4))
        Jv = derivative(lambda u: reference_steps(model, x, mask, u, step), u, v)
        left, right = w * Jv, model.adjoint_step(w, u, step) * v
        by_point = left.sum(axis=(1, 2, 3)) - right.sum(axis=(1, 2, 3))
        assert np.abs(by_point).max() < 1e-12 * np.abs(left).sum()

    @pytest.mark.parametrize(("level", "num_fine"), STEPS)
    def test_identity_in_single_precision(self, cell, kind, level, num_fine):
        model = make(2, cell, np.float32, coarse_step=kind)
        step = stack([num_fine, 20, 17], num_fine, level)
        x, mask = bind(model, step)
        u, v, w = (states(model, 3, seed) for seed in (2, 3, 4))
        wide = {name: tensor.astype(np.float64) for name, tensor in model.weights.items()}
        Jv = derivative(
            lambda u: reference_steps(model, x, mask, u, step, wide), u.astype(np.float64), v
        )
        adjoint = model.adjoint_step(w, u, step)
        assert adjoint.dtype == np.float32
        assert abs((w * Jv).sum() - (adjoint * v).sum()) < 1e-5 * np.abs(w * Jv).sum()

    @pytest.mark.parametrize("masked", MASKS)
    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("num_fine", [1, 4, 7])
    def test_parameter_gradient(self, cell, kind, num_fine, layers, masked):
        model = make(layers, cell, coarse_step=kind, substep=4)
        step = stack([9, num_fine], num_fine, level=min(num_fine - 1, 1))
        x, mask = bind(model, step, 9, masked)
        u, w = states(model, 2, 2), states(model, 2, 3)
        directions = np.random.default_rng(5).standard_normal((4, model.parameters.size))
        gradient = model.adjoint_gradient(w, u, step)
        for direction in directions:

            def at(flat):
                return reference_steps(model, x, mask, u, step, by_name(model, flat))

            slope = (w * derivative(at, model.parameters, direction)).sum()
            size = np.abs(gradient * direction).sum()
            assert abs(gradient @ direction - slope) < 1e-12 * size

    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("rows", [slice(0, 1, 1), slice(2, 5, 1), slice(1, 6, 2)])
    def test_some_rows(self, cell, kind, rows, layers):
        model = make(layers, cell, coarse_step=kind)
        step = stack([4, 8, 12, 16, 20, 24], 4, level=1)
        bind(model, step)
        u, w = states(model, 6, 2), states(model, 6, 3)
        linearization = model.linearize(u, step)
        everything = linearization.adjoint(w, EVERY)
        some = linearization.adjoint(w[rows], rows)
        np.testing.assert_allclose(some, everything[rows], rtol=0, atol=1e-14)
        np.testing.assert_array_equal(linearization.adjoint(w, EVERY), everything)

    @pytest.mark.parametrize("with_g", [False, True])
    @pytest.mark.parametrize("rows", [EVERY, slice(1, 4, 1), slice(1, 6, 2)])
    @pytest.mark.parametrize("layers", LAYERS)
    def test_chain_equals_single_steps(self, cell, kind, layers, rows, with_g):
        model = make(layers, cell, coarse_step=kind)
        for num_fine in (1, 4):
            step = stack(np.arange(24, 0, -4), num_fine, level=num_fine // 4)
            bind(model, step, masked="holes")
            u, w, g = states(model, 6, 2), states(model, 1, 3)[0], states(model, 6, 4)
            g = g[rows] if with_g else None
            linearization = model.linearize(u, step)
            out, expected = (np.full_like(u[rows], np.nan) for _ in range(2))
            linearization.adjoint_chain(w, rows, g, out)
            Linearization.adjoint_chain(linearization, w, rows, g, expected)
            np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-13)

    def test_arguments_stay_unchanged(self, cell, kind):
        model = make(2, cell, coarse_step=kind)
        step = stack([4, 8], 4, level=1)
        x, _ = bind(model, step, 8)
        u, w = states(model, 2, 2), states(model, 2, 3)
        before = [array.copy() for array in (x, u, w, model.parameters)]
        out = np.empty_like(u)
        model.chain(u[0], step, w, out)
        linearization = model.linearize(u, step)
        linearization.adjoint_chain(w[0], slice(0, 2, 1), u, np.empty_like(out))
        for new in (model.step(u, step), linearization.adjoint(w, slice(0, 2, 1))):
            assert new.shape == u.shape
            new[...] = np.nan
        linearization.gradient(w)
        for array, old in zip((x, u, w, model.parameters), before, strict=True):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", CELLS)
class TestInputGradient:
    def test_of_finest_steps(self, cell, layers, masked):
        model, step = make(layers, cell), stack([6, 2, 3], 1)
        x, mask = bind(model, step, 6, masked)
        u, w = states(model, 3, 2), states(model, 3, 3)
        model.input_gradient = np.full_like(x, np.nan)
        model.adjoint_gradient(w, u, step)

        def product(named):
            return (w * reference_steps(model, named["x"], mask, u, step)).sum()

        expected = gradients(product, {"x": x})["x"]
        covered = step.last - 1
        left = np.setdiff1d(np.arange(6), covered)
        if mask is not None:  # the reference may read an element where the next one is missing
            assert (model.input_gradient[:, covered][~mask[:, covered]] == 0).all()
            expected[~mask] = 0
        np.testing.assert_allclose(
            model.input_gradient[:, covered], expected[:, covered], rtol=0, atol=1e-13
        )
        assert np.isnan(model.input_gradient[:, left]).all()

    def test_coarse_steps_leave_it_alone(self, cell, layers, masked):
        model, step = make(layers, cell), stack([4, 8], 4, level=1)
        x, _ = bind(model, step, 8, masked)
        model.input_gradient = np.full_like(x, np.nan)
        model.adjoint_gradient(states(model, 2, 3), states(model, 2, 2), step)
        assert np.isnan(model.input_gradient).all()


@pytest.fixture(params=[(cell, layers) for cell in CELLS for layers in (1, 2)], ids=str)
def problem(request):
    """A model with bound sequences, six finest steps, their states, and adjoint ones."""
    cell, layers = request.param
    model = make(layers, cell)
    model.set_inputs(normal(BATCH, 6, FEATURES))
    (start,) = states(model, 1, 2)
    u = reference_of(model).trajectory(Sequences(normal(BATCH, 6, FEATURES)), start)
    return model, stack(np.arange(1, 7), 1), u, states(model, 6, 3)


def record(model, u, step, how):
    """Take all steps from u[0] on while recording; return the states that they started from."""
    model.recording = True
    held = u.copy()
    if how == "chain":
        model.chain(held[0], step, None, held[1:])
    else:
        for part in [slice(0, 6, 2), slice(1, 6, 2)] if how == "two stacks" else [EVERY]:
            model.step(held[:-1][part], step.at(part))
    model.recording = False
    return held[:-1]


def count_evaluated(model, monkeypatch):
    """Return a list to which every later call of the gate evaluations adds its steps."""
    ran, advance = [], model._advance

    def counted(u, *given, **named):
        ran.append(len(u))
        advance(u, *given, **named)

    monkeypatch.setattr(model, "_advance", counted)
    return ran


def assert_same(one, other, w):
    for got, expected in (
        (one.adjoint(w, EVERY), other.adjoint(w, EVERY)),
        (one.gradient(w), other.gradient(w)),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("how", ["stack", "two stacks", "chain"])
class TestRecording:
    def test_only_discarded_steps_are_evaluated_again(self, problem, how, monkeypatch):
        model, step, u, w = problem
        starts = record(model, u, step, how)
        moved = starts.copy()
        moved[3, 0, 1, 2] += 0.1
        model.discard(step.at(slice(3, 4)))
        ran = count_evaluated(model, monkeypatch)
        recorded = model.linearize(moved, step)
        assert sum(ran) == 1
        fresh = model.linearize(moved, step)
        assert sum(ran) == 1 + 6  # a linearisation takes what was recorded with it
        assert_same(recorded, fresh, w)
        assert np.abs(fresh.gradient(w) - model.linearize(starts, step).gradient(w)).max() > 1e-6

    def test_discarded_tapes_are_not_read(self, problem, how):
        model, step, u, w = problem
        starts = record(model, u, step, how)
        starts[3] += 0.1
        model.discard()
        recorded, fresh = model.linearize(starts, step), model.linearize(starts, step)
        assert_same(recorded, fresh, w)

    def test_the_last_record_counts(self, problem, how, monkeypatch):
        model, step, u, w = problem
        record(model, u + 0.1, step, "chain")
        record(model, u - 0.1, step, "stack")
        starts = record(model, u, step, how)
        ran = count_evaluated(model, monkeypatch)
        recorded = model.linearize(starts, step)
        assert sum(ran) == 0
        assert_same(recorded, model.linearize(starts, step), w)

    def test_new_inputs_drop_it(self, problem, how):
        model, step, u, w = problem
        starts = record(model, u, step, how)
        x = normal(BATCH, 6, FEATURES, seed=9)
        model.set_inputs(x)
        other = Recurrence(model.options, model.parameters)
        other.set_inputs(x)
        assert_same(model.linearize(starts, step), other.linearize(starts, step), w)

    def test_new_parameters_drop_it(self, problem, how):
        model, step, u, w = problem
        starts = record(model, u, step, how)
        model.parameters += 0.1
        model.refresh()
        other = Recurrence(model.options, model.parameters)
        other.set_inputs(normal(BATCH, 6, FEATURES))
        assert_same(model.linearize(starts, step), other.linearize(starts, step), w)


def test_a_chain_takes_the_place_of_what_was_noted(problem):
    """Also after a chain of other steps, which takes its place in turn."""
    model, step, u, w = problem
    record(model, u, step, "stack")
    model.recording, starts = True, np.empty_like(u[:6])
    for rows in (slice(0, 3), slice(3, 6)):
        out = np.empty_like(u[rows])
        model.chain(u[rows.start] + 0.1, step.at(rows), None, out)
        starts[rows] = u[rows.start] + 0.1, *out[:-1]
    model.recording = False
    assert_same(model.linearize(starts, step), model.linearize(starts, step), w)


def test_what_a_released_tape_held_is_gone(problem):
    """Its memory is reused, while only some of the steps are recorded again."""
    model, step, u, w = problem
    starts = record(model, u, step, "stack")
    model.linearize(starts, step).release()
    model.parameters *= 1.5
    model.refresh()
    model.recording = True
    model.step(starts[2:], step.at(slice(2, 6)))
    model.recording = False
    again = model.linearize(starts, step)
    assert_same(again, model.linearize(starts, step), w)


@pytest.mark.parametrize("elements", [[1, 3, 5, 7], [7, 6, 5, 4, 3], [3, 4, 9, 10]], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_recorded_chains_of_any_steps(cell, elements):
    model, step = make(3, cell), stack(np.array(elements), 1)
    model.set_inputs(normal(BATCH, 16, FEATURES))
    (start,) = states(model, 1)
    out = np.empty((len(elements), *start.shape))
    model.recording = True
    model.chain(start, step, None, out)
    model.recording = False
    u, w = np.concatenate([start[None], out[:-1]]), normal(*out.shape)
    recorded, fresh = model.linearize(u, step), model.linearize(u, step)
    every = slice(0, len(elements), 1)
    np.testing.assert_allclose(recorded.gradient(w), fresh.gradient(w), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(recorded.adjoint(w, every), fresh.adjoint(w, every), rtol=1e-12)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", ["fortran", "between others", "one for all", "double"])
def test_states_may_lie_in_memory_as_they_like(cell, level, layout):
    model, dtype = make(2, cell, np.float32 if layout == "double" else np.float64), np.float64
    model.set_inputs(normal(BATCH, 16, FEATURES), windows_of(model))
    step = stack([16], 16) if level else stack([3, 4], 1)
    plain = np.repeat(states(model, 1), step.last.size, axis=0).astype(dtype)
    laid = {
        "fortran": np.asfortranarray(plain),
        "between others": np.repeat(plain, 2, axis=-1)[..., ::2],
        "one for all": np.broadcast_to(plain[:1], plain.shape),
        "double": plain,
    }[layout]
    expected = np.ascontiguousarray(plain, dtype=model.dtype)
    np.testing.assert_array_equal(model.step(laid, step), model.step(expected, step))
    w = np.ascontiguousarray(normal(*plain.shape), dtype=model.dtype)
    np.testing.assert_array_equal(
        model.adjoint_gradient(w, laid, step), model.adjoint_gradient(w, expected, step)
    )


@pytest.mark.parametrize("layout", ["fortran", "between others", "upside down", "single"])
@pytest.mark.parametrize("cell", CELLS)
def test_chains_write_to_any_memory(cell, layout):
    model, step = make(2, cell), stack(np.arange(1, 17), 1)
    model.set_inputs(normal(BATCH, 16, FEATURES))
    (start,) = states(model, 1)
    expected = np.empty((16, *start.shape))
    model.chain(start, step, None, expected)
    out = {
        "fortran": np.asfortranarray(expected * 0),
        "between others": np.zeros((*expected.shape, 2))[..., 0],
        "upside down": np.zeros_like(expected)[::-1],
        "single": np.zeros(expected.shape, dtype=np.float32),
    }[layout]
    model.chain(start, step, None, out)
    np.testing.assert_array_equal(out, expected.astype(out.dtype))
    u, last = np.concatenate([start[None], expected[:-1]]), slice(None, None, -1)
    backwards, rows = model.linearize(u[last], step.at(last)), slice(0, 16, 1)
    gradient = backwards.adjoint_chain(start, rows, None, expected)
    same = backwards.adjoint_chain(start, rows, None, out)
    np.testing.assert_array_equal(out, expected.astype(out.dtype))
    np.testing.assert_array_equal(same, gradient)


def windows_of(model):
    return model.input_windows(stack([16], 16), stack(np.arange(1, 17), 1))


class TestGradientOnTheWay:
    """A chain of all finest steps computes the gradient too."""

    @staticmethod
    def chained(problem, rows=EVERY):
        """What a chain backwards in time returns, its linearisation, and where it stepped from."""
        model, step, u, w = problem
        linearization = model.linearize(u[5::-1].copy(), step.at(slice(None, None, -1)))
        out = np.empty_like(w[rows])
        total = linearization.adjoint_chain(w[0], rows, None, out)
        return total, linearization, np.concatenate([w[:1], out[:-1]])

    def test_is_the_gradient(self, problem):
        total, linearization, w = self.chained(problem)
        np.testing.assert_allclose(total, linearization.gradient(w), rtol=1e-12, atol=1e-13)

    def test_is_not_that_of_some_steps(self, problem):
        total, _, _ = self.chained(problem, slice(0, 5, 1))
        assert total is None

    def test_gives_the_gradient_of_inputs(self, problem):
        model = problem[0]
        model.input_gradient = on_the_way = np.full((BATCH, 6, FEATURES), np.nan)
        _, linearization, w = self.chained(problem)
        model.input_gradient = np.full_like(on_the_way, np.nan)
        linearization.gradient(w)
        np.testing.assert_allclose(on_the_way, model.input_gradient, rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize("levels", [1, 2])
    def test_is_taken_where_states_cannot_change_afterwards(self, problem, levels, monkeypatch):
        """With more levels corrections come behind chains."""
        model, _, u, w = problem
        solver = MGRIT(model, TimeGrid.uniform(0, 6, 6), MGRITOptions(levels=levels, coarsening=3))
        model.set_inputs(
            normal(BATCH, 6, FEATURES), model.input_windows(*solver.hierarchy.own_steps())
        )
        result, asked = solver.solve(u[0]), []
        gradient = RecurrenceLinearization.gradient
        monkeypatch.setattr(
            RecurrenceLinearization, "gradient", lambda *given: asked.append(1) or gradient(*given)
        )
        AdjointSolver(solver).solve(result, w[0])
        assert len(asked) == levels - 1
