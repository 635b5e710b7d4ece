"""Stacks of gated recurrent units against torch, complex steps and central differences."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Status, Step, TimeGrid
from pint.rnn.recurrence import Recurrence, RecurrenceOptions
from tests import gru_reference as reference

FEATURES, HIDDEN, BATCH = 2, 3, 2
KINDS = [("implicit", kind) for kind in ("implicit", "matched", "midpoint")] + [
    ("classic", kind) for kind in ("matched", "midpoint")
]
LAYERS = [1, 2, 3]


def make(layers=1, cell="implicit", dtype=np.float64, coarse_step="midpoint", substep=8, seed=0):
    """A model with weights large enough for gates that open and close."""
    options = RecurrenceOptions(
        num_features=FEATURES,
        hidden=HIDDEN,
        layers=layers,
        cell=cell,
        coarse_step=coarse_step,
        substep=substep,
        dtype=dtype,
    )
    gru = Recurrence(options, seed=seed)
    gru.parameters *= 2
    return gru


def make_remembering(**options):
    """A model with gates nearly shut, so that gradients reach back over some hundred points."""
    gru = make(**options)
    for layer in range(gru.options.layers):
        gru.weights[f"bias_ih_l{layer}"][HIDDEN : 2 * HIDDEN] += 4
    return gru


def normal(*shape, seed=1, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def stack(last, num_fine, level=0):
    """The steps that cover `num_fine` finest steps each and end at the points `last`."""
    last = np.asarray(last)
    first = last - num_fine + 1
    return Step(level, first - 1.0, last * 1.0, first, last)


def states(gru, n, seed=2):
    return normal(n, gru.options.layers, BATCH, HIDDEN, seed=seed, dtype=gru.dtype)


def reference_step(gru, weights, sequence, u, step):
    """Reference for a stack of steps: (n, layers, B, H)."""
    options, kind = gru.options, (gru.options.cell, gru.options.coarse_step)
    substep = options.substep
    if isinstance(substep, tuple):
        substep = substep[min(max(step.level - 1, 0), len(substep) - 1)]
    rows = [
        reference.coarse_step(weights, *kind, substep, sequence, u[row], last, step.num_fine[row])
        for row, last in enumerate(step.last)
    ]
    return np.stack(rows)


def solvers(gru, num_steps, forward=None, backward=None):
    """Forward and adjoint solver; by time stepping unless told otherwise."""
    forward = MGRITOptions(levels=1) if forward is None else forward
    solver = MGRIT(gru, TimeGrid.uniform(0, num_steps, num_steps), forward)
    return solver, AdjointSolver(solver, backward)


def backpropagate(gru, sequence, u, w, forward=None, backward=None):
    """Solve for J = <w, u_N>: the result, and the gradients by name with that of u_0."""
    gru.set_inputs(sequence)
    solver, adjoint_solver = solvers(gru, sequence.shape[1], forward, backward)
    result = solver.solve(u)
    adjoint = adjoint_solver.solve(result, w)
    return result, adjoint, by_name(gru, adjoint)


def by_name(gru, adjoint):
    named = {"initial_state": adjoint.initial_gradient}
    start = 0
    for name, tensor in gru.weights.items():
        entries = adjoint.parameter_gradient[start : start + tensor.size]
        named[name] = entries.reshape(tensor.shape)
        start += tensor.size
    assert start == adjoint.parameter_gradient.size
    return named


def assert_same_gradients(actual, expected, rtol):
    """Each tensor by name, relative to its greatest entry."""
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert actual[name].shape == tensor.shape, name
        scale = np.abs(tensor).max()
        assert scale > 1e-3, name  # a gradient of zero would prove nothing
        assert np.abs(actual[name] - tensor).max() < rtol * scale, name


def import_torch():
    return pytest.importorskip(
        "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
    )


def torch_gru(torch, gru):
    """torch's own GRU, with random parameters that `gru` takes over as they are."""
    options = gru.options
    torch.manual_seed(3)
    dtype = torch.float64 if gru.dtype == np.float64 else torch.float32
    model = torch.nn.GRU(
        FEATURES, HIDDEN, options.layers, batch_first=True, dtype=dtype, device="cpu"
    )
    for name, tensor in model.state_dict().items():
        gru.weights[name][...] = tensor.numpy()
    return model


