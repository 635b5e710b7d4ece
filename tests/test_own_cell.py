"""The examples of a user's own cell, against torch's autograd, and as users start them."""

import re
import subprocess
import sys

import numpy as np
import pytest

from apps import own_cell_numba, own_cell_numpy
from apps.own_cell import squared_error, waves
from pint import MGRIT, AdjointSolver, MGRITOptions, Status, Step, TimeGrid, check_propagator
from tests.launcher import environment, mpiexec

FEATURES, HIDDEN, BATCH, NUM_STEPS = 3, 5, 2, 24
WAYS = ["numpy", "numba", "torch"]
GRID = TimeGrid.uniform(0, 6, NUM_STEPS)


def import_torch():
    return pytest.importorskip(
        "torch", reason="torch is not installed: pip install 'pint-mgrit[torch]'"
    )


def make(way, num_features=FEATURES, hidden=HIDDEN):
    """A cell of one of the examples, with weights that open and close its gate."""
    if way == "torch":
        import_torch()
        from apps.own_cell_torch import make_cell

        cell = make_cell(num_features, hidden, seed=0)
    else:
        module = {"numpy": own_cell_numpy.LeakyCell, "numba": own_cell_numba.FusedCell}
        cell = module[way](num_features, hidden, seed=0)
    cell.parameters[:] = np.random.default_rng(5).standard_normal(cell.parameters.size)
    return cell


def state(way, u):
    """An array as a state of the cell: a tensor for torch, so that all states are tensors."""
    return import_torch().tensor(u) if way == "torch" else u


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def stack(last, num_fine, level=0):
    """Steps that cover `num_fine` finest steps of GRID each and end at the points `last`."""
    last = np.asarray(last)
    times = GRID.times
    return Step(level, times[last - num_fine], times[last], last - num_fine + 1, last)


def backpropagate(cell, x, u, w, options):
    """States, and gradients of <w, u_N> with respect to parameters and u_0."""
    cell.set_inputs(x)
    forward = MGRIT(cell, GRID, options)
    result = forward.solve(u)
    return result, AdjointSolver(forward).solve(result, w)


def named(way, flat):
    """Tensors of a flat vector; torch's module keeps the bias between its matrices."""
    shapes = {"W": (2 * HIDDEN, FEATURES), "U": (2 * HIDDEN, HIDDEN), "b": (2 * HIDDEN,)}
    tensors = {}
    for name in ("W", "b", "U") if way == "torch" else ("W", "U", "b"):
        count = int(np.prod(shapes[name]))
        tensors[name], flat = flat[:count].reshape(shapes[name]), flat[count:]
    assert flat.size == 0
    return tensors


def torch_gradients(way, parameters, x, u, w):
    """Last state and the same gradients by torch, from the formulas: a loop over time."""
    torch = import_torch()
    weights = {**named(way, parameters), "u": u}
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    h, dt = weights["u"], 6 / NUM_STEPS
    for t in range(x.shape[1]):
        a = torch.tensor(x[:, t]) @ weights["W"].T + h @ weights["U"].T + weights["b"]
        leak, n = torch.sigmoid(a[:, :HIDDEN]), torch.tanh(a[:, HIDDEN:])
        h = torch.exp(-dt * leak) * (h - n) + n
    (h * torch.tensor(w)).sum().backward()
    return h.detach().numpy(), {name: tensor.grad.numpy() for name, tensor in weights.items()}


