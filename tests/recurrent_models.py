"""Small recurrent models, and how their tests solve, differentiate and compare."""

import numpy as np

from pint import MGRIT, AdjointSolver, MGRITOptions, Step, TimeGrid
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.tape import stale_steps
from tests.recurrent_reference import Reference, Sequences

FEATURES, HIDDEN, BATCH = 2, 3, 3
CELLS = ["implicit", "classic", "lstm"]
CASES = [("implicit", "implicit")] + [
    (cell, kind) for cell in CELLS for kind in ("matched", "midpoint", "averaged")
]
LAYERS = [1, 2, 3]
MASKS = ["whole", "padded", "holes"]


def make(layers=1, cell="implicit", dtype=np.float64, coarse_step="averaged", substep=8, seed=0):
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
    model = Recurrence(options, seed=seed)
    model.parameters *= 2
    return model


def make_remembering(**options):
    """A model that forgets little, so that gradients reach back over some hundred points."""
    model = make(**options)
    for layer in range(model.options.layers):
        model.weights[f"bias_ih_l{layer}"][HIDDEN : 2 * HIDDEN] += 4  # of z, or of f
    return model


def normal(*shape, seed=1, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def mask_of(kind, num_steps, batch=BATCH):
    """None; sequences that end early; or holes anywhere, one sequence beginning with a long one."""
    rng = np.random.default_rng(num_steps)
    if kind == "whole":
        return None
    if kind == "padded":
        lengths = rng.integers(1, num_steps + 1, batch)
        lengths[0] = num_steps
        return np.arange(num_steps) < lengths[:, None]
    mask = rng.random((batch, num_steps)) < 0.6
    mask[-1, : num_steps // 2] = False
    mask[:, -1] = rng.random(batch) < 0.5
    mask[0, num_steps // 2] = True
    return mask


def stack(last, num_fine, level=0):
    """The steps that cover `num_fine` finest steps each and end at the points `last`."""
    last = np.asarray(last)
    first = last - num_fine + 1
    return Step(level, first - 1.0, last * 1.0, first, last)


def states(model, n, seed=2, batch=BATCH):
    shape = n, model.options.layers, batch, model.cell.num_states * model.options.hidden
    return normal(*shape, seed=seed, dtype=model.dtype)


def reference_of(model, weights=None, level=1):
    options, weights = model.options, model.weights if weights is None else weights
    substep = options.substep
    if isinstance(substep, tuple):
        substep = substep[min(max(level - 1, 0), len(substep) - 1)]
    return Reference(weights, options.cell, options.coarse_step, substep)


def reference_steps(model, x, mask, u, step, weights=None):
    """Reference for a stack of steps: (n, layers, B, W)."""
    reference, sequences = reference_of(model, weights, step.level), Sequences(x, mask)
    lengths = zip(step.last.tolist(), step.num_fine.tolist(), strict=True)
    return np.stack([reference.step(sequences, u[row], *m) for row, m in enumerate(lengths)])


def solvers(model, num_steps, forward=None, backward=None):
    """Forward and adjoint solver; by time stepping by default."""
    forward = MGRITOptions(levels=1) if forward is None else forward
    solver = MGRIT(model, TimeGrid.uniform(0, num_steps, num_steps), forward)
    return solver, AdjointSolver(solver, backward)


def windows_of(solver, adjoint_solver):
    """The inputs that this rank reads, forwards or backwards, on any level."""
    model = solver.propagator
    stacks = solver.hierarchy.own_steps() + adjoint_solver.own_steps()
    read = [model.input_windows(stack) for stack in stacks if stack.last.size]
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *read])


def backpropagate(model, x, u, w, options=None, mask=None, *, recording=False):
    """Solve for J = <w, u_N>: both results; gradients of parameters, u_0 and inputs by name.

    `options` are for the forward solve, or a pair for both.
    """
    both = options if isinstance(options, tuple) else (options, None)
    solver, adjoint_solver = solvers(model, x.shape[1], *both)
    model.set_inputs(x, windows_of(solver, adjoint_solver), mask)
    model.recording = recording
    result = solver.solve(u)
    model.recording = False
    model.discard(stale_steps(solver))
    model.input_gradient = np.full(x.shape, np.nan, model.dtype)
    adjoint = adjoint_solver.solve(result, w)
    gradients = {
        **by_name(model, adjoint.parameter_gradient),
        "initial_state": adjoint.initial_gradient,
        "inputs": model.input_gradient,
    }
    model.input_gradient = None
    return result, adjoint, gradients


def by_name(model, flat):
    """Cut a flat vector into tensors, without the code under test."""
    named, start = {}, 0
    for name, tensor in model.weights.items():
        named[name] = flat[start : start + tensor.size].reshape(tensor.shape)
        start += tensor.size
    assert start == flat.size
    return named


def assert_same_gradients(actual, expected, rtol):
    """Each tensor by name, relative to its greatest entry."""
    assert set(actual) == set(expected)
    for name, tensor in expected.items():
        assert actual[name].shape == tensor.shape, name
        scale = np.abs(tensor).max()
        assert scale > 1e-3, name  # a gradient of zero would prove nothing
        assert np.abs(actual[name] - tensor).max() < rtol * scale, name