def torch_implicit_gru(torch, weights, x, h):
    """The implicit unit in torch's operations: all states of the top layer, and the last ones."""
    h, top = list(h), []
    for t in range(x.shape[1]):
        below = x[:, t]
        for layer in range(len(h)):
            gi = below @ weights[f"weight_ih_l{layer}"].T + weights[f"bias_ih_l{layer}"]
            gh = h[layer] @ weights[f"weight_hh_l{layer}"].T + weights[f"bias_hh_l{layer}"]
            (i_r, i_z, i_n), (h_r, h_z, h_n) = gi.chunk(3, dim=1), gh.chunk(3, dim=1)
            a = 1 - torch.sigmoid(i_z + h_z)
            n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
            h[layer] = below = (h[layer] + a * n) / (1 + a)
        top.append(below)
    return torch.stack(top, dim=1), torch.stack(h)


def torch_solution(torch, gru, sequence, u, w):
    """torch's outputs and gradients of <w, h_n>, for weights that `gru` has too."""
    x, h = torch.tensor(sequence), torch.tensor(u, requires_grad=True)
    if gru.options.cell == "classic":
        model = torch_gru(torch, gru)
        weights = dict(model.named_parameters())
        outputs, h_n = model(x, h)
    else:
        weights = {k: torch.tensor(v, requires_grad=True) for k, v in gru.weights.items()}
        outputs, h_n = torch_implicit_gru(torch, weights, x, h)
    (h_n * torch.tensor(w)).sum().backward()
    gradients = {name: tensor.grad.numpy() for name, tensor in weights.items()}
    return outputs.detach().numpy(), h_n.detach().numpy(), {
        **gradients, "initial_state": h.grad.numpy()
    }  # fmt: skip


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", ["classic", "implicit"])
class TestAgainstTorch:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
    def test_states(self, cell, layers, dtype, tolerance):
        torch = import_torch()
        gru = make(layers, cell, dtype)
        x, u, w = normal(BATCH, 20, FEATURES, dtype=dtype), *states(gru, 2)
        outputs, h_n, _ = torch_solution(torch, gru, x, u, w)
        gru.set_inputs(x)
        result = solvers(gru, 20)[0].solve(u)
        assert result.status is Status.STEPPED
        assert result.u.dtype == dtype
        np.testing.assert_allclose(result.u[1:, -1].swapaxes(0, 1), outputs, rtol=0, atol=tolerance)
        np.testing.assert_allclose(result.final_state(), h_n, rtol=0, atol=tolerance)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
    def test_every_gradient_by_name(self, cell, layers, dtype, tolerance):
        torch = import_torch()
        gru = make(layers, cell, dtype)
        x, u, w = normal(BATCH, 6, FEATURES, dtype=dtype), *states(gru, 2)
        _, _, expected = torch_solution(torch, gru, x, u, w)
        _, adjoint, gradients = backpropagate(gru, x, u, w)
        assert adjoint.parameter_gradient.dtype == dtype
        assert_same_gradients(gradients, expected, tolerance)


def test_the_flat_vector_is_that_of_torch():
    torch = import_torch()
    gru = make(layers=2, cell="classic")
    model = torch_gru(torch, gru)
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_array_equal(gru.parameters, flat)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("cell", ["classic", "implicit"])
class TestTimeStepping:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
    def test_trajectory(self, cell, layers, dtype, tolerance):
        gru = make(layers, cell, dtype)
        x, (u,) = normal(BATCH, 20, FEATURES, dtype=dtype), states(gru, 1)
        gru.set_inputs(x)
        result = solvers(gru, 20)[0].solve(u)
        expected = reference.trajectory(gru.weights, cell, x, u)
        np.testing.assert_allclose(result.u, expected, rtol=0, atol=tolerance)

    def test_gradients_against_complex_steps(self, cell, layers):
        gru = make(layers, cell)
        x, u, w = normal(BATCH, 4, FEATURES), *states(gru, 2)

        def loss(named):
            weights = {name: named[name] for name in gru.weights}
            return np.sum(w * reference.trajectory(weights, cell, x, named["initial_state"])[-1])

        expected = reference.gradients(loss, {**gru.weights, "initial_state": u})
        assert_same_gradients(backpropagate(gru, x, u, w)[2], expected, 1e-13)

    def test_gradients_against_central_differences(self, cell, layers):
        gru = make(layers, cell)
        x, u, w = normal(BATCH, 4, FEATURES), *states(gru, 2)
        gradients = backpropagate(gru, x, u, w)[2]
        solver = solvers(gru, 4)[0]

        def loss():
            gru.set_inputs(x)
            return np.sum(w * solver.solve(u).final_state())

        expected = central_differences(loss, {**gru.weights, "initial_state": u})
        assert_same_gradients(gradients, expected, 1e-8)