@pytest.mark.parametrize("way", WAYS)
class TestEachWay:
    def test_check_propagator_passes(self, way):
        cell = make(way)
        cell.set_inputs(normal(BATCH, NUM_STEPS, FEATURES))
        done = check_propagator(
            cell, grid=GRID, initial_value=state(way, normal(*cell.state_shape))
        )
        assert {"stack on level 2", "adjoint_step on level 2"} <= set(done)
        assert "adjoint_gradient on level 2" in done
        assert ("linearize on level 2" in done) == (way != "numpy")

    @pytest.mark.parametrize("levels", [1, 2])
    def test_every_gradient_equals_that_of_torch(self, way, levels):
        """By time stepping, and by enough cycles: FCF is exact after N / 2m."""
        import_torch()
        cell = make(way)
        x, u, w = normal(BATCH, NUM_STEPS, FEATURES), *normal(2, BATCH, HIDDEN, seed=2)
        expected_h, expected = torch_gradients(way, cell.parameters, x, u, w)
        options = MGRITOptions(levels=levels, coarsening=4, max_iterations=5)
        result, adjoint = backpropagate(cell, x, state(way, u), w, options)
        np.testing.assert_allclose(result.final_state(), expected_h, rtol=0, atol=1e-12)
        got = {**named(way, adjoint.parameter_gradient), "u": adjoint.initial_gradient}
        assert set(got) == set(expected)
        for name, tensor in expected.items():
            scale = np.abs(tensor).max()
            assert scale > 1e-3, name  # a gradient of zero would prove nothing
            assert np.abs(got[name] - tensor).max() < 1e-10 * scale, name

    def test_cycles_converge_to_time_stepping(self, way):
        cell = make(way)
        x, w = normal(BATCH, NUM_STEPS, FEATURES), normal(BATCH, HIDDEN, seed=2)
        u = state(way, np.zeros((BATCH, HIDDEN)))
        exact, _ = backpropagate(cell, x, u, w, MGRITOptions(levels=1))
        options = MGRITOptions(levels=3, coarsening=2, tolerance=1e-12)
        result, adjoint = backpropagate(cell, x, u, w, options)
        assert result.status is adjoint.status is Status.CONVERGED
        assert np.abs(np.asarray(result.u) - np.asarray(exact.u)).max() < 1e-11

    @pytest.mark.parametrize("num_fine", [2, 4, 8])
    def test_coarse_step_is_exact_while_gates_do_not_change(self, way, num_fine):
        cell = make(way)
        named(way, cell.parameters)["U"][:] = 0
        cell.set_inputs(np.repeat(normal(BATCH, 1, FEATURES), NUM_STEPS, axis=1))
        u = state(way, normal(1, BATCH, HIDDEN))
        coarse = cell.step(u, stack([num_fine], num_fine, level=1))
        for i in range(num_fine):
            u = cell.step(u, stack([i + 1], 1))
        assert np.abs(np.asarray(coarse) - np.asarray(u)).max() < 1e-14

    def test_example_trains(self, way, capsys):
        """Loss falls; after N / 2m + 1 cycles the gradient equals backpropagation."""
        arguments = "--steps 32 --count 16 --updates 20 --every 10 --coarsening 4 --iterations 5"
        assert example(way).main(arguments.split()) == 0
        rows = numbers(capsys.readouterr().out)
        assert [row[0] for row in rows] == [0, 10, 20]
        assert rows[0][1] > rows[1][1] > rows[2][1]
        assert max(row[2] for row in rows) < 1e-10

    def test_few_cycles_give_a_gradient_that_is_near(self, way, capsys):
        example(way).main(["--updates", "20", "--every", "10"])
        rows = numbers(capsys.readouterr().out)
        assert rows[-1][1] < rows[0][1] / 2
        assert 1e-10 < max(row[2] for row in rows) < 1e-2

    def test_help_and_bad_input(self, way, capsys):
        with pytest.raises(SystemExit) as stop:
            example(way).main(["--help"])
        assert stop.value.code == 0
        assert f"apps.own_cell_{way}" in capsys.readouterr().out
        assert example(way).main(["--coarsening", "0"]) == 2
        assert "coarsening must be at least 1, got 0" in capsys.readouterr().err

    def test_ranks_train_as_one_process_does(self, way):
        example(way)  # skips without torch
        arguments = ["--updates", "10", "--every", "5", "--iterations", "2"]
        said = []
        for ranks in (1, 2):
            command = [*mpiexec(ranks), sys.executable, "-m", f"apps.own_cell_{way}", *arguments]
            done = subprocess.run(
                command, env=environment(), capture_output=True, text=True, timeout=200
            )
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
        assert len(numbers(said[0])) == 3
        assert said[0] == said[1]


def example(way):
    if way == "torch":
        import_torch()
        from apps import own_cell_torch

        return own_cell_torch
    return {"numpy": own_cell_numpy, "numba": own_cell_numba}[way]


def numbers(text):
    """Update, loss and relative error of the gradient in each line that an example prints."""
    lines = re.findall(r"^update +(\d+)  loss (\S+)  gradient off by (\S+)$", text, re.MULTILINE)
    return [(int(update), float(loss), float(error)) for update, loss, error in lines]


@pytest.mark.parametrize(("level", "num_fine"), [(0, 1), (1, 4), (2, 8)])
def test_kernels_give_what_numpy_gives(level, num_fine):
    plain, fused = make("numpy"), make("numba")
    x, u, w = normal(BATCH, NUM_STEPS, FEATURES), *normal(2, 3, BATCH, HIDDEN, seed=2)
    plain.set_inputs(x)
    fused.set_inputs(x)
    step = stack([num_fine, 24, 20], num_fine, level)
    np.testing.assert_allclose(fused.step(u, step), plain.step(u, step), rtol=0, atol=1e-14)
    for method in ("adjoint_step", "adjoint_gradient"):
        got, expected = (getattr(cell, method)(w, u, step) for cell in (fused, plain))
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_input_is_the_middle_element():
    cell = make("numpy")
    x = np.zeros((1, NUM_STEPS, FEATURES))
    u, step = np.zeros((1, 1, HIDDEN)), stack([8], 4, level=1)  # finest steps 5 to 8
    cell.set_inputs(x)
    before = cell.step(u, step)
    for element in range(NUM_STEPS):
        x[:] = 0
        x[:, element] = 1
        cell.set_inputs(x)
        assert (cell.step(u, step) != before).any() == (element == 5)  # the input of step 6


def test_task():
    x, y = waves(7, 50, seed=3)
    assert x.shape == (7, 50, 1)
    assert np.abs(y).max() <= 0.8
    h = normal(7, 4)
    loss, d_h = squared_error(h, y)
    direction = normal(7, 4, seed=4)
    slope = squared_error(h + 1e-5 * direction, y)[0] - squared_error(h - 1e-5 * direction, y)[0]
    assert loss == pytest.approx(((h[:, 0] - y) ** 2).mean() / 2)
    assert (d_h * direction).sum() == pytest.approx(slope / 2e-5, rel=1e-8)
