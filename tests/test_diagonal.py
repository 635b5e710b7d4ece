"""Diagonals of derivatives in the place of coarse steps."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, Delta, MGRITOptions, Propagator, check_propagator
from pint.check import ContractError
from tests.engine_models import Drift, Swirl, stepped, uneven_times
from tests.recurrent_models import (
    BATCH,
    CELLS,
    FEATURES,
    LAYERS,
    MASKS,
    assert_same_gradients,
    backpropagate,
    make,
    make_remembering,
    mask_of,
    normal,
    reference_steps,
    stack,
    states,
)
from tests.recurrent_reference import derivative

FIRST = {"delta": Delta("diagonal"), "skip_first_down": False}


class Own(Swirl):
    """Swirl with the diagonals of its derivatives."""

    def diagonal(self, u, step):
        Q, W = self.matrices(step)
        slopes = self.slope(np.ones_like(u), u, step)
        return np.diagonal(Q) + slopes * np.diagonal(W)


class Apart(Propagator):
    """Each entry on its own; coarse steps have nothing to do with the fine ones."""

    state_shape, dtype = (3,), np.dtype(float)
    SHIFTS = np.array([0.3, 1.0, -0.4])

    def __init__(self, batched=False):
        self.batched = batched

    def step(self, u, step):
        return -u if step.level else u + 0.3 * np.sin(self.angle(u, step))

    def diagonal(self, u, step):
        return 1 + 0.3 * np.cos(self.angle(u, step))

    def adjoint_step(self, w, u, step):
        return -w if step.level else w * self.diagonal(u, step)

    def angle(self, u, step):
        return u + self.SHIFTS + 9 * np.asarray(step.stop)[..., None]


TIMES = uneven_times(48)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("driver", ["loop", "auto"])
@pytest.mark.parametrize("levels", [2, 3])
def test_newton_where_entries_are_apart(levels, driver, batched):
    """Diagonals are all there is: errors are squared by each cycle, whatever coarse steps do."""
    model = Apart(batched)
    exact = stepped(model, TIMES, np.zeros(3))
    errors = []
    for cycles in range(1, 7):
        options = MGRITOptions(
            levels=levels, coarsening=4, relax=0, max_iterations=cycles, driver=driver, **FIRST
        )
        errors.append(np.abs(MGRIT(model, TIMES, options).solve(np.zeros(3), 0.5).u - exact).max())
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-13
    squared = [(a, b) for a, b in pairwise(errors) if 1e-6 < a < 1e-1]
    assert squared
    assert all(b < 5 * a * a for a, b in squared)


def test_adjoint_of_entries_apart_takes_one_cycle():
    """It is linear, and its diagonals are exact."""
    exact_options = MGRITOptions(levels=1)
    forward = MGRIT(Apart(), TIMES, exact_options)
    result, w = forward.solve(np.zeros(3)), np.array([1.0, -2.0, 0.5])
    expected = AdjointSolver(forward).solve(result, w).initial_gradient
    assert np.abs(expected).max() > 1e-6
    options = MGRITOptions(levels=3, coarsening=4, max_iterations=1, **FIRST)
    got = AdjointSolver(forward, options).solve(result, w)
    np.testing.assert_allclose(got.initial_gradient, expected, rtol=1e-12)


@pytest.mark.parametrize("levels", [2, 3])
def test_no_coarse_step_of_the_model_is_taken(levels):
    """But for the first cycle with skip_first_down, which has no fine states yet."""

    class Watched(Own):
        coarse = 0

        def step(self, u, step):
            Watched.coarse += step.level > 0
            return super().step(u, step)

    options = MGRITOptions(levels=levels, coarsening=4, max_iterations=3, driver="loop", **FIRST)
    for skips, expected in ((False, False), (True, True)):
        solver = MGRIT(Watched(), TIMES, replace(options, skip_first_down=skips))
        solver.solve(np.ones(3))  # tries a step on each level
        Watched.coarse = 0
        solver.solve(np.ones(3))
        assert (Watched.coarse > 0) == expected


@pytest.mark.parametrize(("relax", "cycles"), [(0, 12), (1, 6)])
def test_exact_after_as_many_cycles_as_for_any_coarse_step(relax, cycles):
    """N / m cycles of F-relaxation, N / 2 m of FCF; not one fewer."""
    model = Own(gain=1.0)
    exact = stepped(model, TIMES, np.ones(3))
    for count, is_exact in ((cycles, True), (cycles - 1, False)):
        options = MGRITOptions(
            levels=2, coarsening=4, relax=relax, max_iterations=count, driver="loop", **FIRST
        )
        error = np.abs(MGRIT(model, TIMES, options).solve(np.ones(3)).u - exact).max()
        assert (error < 1e-12) == is_exact


def test_storage_of_c_points_changes_nothing():
    options = MGRITOptions(levels=3, coarsening=4, max_iterations=3, driver="loop", **FIRST)
    full = MGRIT(Own(0.7), TIMES, options).solve(np.ones(3))
    kept = MGRIT(Own(0.7), TIMES, replace(options, storage="c_points")).solve(np.ones(3))
    np.testing.assert_allclose(kept.u, full.u[::4], rtol=1e-13)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="Swirl has none: write diagonal"):
        MGRIT(Swirl(), TIMES, MGRITOptions(delta=Delta("diagonal")))
    forward = MGRIT(Swirl(), TIMES, MGRITOptions(levels=1))
    with pytest.raises(ValueError, match="Swirl has none: write diagonal"):
        AdjointSolver(forward, MGRITOptions(delta=Delta("diagonal")))

    class Spread(Drift):
        def diagonal(self, u, step):
            return u

    with pytest.raises(ValueError, match="states of one shape on all levels"):
        MGRIT(Spread(), TIMES, MGRITOptions(delta=Delta("diagonal"))).solve(np.ones(15))


@pytest.mark.parametrize("batched", [False, True])
def test_check_propagator(batched):
    """A wrong entry is found, whichever of the three it is."""
    assert "diagonal on level 0" in check_propagator(Apart(batched))
    for wrong in range(3):

        class Wrong(Apart):
            def diagonal(self, u, step, wrong=wrong):
                right = super().diagonal(u, step)
                right[..., wrong] += 0.1
                return right

        with pytest.raises(ContractError, match="diagonal on level 0 differs from central diff"):
            check_propagator(Wrong(batched))


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_layers(cell, layers, masked):
    """Entry by entry, against the derivative of the reference in the direction of that entry."""
    model = make(layers, cell)
    step = stack([1, 24, 17], 1)
    x, mask = normal(BATCH, 24, FEATURES), mask_of(masked, 24)
    model.set_inputs(x, model.input_windows(step), mask)
    u = states(model, 3)
    got = model.diagonal(u, step)
    assert got.shape == u.shape
    for layer in range(layers):
        for unit in range(u.shape[-1]):
            v = np.zeros_like(u)
            v[:, layer, :, unit] = 1
            expected = derivative(lambda u: reference_steps(model, x, mask, u, step), u, v)
            np.testing.assert_allclose(
                got[:, layer, :, unit], expected[:, layer, :, unit], rtol=1e-11, atol=1e-13
            )


@pytest.mark.parametrize("cell", CELLS)
def test_recorded_steps_are_not_evaluated_again(cell, monkeypatch):
    model, x = make(2, cell), normal(BATCH, 8, FEATURES)
    step = stack(np.arange(1, 9), 1)
    model.set_inputs(x, model.input_windows(step))
    u = states(model, 8)
    expected = model.diagonal(u, step)
    model.recording = True
    model.step(u, step)
    model.recording = False
    monkeypatch.setattr(model, "_advance", None)  # evaluates what no tape has
    np.testing.assert_array_equal(model.diagonal(u, step), expected)


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_recurrent_layers(cell, masked):
    """Exact after the first cycle and one for each interval."""
    model, num_steps = make_remembering(layers=2, cell=cell), 32
    x, mask = normal(BATCH, num_steps, FEATURES), mask_of(masked, num_steps)
    u, w = states(model, 1)[0], states(model, 1, 3)[0]
    _, _, expected = backpropagate(model, x, u, w, mask=mask)
    options = MGRITOptions(
        levels=3, coarsening=4, relax=0, max_iterations=9, delta=Delta("diagonal")
    )
    _, _, got = backpropagate(model, x, u, w, (options, options), mask)
    assert_same_gradients(got, expected, 1e-10)