def central_differences(loss, tensors, width=1e-5):
    """Gradient of loss() by each entry of the tensors, which it reads; they end as they began."""
    gradients = {}
    for name, tensor in tensors.items():
        gradients[name] = np.empty_like(tensor)
        for entry in np.ndindex(tensor.shape):
            kept, sides = tensor[entry], []
            for shift in (width, -width):
                tensor[entry] = kept + shift
                sides.append(loss())
            tensor[entry] = kept
            gradients[name][entry] = (sides[0] - sides[1]) / (2 * width)
    return gradients


@pytest.mark.parametrize(("cell", "kind"), KINDS)
class TestCoarseSteps:
    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("substep", [1, 3, 4, 8])
    @pytest.mark.parametrize("num_fine", [2, 3, 4, 7, 8, 16])
    def test_against_the_reference(self, cell, kind, num_fine, substep, layers):
        gru = make(layers, cell, coarse_step=kind, substep=substep)
        x, u = normal(BATCH, 24, FEATURES), states(gru, 3)
        gru.set_inputs(x)
        step = stack([num_fine, 24, 20], num_fine, level=1)
        expected = reference_step(gru, gru.weights, x, u, step)
        np.testing.assert_allclose(gru.step(u, step), expected, rtol=0, atol=1e-14)

    def test_in_single_precision(self, cell, kind):
        gru = make(2, cell, np.float32, coarse_step=kind)
        x, u = normal(BATCH, 24, FEATURES, dtype=np.float32), states(gru, 3)
        gru.set_inputs(x)
        step = stack([16, 24, 20], 16, level=2)
        expected = reference_step(gru, gru.weights, x, u, step)
        assert gru.step(u, step).dtype == np.float32
        np.testing.assert_allclose(gru.step(u, step), expected, rtol=0, atol=1e-5)

    def test_substep_of_each_level(self, cell, kind):
        gru = make(1, cell, coarse_step=kind, substep=(4, 2))
        x, u = normal(BATCH, 16, FEATURES), states(gru, 1)
        gru.set_inputs(x)
        for level, substep in ((1, 4), (2, 2), (3, 2)):
            same = make(1, cell, coarse_step=kind, substep=substep)
            same.set_inputs(x)
            step = stack([16], 8, level)
            np.testing.assert_array_equal(gru.step(u, step), same.step(u, step))

    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("num_fine", [2, 3, 7, 16])
    def test_exact_while_gates_do_not_change(self, cell, kind, num_fine, layers):
        gru = make(layers, cell, coarse_step=kind)
        for name, tensor in gru.weights.items():
            if name.startswith("weight") and name != "weight_ih_l0":
                tensor[...] = 0
        gru.set_inputs(np.repeat(normal(BATCH, 1, FEATURES), 20, axis=1))
        u = states(gru, 2)
        coarse = gru.step(u, stack([num_fine, 20], num_fine, level=1))
        fine = u
        for i in range(num_fine):
            fine = gru.step(fine, stack([i + 1, 21 - num_fine + i], 1))
        error = np.abs(coarse - fine).max()
        assert error > 1e-3 if kind == "implicit" else error < 1e-14


