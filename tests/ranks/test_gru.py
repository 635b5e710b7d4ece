"""A recurrent network over the ranks: the states and gradients of one process, on any number."""

import numpy as np
import pytest

from pint import MGRIT, AdjointSolver, MGRITOptions, Status, TimeGrid
from pint.parallel.comm import world
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from tests.rank_choices import crossed

SERIAL = MGRITOptions(levels=1)
CELLS = ["implicit", "classic", "lstm"]


def cases():
    """Length, factor, levels, coarsest, cell, mask: all pairs of the first two on every size.

    What the others are depends on the number of ranks too: on 1, 2 and 3 ranks together every
    length meets every factor on every number of levels, and with every cell.
    """
    for i, num_steps in enumerate((24, 97, 128)):
        for j, coarsening in enumerate((2, 4, 8)):
            levels = 2 + (i + j + world().size) % 3
            coarsest = ("gather", "pipelined")[(3 * i + j + world().size) % 2]
            cell = CELLS[(i + 2 * j + world().size) % 3]
            yield num_steps, coarsening, levels, coarsest, cell, (i + j + world().size) % 2 == 1


def make(dtype=np.float64, layers=2, num_features=2, hidden=3, **options):
    """A model that forgets little, so that gradients reach back over some hundred points."""
    model = Recurrence(
        RecurrenceOptions(
            num_features=num_features, hidden=hidden, layers=layers, dtype=dtype, **options
        )
    )
    model.parameters *= 2
    for layer in range(layers):
        model.weights[f"bias_ih_l{layer}"][hidden : 2 * hidden] += 4  # of z, or of f
    return model


def problem(model, num_steps, batch=2):
    """Smooth sequences, u_0 and dJ/du_N, the same on every rank."""
    options, rng = model.options, np.random.default_rng(num_steps)
    phases = rng.standard_normal((batch, 1, options.num_features))
    x = 2 * np.sin(2 * np.pi * np.arange(num_steps)[:, None] / 32 + phases)
    width = model.cell.num_states * options.hidden
    u, w = rng.standard_normal((2, options.layers, batch, width))
    return x, u, w


def holes(num_steps, batch=2):
    """Where sequences have elements: one with holes, one that ends early."""
    mask = np.random.default_rng(3).random((batch, num_steps)) < 0.7
    mask[-1] = np.arange(num_steps) < 2 * num_steps // 3
    return mask


def own_windows(solver, adjoint_solver):
    """The inputs that this rank reads, forwards or backwards, on any level."""
    model = solver.propagator
    stacks = solver.hierarchy.own_steps() + adjoint_solver.own_steps()
    read = [model.input_windows(stack) for stack in stacks if stack.last.size]
    return np.unique(np.concatenate([np.zeros((0, 2), dtype=np.int64), *read]), axis=0)


def solve(model, num_steps, options, comm="world", batch=2, mask=None, record=False):
    """Forward and adjoint result; `options` may be a pair for both. Each rank binds its inputs."""
    forward, backward = options if isinstance(options, tuple) else (options, None)
    comm = world() if comm == "world" else comm
    x, u, w = problem(model, num_steps, batch)
    solver = MGRIT(model, TimeGrid.uniform(0, num_steps, num_steps), forward, comm)
    adjoint_solver = AdjointSolver(solver, backward)
    model.set_inputs(x, own_windows(solver, adjoint_solver), mask)
    model.recording = record
    result = solver.solve(u)
    model.recording = False
    return result, adjoint_solver.solve(result, w)


def in_parallel(levels, coarsening, coarsest="gather", **options):
    return MGRITOptions(
        levels=levels, coarsening=coarsening, coarsest=coarsest, relax=(0, 1), **options
    )


