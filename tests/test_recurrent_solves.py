"""Recurrent layers solved in parallel over time: states and gradients of serial backpropagation."""

import numpy as np
import pytest

from pint import MGRITOptions, Status, Step
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from tests.recurrent_models import (
    BATCH,
    CASES,
    CELLS,
    FEATURES,
    MASKS,
    assert_same_gradients,
    backpropagate,
    make,
    make_remembering,
    mask_of,
    normal,
    reference_of,
    states,
)
from tests.recurrent_reference import Sequences, gradients


def parallel(levels, coarsening, **stopping):
    return MGRITOptions(levels=levels, coarsening=coarsening, relax=(0, 1), **stopping)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
class TestTimeStepping:
    def test_gradients_against_complex_steps(self, cell, layers, masked):
        model, mask = make(layers, cell), mask_of(masked, 4)
        x, u, w = normal(BATCH, 4, FEATURES), *states(model, 2)

        def loss(named):
            weights = {name: named[name] for name in model.weights}
            sequences = Sequences(named["inputs"], mask)
            trajectory = reference_of(model, weights).trajectory(sequences, named["initial_state"])
            return np.sum(w * trajectory[-1])

        expected = gradients(loss, {**model.weights, "initial_state": u, "inputs": x})
        computed = backpropagate(model, x, u, w, mask=mask)[2]
        assert_same_gradients(computed, expected, 1e-12)

    def test_chains_equal_steps_one_by_one(self, cell, layers, masked):
        model, mask = make_remembering(layers=layers, cell=cell), mask_of(masked, 40)
        x, u, w = normal(BATCH, 40, FEATURES), *states(model, 2)
        options = (MGRITOptions(levels=1, driver=driver) for driver in ("stack", "loop"))
        chained, single = (backpropagate(model, x, u, w, each, mask=mask) for each in options)
        np.testing.assert_allclose(chained[0].u, single[0].u, rtol=0, atol=1e-13)
        np.testing.assert_allclose(chained[1].w, single[1].w, rtol=0, atol=1e-12)
        assert_same_gradients(chained[2], single[2], 1e-12)


def test_gradients_against_central_differences():
    """Independent of every reference: the model's own states, a little to each side."""
    model = make(layers=2, cell="lstm")
    x, u, w = normal(BATCH, 4, FEATURES), *states(model, 2)
    computed = backpropagate(model, x, u, w)[2]
    tensors, expected = {**model.weights, "initial_state": u, "inputs": x}, {}
    for name, tensor in tensors.items():
        expected[name] = np.empty_like(tensor)
        for entry in np.ndindex(tensor.shape):
            kept, sides = tensor[entry], []
            for shift in (1e-5, -1e-5):
                tensor[entry] = kept + shift
                sides.append(np.sum(w * backpropagate(model, x, u, w)[0].final_state()))
            tensor[entry] = kept
            expected[name][entry] = (sides[0] - sides[1]) / 2e-5
    assert_same_gradients(computed, expected, 1e-8)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("coarsening", [2, 4, 8])
@pytest.mark.parametrize(("num_steps", "masked"), [(24, "whole"), (97, "holes"), (128, "padded")])
class TestParallelInTime:
    def test_equals_serial_backpropagation(self, num_steps, masked, coarsening, levels, cell):
        model, mask = make_remembering(layers=2, cell=cell), mask_of(masked, num_steps)
        x, u, w = normal(BATCH, num_steps, FEATURES), *states(model, 2)
        serial, exact, expected = backpropagate(model, x, u, w, mask=mask)
        options = parallel(levels, coarsening, tolerance=1e-13)
        result, adjoint, computed = backpropagate(model, x, u, w, options, mask=mask)
        assert result.status is adjoint.status is Status.CONVERGED
        np.testing.assert_allclose(result.u, serial.u, rtol=0, atol=1e-12)
        np.testing.assert_allclose(adjoint.w, exact.w, rtol=0, atol=1e-11)
        assert_same_gradients(computed, expected, 1e-10)

    def test_in_single_precision(self, num_steps, masked, coarsening, levels, cell):
        model = make_remembering(layers=2, cell=cell, dtype=np.float32)
        mask = mask_of(masked, num_steps)
        x, u, w = normal(BATCH, num_steps, FEATURES, dtype=np.float32), *states(model, 2)
        serial, _, expected = backpropagate(model, x, u, w, mask=mask)
        options = parallel(levels, coarsening, max_iterations=12)
        result, _, computed = backpropagate(model, x, u, w, options, mask=mask)
        scale = np.abs(serial.u).max()  # c of the long short-term memory grows to 50
        np.testing.assert_allclose(result.u, serial.u, rtol=0, atol=1e-6 * scale)
        assert_same_gradients(computed, expected, 1e-4)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize(("cell", "kind"), CASES)