@pytest.mark.parametrize(("cell", "kind"), KINDS)
class TestAdjoint:
    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("substep", [8, (3, 5)])
    @pytest.mark.parametrize(("level", "num_fine"), [(0, 1), (1, 4), (2, 16)])
    def test_identity(self, cell, kind, level, num_fine, substep, layers):
        """<w, J v> = <adjoint_step(w, u), v>."""
        gru = make(layers, cell, coarse_step=kind, substep=substep)
        x = normal(BATCH, 20, FEATURES)
        gru.set_inputs(x)
        step = stack([num_fine, 20, 17], num_fine, level)
        u, v, w = (states(gru, 3, seed) for seed in (2, 3, 4))
        Jv = reference.derivative(lambda u: reference_step(gru, gru.weights, x, u, step), u, v)
        left, right = w * Jv, gru.adjoint_step(w, u, step) * v
        assert abs(left.sum() - right.sum()) < 1e-12 * np.abs(left).sum()
        by_point = left.sum(axis=(1, 2, 3)) - right.sum(axis=(1, 2, 3))
        assert np.abs(by_point).max() < 1e-12 * np.abs(left).sum()

    @pytest.mark.parametrize(("level", "num_fine"), [(0, 1), (1, 4), (2, 16)])
    def test_identity_in_single_precision(self, cell, kind, level, num_fine):
        gru = make(2, cell, np.float32, coarse_step=kind)
        x = normal(BATCH, 20, FEATURES, dtype=np.float32)
        gru.set_inputs(x)
        step = stack([num_fine, 20, 17], num_fine, level)
        u, v, w = (states(gru, 3, seed) for seed in (2, 3, 4))
        wide = {name: tensor.astype(np.float64) for name, tensor in gru.weights.items()}
        Jv = reference.derivative(
            lambda u: reference_step(gru, wide, x, u, step), u.astype(np.float64), v
        )
        adjoint = gru.adjoint_step(w, u, step)
        assert adjoint.dtype == np.float32
        assert abs((w * Jv).sum() - (adjoint * v).sum()) < 1e-5 * np.abs(w * Jv).sum()

    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize(("level", "num_fine"), [(0, 1), (1, 4), (2, 7)])
    def test_parameter_gradient(self, cell, kind, level, num_fine, layers):
        gru = make(layers, cell, coarse_step=kind, substep=4)
        x = normal(BATCH, 9, FEATURES)
        gru.set_inputs(x)
        step = stack([9, num_fine], num_fine, level)
        u, w = states(gru, 2, 2), states(gru, 2, 3)

        def product(weights):
            return np.sum(w * reference_step(gru, weights, x, u, step))

        expected = reference.gradients(product, gru.weights)
        flat = np.concatenate([tensor.ravel() for tensor in expected.values()])
        assert list(expected) == list(gru.shapes)
        np.testing.assert_allclose(gru.adjoint_gradient(w, u, step), flat, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("layers", LAYERS)
    @pytest.mark.parametrize("rows", [slice(0, 1, 1), slice(2, 5, 1), slice(1, 6, 2)])
    def test_rows_of_a_linearization(self, cell, kind, rows, layers):
        gru = make(layers, cell, coarse_step=kind)
        gru.set_inputs(normal(BATCH, 24, FEATURES))
        step = stack([4, 8, 12, 16, 20, 24], 4, level=1)
        u, w = states(gru, 6, 2), states(gru, 6, 3)
        linearization = gru.linearize(u, step)
        everything = linearization.adjoint(w, slice(0, 6, 1))
        some = linearization.adjoint(w[rows], rows)
        np.testing.assert_allclose(some, everything[rows], rtol=0, atol=1e-14)
        again = linearization.adjoint(w, slice(0, 6, 1))
        np.testing.assert_array_equal(again, everything)

    def test_arguments_stay_unchanged(self, cell, kind):
        gru = make(2, cell, coarse_step=kind)
        x, u, w = normal(BATCH, 8, FEATURES), states(gru, 2, 2), states(gru, 2, 3)
        before = [array.copy() for array in (x, u, w, gru.parameters)]
        gru.set_inputs(x)
        step = stack([4, 8], 4, level=1)
        for new in (gru.step(u, step), gru.adjoint_step(w, u, step)):
            assert new.shape == u.shape
            new[...] = np.nan
        gru.adjoint_gradient(w, u, step)
        for array, old in zip((x, u, w, gru.parameters), before, strict=True):
            np.testing.assert_array_equal(array, old)


def parallel(levels, coarsening, **stopping):
    return MGRITOptions(levels=levels, coarsening=coarsening, relax=(0, 1), **stopping)


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("coarsening", [2, 4, 8])
@pytest.mark.parametrize("num_steps", [24, 97, 128])
class TestParallelInTime:
    def test_equals_serial_backpropagation(self, num_steps, coarsening, levels):
        gru = make_remembering(layers=2)
        x, u, w = normal(BATCH, num_steps, FEATURES), *states(gru, 2)
        serial, exact, expected = backpropagate(gru, x, u, w)
        options = parallel(levels, coarsening, tolerance=1e-13)
        result, adjoint, gradients = backpropagate(gru, x, u, w, options)
        assert result.status is adjoint.status is Status.CONVERGED
        np.testing.assert_allclose(result.u, serial.u, rtol=0, atol=1e-12)
        np.testing.assert_allclose(adjoint.w, exact.w, rtol=0, atol=1e-12)
        assert_same_gradients(gradients, expected, 1e-10)

    def test_in_single_precision(self, num_steps, coarsening, levels):
        gru = make_remembering(layers=2, dtype=np.float32)
        x, u, w = normal(BATCH, num_steps, FEATURES, dtype=np.float32), *states(gru, 2)
        serial, _, expected = backpropagate(gru, x, u, w)
        options = parallel(levels, coarsening, max_iterations=12)
        result, _, gradients = backpropagate(gru, x, u, w, options)
        np.testing.assert_allclose(result.u, serial.u, rtol=0, atol=1e-5)
        assert_same_gradients(gradients, expected, 1e-4)


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_every_kind_of_coarse_step_converges_to_serial_backpropagation(cell, kind):
    gru = make_remembering(layers=3, cell=cell, coarse_step=kind)
    x, u, w = normal(BATCH, 37, FEATURES), *states(gru, 2)
    _, _, expected = backpropagate(gru, x, u, w)
    options = parallel(3, (4, 2), tolerance=1e-13)
    result, adjoint, gradients = backpropagate(gru, x, u, w, options)
    assert result.status is adjoint.status is Status.CONVERGED
    assert_same_gradients(gradients, expected, 1e-10)


@pytest.mark.parametrize("num_steps", [97, 128])
class TestFewIterations:
    """What 3 forward and 2 backward iterations reach where inputs vary smoothly."""

    @staticmethod
    def error(num_steps, **model):
        gru = make_remembering(layers=2, **model)
        t = np.arange(num_steps)[:, None]
        x = 2 * np.sin(2 * np.pi * t / 32 + normal(BATCH, 1, FEATURES))
        u, w = states(gru, 2)
        _, _, expected = backpropagate(gru, x, u, w)
        forward, backward = (parallel(3, 4, max_iterations=count) for count in (3, 2))
        _, adjoint, gradients = backpropagate(gru, x, u, w, forward, backward)
        assert adjoint.status is Status.COMPLETED
        return max(
            np.abs(gradients[name] - tensor).max() / np.abs(tensor).max()
            for name, tensor in expected.items()
        )

    def test_midpoint(self, num_steps):
        assert self.error(num_steps) < 0.06

    def test_midpoint_with_substeps_of_two(self, num_steps):
        assert self.error(num_steps, substep=2) < 0.006

    def test_implicit(self, num_steps):
        assert self.error(num_steps, coarse_step="implicit") > 0.08


@pytest.mark.parametrize(("cell", "kind"), KINDS)
@pytest.mark.parametrize(
    ("level", "num_fine", "substep"), [(0, 1, 8), (1, 4, 8), (2, 16, 8), (1, 7, 3)]
)
class TestInputPoints:
    def test_are_exactly_what_steps_read(self, cell, kind, level, num_fine, substep):
        gru = make(1, cell, coarse_step=kind, substep=substep)
        step, u = stack([num_fine, 30], num_fine, level), states(gru, 2)
        points = gru.input_windows(step)
        assert (np.diff(points) > 0).all()
        x = np.full((BATCH, 32, FEATURES), np.nan)
        x[:, points - 1] = normal(BATCH, points.size, FEATURES)
        gru.set_inputs(x)
        assert np.isfinite(gru.step(u, step)).all()
        for point in points:
            spoilt = x.copy()
            spoilt[:, point - 1] = np.nan
            gru.set_inputs(spoilt)
            assert np.isnan(gru.step(u, step)).any()

    def test_are_enough_to_bind(self, cell, kind, level, num_fine, substep):
        gru = make(2, cell, coarse_step=kind, substep=substep)
        step, u, w = stack([num_fine, 30], num_fine, level), states(gru, 2, 2), states(gru, 2, 3)
        x = normal(BATCH, 32, FEATURES)
        gru.set_inputs(x)
        everything = gru.step(u, step), gru.adjoint_step(w, u, step)
        gradient = gru.adjoint_gradient(w, u, step)
        points = gru.input_windows(step)
        gru.set_inputs(x, points)
        assert gru.inputs.shape == (points.size, BATCH, FEATURES)
        some = gru.step(u, step), gru.adjoint_step(w, u, step)
        np.testing.assert_allclose(some, everything, rtol=0, atol=1e-14)
        np.testing.assert_allclose(gru.adjoint_gradient(w, u, step), gradient, rtol=0, atol=1e-13)

    def test_one_left_out_is_named(self, cell, kind, level, num_fine, substep):
        gru = make(1, cell, coarse_step=kind, substep=substep)
        step, u = stack([num_fine, 30], num_fine, level), states(gru, 2)
        points = gru.input_windows(step)
        for point in points:
            gru.set_inputs(normal(BATCH, 32, FEATURES), points[points != point])
            with pytest.raises(ValueError, match=rf"left out the input of finest step {point}$"):
                gru.step(u, step)
            with pytest.raises(ValueError, match=rf"left out the input of finest step {point}$"):
                gru.linearize(u, step)


class TestSetInputs:
    @pytest.mark.parametrize("shape", [(4, 9, FEATURES + 1), (9, FEATURES), (1, 4, 9, FEATURES)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=rf"\(batch, time, {FEATURES}\), got \({shape[0]}, "):
            make().set_inputs(np.zeros(shape))

    def test_sets_the_shape_of_the_states(self):
        gru = make(layers=3)
        for batch in (5, 2):
            gru.set_inputs(np.zeros((batch, 4, FEATURES)))
            assert gru.state_shape == (3, batch, HIDDEN)

    def test_converts_to_the_models_type(self):
        gru = make(dtype=np.float32)
        gru.set_inputs(np.zeros((BATCH, 4, FEATURES), dtype=np.int64))
        assert gru.inputs.dtype == np.float32
        assert gru.step(states(gru, 1), stack([4], 1)).dtype == np.float32

    @pytest.mark.parametrize("again", ["set_inputs", "refresh"])
    def test_takes_changed_parameters(self, again):
        gru, x, step = make(layers=2), normal(BATCH, 4, FEATURES), stack([3], 1)
        u = states(gru, 1)
        gru.set_inputs(x)
        gru.parameters += 0.25
        if again == "refresh":
            gru.refresh()
        else:
            gru.set_inputs(x)
        expected = reference_step(gru, gru.weights, x, u, step)
        np.testing.assert_allclose(gru.step(u, step), expected, rtol=0, atol=1e-14)


class TestParameters:
    def test_are_shared(self):
        options = RecurrenceOptions(num_features=FEATURES, hidden=HIDDEN, dtype=np.float64)
        flat = np.arange(3.0 * HIDDEN * (FEATURES + HIDDEN + 2))
        gru = Recurrence(options, flat)
        assert gru.parameters is flat
        gru.weights["bias_hh_l0"][-1] = -1
        assert flat[-1] == -1

    def test_are_drawn_by_seed(self):
        options = RecurrenceOptions(num_features=FEATURES, hidden=16)
        first, same, other = (Recurrence(options, seed=seed).parameters for seed in (1, 1, 2))
        assert first.dtype == np.float32
        np.testing.assert_array_equal(first, same)
        assert (first != other).any()
        assert 0.24 < np.abs(first).max() <= 0.25  # 16^(-1/2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_features": 0}, "num_features must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"layers": 1.5}, "layers must be an integer, got 1.5"),
        ({"substep": 0}, "substep must be at least 1, got 0"),
        ({"substep": (8, 0)}, "substep must be at least 1, got 0"),
        ({"cell": "lstm"}, "cell must be one of implicit, classic, got 'lstm'"),
        ({"coarse_step": "exact"}, "coarse_step must be one of .*, got 'exact'"),
        ({"cell": "classic", "coarse_step": "implicit"}, "needs cell 'implicit'; use 'midpoint'"),
        ({"dtype": np.float16}, "dtype must be float32 or float64, got float16"),
        ({"dtype": np.complex128}, "dtype must be float32 or float64, got complex128"),
    ],
)
def test_options_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        RecurrenceOptions(**{"num_features": FEATURES, **changes})