def assert_near(actual, expected, rtol):
    """Relative to the greatest entry."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = np.abs(expected).max()
    assert scale > 1e-3  # a gradient of zero would prove nothing
    assert np.abs(actual - expected).max() < rtol * scale


def assert_same_solution(actual, expected, rtol):
    """States, and both gradients, of a solve on all ranks and of one on one process."""
    (result, adjoint), (serial, exact) = actual, expected
    assert_near(result.gather(), serial.u, rtol)
    assert_near(adjoint.initial_gradient, exact.initial_gradient, rtol)
    assert_near(adjoint.parameter_gradient, exact.parameter_gradient, rtol)


@pytest.mark.parametrize(
    ("num_steps", "coarsening", "levels", "coarsest", "cell", "masked"), list(cases())
)
def test_enough_iterations_equal_backpropagation(
    num_steps, coarsening, levels, coarsest, cell, masked
):
    model, mask = make(cell=cell), holes(num_steps) if masked else None
    expected = solve(model, num_steps, SERIAL, comm=None, mask=mask)
    options = in_parallel(levels, coarsening, coarsest, tolerance=1e-13)
    result, adjoint = solve(model, num_steps, options, mask=mask, record=True)
    assert result.status is adjoint.status is Status.CONVERGED
    assert_same_solution((result, adjoint), expected, 1e-12)


@pytest.mark.parametrize("options", [SERIAL, in_parallel(3, 4, tolerance=1e-13)], ids=["1", "3"])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_inputs_add_up_to_those_of_one_process(cell, options):
    """Every rank fills in its own steps, and nothing else."""
    model, mask = make(cell=cell), holes(97)
    filled = []
    for comm, each in ((None, SERIAL), (world(), options)):
        model.input_gradient = np.zeros((2, 97, 2))
        solve(model, 97, each, comm=comm, mask=mask, record=True)
        filled.append(model.input_gradient)
    serial, own = filled
    assert_near(world().sum(own), serial, 1e-11)
    assert (own[~mask] == 0).all()
    owners = world().sum((own != 0).any(axis=(0, 2)).astype(np.float64))
    assert (owners == mask.any(axis=0)).all()  # one rank for each


@pytest.mark.parametrize(("num_steps", "coarsest"), [(24, "gather"), (97, "pipelined")])
@pytest.mark.parametrize("cell", CELLS)
def test_enough_iterations_in_single_precision(num_steps, coarsest, cell):
    model = make(np.float32, cell=cell)
    expected = solve(model, num_steps, SERIAL, comm=None)
    options = in_parallel(2, 8, coarsest, max_iterations=1 + num_steps // 8)
    assert_same_solution(solve(model, num_steps, options), expected, 1e-5)


CHOICES = crossed(
    [("implicit", "implicit"), ("implicit", "midpoint"), ("classic", "averaged"),
     ("lstm", "averaged")],
    [(97, 3, (4, 2)), (128, 4, 2)],
    ["gather", "pipelined"],
    [False, True],
    of=4,
)  # fmt: skip


@pytest.mark.parametrize(("cell_and_kind", "shape", "coarsest", "masked"), CHOICES)
def test_few_iterations_equal_those_of_one_process(cell_and_kind, shape, coarsest, masked):
    """Every iterate equals the iterate of one process, so each coarse step reads equal inputs."""
    (cell, kind), (num_steps, levels, coarsening) = cell_and_kind, shape
    model = make(layers=3, cell=cell, coarse_step=kind, substep=8)
    mask = holes(num_steps) if masked else None
    forward = in_parallel(levels, coarsening, coarsest, max_iterations=3)
    backward = in_parallel(levels, coarsening, coarsest, max_iterations=2)
    expected = solve(model, num_steps, (forward, backward), comm=None, mask=mask)
    actual = solve(model, num_steps, (forward, backward), mask=mask)
    assert_same_solution(actual, expected, 1e-12)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one.residuals, other.residuals, rtol=1e-9)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_time_stepping_from_rank_to_rank(cell, record):
    model, mask = make(cell=cell), holes(24)
    expected = solve(model, 24, SERIAL, comm=None, mask=mask)
    assert_same_solution(solve(model, 24, SERIAL, mask=mask, record=record), expected, 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("coarsest", ["gather", "pipelined"])
@pytest.mark.parametrize("cell", ["implicit", "lstm"])
def test_one_point_at_a_time_gives_the_bits_of_one_process(coarsest, dtype, cell):
    model = make(dtype, num_features=9, hidden=20, cell=cell)
    options = in_parallel(3, 4, coarsest, max_iterations=2, driver="loop")
    serial, _ = solve(model, 64, options, comm=None, batch=25)
    result, _ = solve(model, 64, options, batch=25)
    np.testing.assert_array_equal(result.gather(), serial.u)
    np.testing.assert_array_equal(result.residuals, serial.residuals)


@pytest.mark.parametrize("kind", ["midpoint", "averaged"])
def test_a_rank_holds_the_inputs_of_its_part(kind):
    model = make(coarse_step=kind)
    x, _, _ = problem(model, 128)
    solver = MGRIT(model, TimeGrid.uniform(0, 128, 128), in_parallel(3, 4, "pipelined"), world())
    windows = own_windows(solver, AdjointSolver(solver))
    model.set_inputs(x, windows)
    own = solver.block
    finest = set(windows[windows[:, 1] == 1, 0].tolist())
    assert {*own} - {0} <= finest
    assert model.bound.rows.shape[0] == len(windows)
    steps = len(own) + 2 * 16  # and the coarse ones that reach into it
    assert len(finest) <= steps
    assert len(windows) - len(finest) <= (steps / 2 if kind == "averaged" else 0)
    total = world().sum(np.array([len(finest)]))[0]
    assert 128 <= total <= 128 + 32 * (world().size - 1)