def test_every_kind_of_coarse_step_converges_to_serial_backpropagation(cell, kind, masked):
    model, mask = make_remembering(layers=3, cell=cell, coarse_step=kind), mask_of(masked, 37)
    x, u, w = normal(BATCH, 37, FEATURES), *states(model, 2)
    expected = backpropagate(model, x, u, w, mask=mask)[2]
    options = parallel(3, (4, 2), tolerance=1e-13)
    result, adjoint, computed = backpropagate(model, x, u, w, options, mask=mask, recording=True)
    assert result.status is adjoint.status is Status.CONVERGED
    assert_same_gradients(computed, expected, 1e-10)


@pytest.mark.parametrize("num_steps", [97, 128])
class TestFewIterations:
    """What 3 forward and 2 backward iterations reach."""

    @staticmethod
    def error(num_steps, noise=0.0, **model):
        model = make_remembering(layers=2, **model)
        t = np.arange(num_steps)[:, None]
        x = 2 * np.sin(2 * np.pi * t / 32 + normal(BATCH, 1, FEATURES))
        x += noise * normal(BATCH, num_steps, FEATURES, seed=7)
        u, w = states(model, 2)
        expected = backpropagate(model, x, u, w)[2]
        forward, backward = (parallel(3, 4, max_iterations=count) for count in (3, 2))
        _, adjoint, computed = backpropagate(model, x, u, w, (forward, backward))
        assert adjoint.status is Status.COMPLETED
        return max(
            np.abs(computed[name] - tensor).max() / np.abs(tensor).max()
            for name, tensor in expected.items()
        )

    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("kind", ["midpoint", "averaged"])
    def test_smooth_inputs(self, num_steps, cell, kind):
        assert self.error(num_steps, cell=cell, coarse_step=kind, substep=4) < 0.03

    def test_the_published_coarse_step(self, num_steps):
        assert self.error(num_steps, coarse_step="implicit") > 0.2

    @pytest.mark.parametrize("kind", ["midpoint", "averaged"])
    def test_parts_of_two_are_the_fine_steps(self, num_steps, kind):
        """Nothing is left to iterate, whatever the inputs."""
        assert self.error(num_steps, noise=1.0, coarse_step=kind, substep=2) < 1e-12


def test_chosen_c_points_are_refused():
    model = Recurrence(RecurrenceOptions(num_features=1, hidden=2))
    step = Step(1, np.zeros(2), np.ones(2), np.array([1, 3]), np.array([2, 5]))
    with pytest.raises(ValueError, match="recurrent layers need coarsening factors"):
        model.step(np.zeros((2, 1, 1, 2)), step)


def test_few_intervals_are_chained_and_their_derivatives_recorded(monkeypatch):
    """Two intervals of 16 steps: chains in place of stacks, and nothing evaluated twice."""
    calls = {"chain": 0, "stack": 0}
    chain, advance = Recurrence.chain, Recurrence._advance

    def counted_chain(self, u, step, g, out):
        calls["chain"] += step.level == 0
        return chain(self, u, step, g, out)

    def counted_advance(self, u, g, reads, *rest, is_chain=False):
        calls["stack"] += u.shape[0] * (reads.table[0].span == 1 and not is_chain)
        return advance(self, u, g, reads, *rest, is_chain=is_chain)

    monkeypatch.setattr(Recurrence, "chain", counted_chain)
    monkeypatch.setattr(Recurrence, "_advance", counted_advance)
    options = MGRITOptions(levels=2, coarsening=16, relax=0, min_coarse=1, max_iterations=3)
    model, exact = make(layers=2), make(layers=2)
    x, u, w = normal(BATCH, 32, FEATURES), *states(model, 2)
    actual = backpropagate(model, x, u, w, (options, options), recording=True)[2]
    # In each of three forward cycles two chains; the adjoint's are of a tape.
    assert calls["chain"] == 6
    # A trial step, the residuals of two cycles, and the steps to C-points, which no chain takes.
    assert calls["stack"] <= 1 + 2 * 2 + 2
    one_level = MGRITOptions(levels=1)
    assert_same_gradients(actual, backpropagate(exact, x, u, w, (one_level, one_level))[2], 1e-10)