def test_sequences_shorter_than_the_grid_are_told():
    gru = Recurrence(RecurrenceOptions(num_features=2, hidden=3))
    grid = TimeGrid.uniform(0, 12, 12)
    with pytest.raises(ValueError, match="set_inputs was not called"):
        gru.step(np.zeros((1, 1, 4, 3), np.float32), grid.steps(slice(1, 2, 1)))
    gru.set_inputs(np.zeros((4, 10, 2)))
    with pytest.raises(ValueError, match="left out the input of finest step 11"):
        gru.step(np.zeros((2, 1, 4, 3), np.float32), grid.steps(slice(10, 12, 1)))


@pytest.mark.parametrize("points", [[0, 1], [2, 1], [1, 1], [1, 11]])
def test_points_must_be_steps_of_the_sequence(points):
    gru = Recurrence(RecurrenceOptions(num_features=2, hidden=3))
    with pytest.raises(ValueError, match=r"points must increase within 1\.\.10"):
        gru.set_inputs(np.zeros((4, 10, 2)), np.array(points))


@pytest.mark.parametrize("flat", [np.zeros(5, np.float32), np.zeros(63, np.float64)])
def test_parameters_must_fit(flat):
    with pytest.raises(ValueError, match="parameters must be 63 numbers of float32"):
        Recurrence(RecurrenceOptions(num_features=2, hidden=3), flat)


@pytest.mark.parametrize("layers", [1, 2])
def test_recorded_steps_are_not_evaluated_again_unless_states_changed(layers, monkeypatch):
    """A linearisation after recording equals one from scratch, also where a state has moved."""
    rng = np.random.default_rng(8)
    gru = Recurrence(RecurrenceOptions(num_features=2, hidden=3, layers=layers, dtype=np.float64))
    gru.set_inputs(rng.standard_normal((4, 6, 2)))
    steps = TimeGrid.uniform(0, 6, 6).steps(slice(1, 7, 1))
    u, w = rng.standard_normal((2, 6, *gru.state_shape))
    gru.recording = True
    gru.step(u[::2], steps.at(slice(0, 6, 2)))
    gru.step(u[1::2], steps.at(slice(1, 6, 2)))
    gru.recording = False
    moved = u.copy()
    moved[3] += 0.1
    ran = []
    run = gru._run
    monkeypatch.setattr(gru, "_run", lambda *given: ran.append(len(given[0])) or run(*given))
    recorded = gru.linearize(moved, steps)
    assert sum(ran) == 1  # only the state that moved
    fresh = gru.linearize(moved, steps)
    assert sum(ran) == 1 + 6  # a linearisation takes what was recorded with it
    every = slice(0, 6, 1)
    np.testing.assert_array_equal(recorded.adjoint(w, every), fresh.adjoint(w, every))
    np.testing.assert_array_equal(recorded.gradient(w), fresh.gradient(w))


def test_new_inputs_drop_what_was_recorded():
    rng = np.random.default_rng(8)
    gru = Recurrence(RecurrenceOptions(num_features=2, hidden=3, dtype=np.float64))
    steps = TimeGrid.uniform(0, 6, 6).steps(slice(1, 7, 1))
    x = rng.standard_normal((2, 4, 6, 2))
    gru.set_inputs(x[0])
    u, w = rng.standard_normal((2, 6, *gru.state_shape))
    gru.recording = True
    gru.step(u, steps)
    gru.recording = False
    gru.set_inputs(x[1])
    got = gru.linearize(u, steps).gradient(w)
    other = Recurrence(gru.options, gru.parameters)
    other.set_inputs(x[1])
    np.testing.assert_array_equal(got, other.linearize(u, steps).gradient(w))
