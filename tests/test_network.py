"""Networks: every gradient against torch, poolings, directions, masks; solvers agree."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pint import MGRITOptions
from pint.rnn.architecture import Architecture, layer_stacks
from pint.rnn.losses import CrossEntropy, SquaredError
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from tests.recurrent_models import by_name

STEPPING = MGRITOptions(levels=1)


def make(layers=2, dtype=np.float64, **options):
    cell = RecurrenceOptions(num_features=3, hidden=6, layers=layers, dtype=dtype, **options)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, 24, 3)).astype(dtype)
    return Network(cell, 5, seed=1), x, np.array([0, 3, 4, 3])


def test_gradient_of_every_tensor_by_central_differences():
    model, x, y = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    gradient = solver.loss_and_gradient(x, y).gradient
    start = 0
    rng = np.random.default_rng(0)
    for name, tensor in model.weights.items():
        direction = rng.standard_normal(tensor.shape)
        kept, h = tensor.copy(), 1e-5
        losses = []
        for sign in (1, -1):
            tensor[...] = kept + sign * h * direction
            losses.append(solver.loss_and_gradient(x, y).loss)
        tensor[...] = kept
        slope = (losses[0] - losses[1]) / (2 * h)
        got = gradient[start : start + tensor.size] @ direction.ravel()
        assert got == pytest.approx(slope, rel=1e-7, abs=1e-10), name
        start += tensor.size
    assert start == gradient.size


@pytest.mark.parametrize("coarse_step", ["midpoint", "matched", "implicit"])
def test_enough_iterations_give_serial_backpropagation(coarse_step):
    model, x, y = make(coarse_step=coarse_step)
    exact = NetworkSolver(model, 24, STEPPING, STEPPING).loss_and_gradient(x, y)
    many = MGRITOptions(levels=3, coarsening=2, relax=(0, 1), max_iterations=13)
    got = NetworkSolver(model, 24, many, many).loss_and_gradient(x, y)
    assert got.loss == pytest.approx(exact.loss, rel=1e-12)
    np.testing.assert_allclose(got.gradient, exact.gradient, rtol=0, atol=1e-12)
    assert got.num_correct == exact.num_correct


def test_few_midpoint_iterations_come_closer_than_implicit_ones():
    """On a smooth sequence, whose values between the ends of a coarse step are predictable."""
    times = np.linspace(0, 3, 64)[None, :, None] + np.arange(3)
    x = np.sin(times * np.arange(1, 5)[:, None, None])
    errors = {}
    for coarse_step in ("midpoint", "implicit"):
        model, _, y = make(coarse_step=coarse_step)
        few = MGRITOptions(levels=3, coarsening=4, relax=(0, 1), max_iterations=2)
        exact = NetworkSolver(model, 64, STEPPING, STEPPING).loss_and_gradient(x, y).gradient
        got = NetworkSolver(model, 64, few, few).loss_and_gradient(x, y).gradient
        errors[coarse_step] = np.linalg.norm(got - exact) / np.linalg.norm(exact)
    assert errors["midpoint"] < 0.1 * errors["implicit"]


def test_solvers_share_the_parameters():
    model, x, _ = make()
    exact = NetworkSolver(model, 24, STEPPING, STEPPING)
    before = exact.predict(x)[0]
    model.parameters += 0.1
    assert not np.allclose(before, exact.predict(x)[0])


def test_nan_parameters_are_told():
    model, x, y = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    solver.loss_and_gradient(x, y)
    model.weights["head.bias"][0] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss is nan .*smaller learning rate"):
        solver.loss_and_gradient(x, y)


def test_a_derivative_of_the_loss_that_is_not_finite_is_told():
    """In float32 the square is finite in float64, and what goes back through the head is not."""
    model, x, _ = make(dtype=np.float32)
    solver = NetworkSolver(model, 24, STEPPING, STEPPING, loss=SquaredError())
    model.weights["head.weight"][...] = 1e30
    with pytest.raises(FloatingPointError, match=r"derivative not finite; .*smaller learning rate"):
        solver.loss_and_gradient(x, np.zeros((4, 5), np.float32))


def test_wrong_length_is_told():
    model, x, _ = make()
    solver = NetworkSolver(model, 24, STEPPING, STEPPING)
    with pytest.raises(
        ValueError, match=r"shape \(batch, 24, 3\), batch at least 1, got \(4, 20, 3\)"
    ):
        solver.predict(x[:, :20])


def test_seed_fixes_the_parameters_and_options_are_kept():
    model, _, _ = make()
    again = Network(model.options, 5, seed=1)
    np.testing.assert_array_equal(model.parameters, again.parameters)
    assert not np.array_equal(again.parameters, Network(model.options, 5, seed=2).parameters)
    wide = Network(dataclasses.replace(model.options, hidden=100), 5)
    assert abs(wide.parameters).max() <= 0.1  # 100^(-1/2)


def test_nan_sequences_are_told():
    model, x, y = make()
    x[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="sequences must not hold NaN"):
        NetworkSolver(model, 24, STEPPING, STEPPING).loss_and_gradient(x, y)


def test_a_diverged_backward_solve_is_told():
    model, x, y = make()
    loose = MGRITOptions(levels=2, coarsening=4, max_iterations=3, divergence_factor=1e-30)
    with pytest.raises(FloatingPointError, match="diverged"):
        NetworkSolver(model, 24, STEPPING, loose).loss_and_gradient(x, y)
    with pytest.raises(FloatingPointError, match="diverged"):
        NetworkSolver(model, 24, loose, STEPPING).predict(x)


def test_loaded_weights_predict_alike():
    model, x, _ = make()
    other = Network(model.options, 5, seed=9)
    other.set_weights(model.weights)
    solvers = [NetworkSolver(each, 24, STEPPING, STEPPING) for each in (model, other)]
    np.testing.assert_array_equal(solvers[0].predict(x)[0], solvers[1].predict(x)[0])
    with pytest.raises(ValueError, match="weights must have the shapes"):
        other.set_weights({"head.bias": np.zeros(5)})


# --- all kinds of networks, against torch -------------------------------------------------------

CLASS_WEIGHTS = (1.0, 2.0, 0.5)
LOSSES = {"classes": CrossEntropy(class_weights=CLASS_WEIGHTS), "numbers": SquaredError()}


def build(cell, pooling, bidirectional, layers, learned_start=False, dtype=np.float64, **shape):
    """A network with weights large enough for gates that open and close."""
    shape = {"num_features": 2, "hidden": 3, "outputs": 3, **shape}
    options = RecurrenceOptions(
        num_features=shape["num_features"],
        hidden=shape["hidden"],
        layers=layers,
        cell=cell,
        dtype=dtype,
    )
    kind = {"pooling": pooling, "bidirectional": bidirectional, "learned_start": learned_start}
    network = Network(options, shape["outputs"], seed=3, **kind)
    network.parameters *= 2
    if learned_start:
        start = network.weights["initial_state"]
        start[...] = np.random.default_rng(4).standard_normal(start.shape)
    return network


def problem(network, batch, num_steps, kind, seed=0):
    """Sequences, targets and given initial states."""
    a, rng = network.architecture, np.random.default_rng(seed)
    x = rng.standard_normal((batch, num_steps, a.num_features))
    elements = (batch, num_steps) if a.pooling == "every" else (batch,)
    y = rng.integers(0, a.num_outputs, elements)
    if kind == "numbers":
        y = rng.standard_normal((*elements, a.num_outputs))
    return x, y, rng.standard_normal((a.num_states, batch, a.state_width))


def make_mask(kind, batch, num_steps, seed=0):
    """None; sequences that end early, one after its first element; or holes anywhere."""
    rng = np.random.default_rng(seed)
    if kind == "whole":
        return None
    if kind == "padded":
        lengths = rng.integers(1, num_steps + 1, batch)
        lengths[0] = 1
        return np.arange(num_steps) < lengths[:, None]
    mask = rng.random((batch, num_steps)) < 0.5
    mask[np.arange(batch), rng.integers(0, num_steps, batch)] = True
    return mask


def torch_loss(kind):
    """As a function of the scores and targets of all elements."""
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    if kind == "numbers":
        return torch.nn.functional.mse_loss
    weight = torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    return lambda scores, y: torch.nn.functional.cross_entropy(scores, y, weight)


def assert_equals_torch(solver, kind, x, y, mask, start, atol=1e-10):
    """Scores, loss, and every gradient by name."""
    loss = torch_loss(kind)
    from tests.network_reference import evaluate

    network = solver.network
    expected = evaluate(
        network.architecture, network.weights, x, y, loss=loss, mask=mask, start=start
    )
    got = solver.loss_and_gradient(x, y, mask, start, inputs=True)
    scores, _ = solver.predict(x, mask, start)
    if network.architecture.pooling == "every" and mask is not None:
        scores, expected.scores = scores[mask], expected.scores[mask]
    np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=atol)
    assert got.loss == pytest.approx(expected.loss, abs=atol)
    ours = by_name(network, got.gradient)
    assert list(ours) == list(expected.gradient)
    for name, tensor in expected.gradient.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=atol, err_msg=name)
    np.testing.assert_allclose(got.input_gradient, expected.d_x, rtol=0, atol=atol)
    np.testing.assert_allclose(got.start_gradient, expected.d_start, rtol=0, atol=atol)
    return got, expected


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "every", "mean"])
@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
def test_every_gradient_equals_torch(cell, pooling, bidirectional, layers):
    kinds = ["classes", "numbers"], ["whole", "padded", "holes"], ["zero", "learned", "given"]
    for kind, masked, begin in itertools.product(*kinds):
        network = build(cell, pooling, bidirectional, layers, begin != "zero")
        solver = NetworkSolver(network, 6, STEPPING, STEPPING, loss=LOSSES[kind])
        x, y, start = problem(network, 3, 6, kind)
        mask = make_mask(masked, 3, 6)
        given_start = start if begin == "given" else None
        got, expected = assert_equals_torch(solver, kind, x, y, mask, given_start)
        for name, tensor in expected.gradient.items():
            is_zero = name == "initial_state" and begin == "given"  # then it plays no part
            assert (np.abs(tensor).max() > 1e-4) != is_zero, name
        if mask is not None:
            assert (got.input_gradient[~mask] == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_network_by_any_solver_equals_torch(data):
    """Random shapes and options; enough cycles for the exact solution."""

    def draw(*values):
        return data.draw(st.sampled_from(values))

    def integer(low, high):
        return data.draw(st.integers(low, high))

    network = build(
        draw("implicit", "classic", "lstm"),
        draw("last", "every", "mean"),
        draw(False, True),
        integer(1, 3),
        draw(False, True),
        num_features=integer(1, 4),
        hidden=integer(1, 5),
    )
    num_steps, batch, seed = integer(1, 19), integer(1, 4), integer(0, 99)
    kind = draw("classes", "numbers")
    exact = MGRITOptions(
        levels=integer(1, 4),
        coarsening=integer(2, 5),
        relax=integer(0, 1),
        max_iterations=num_steps + 1,
        coarsest=draw("gather", "pipelined"),
    )
    solver = NetworkSolver(network, num_steps, exact, exact, loss=LOSSES[kind])
    x, y, start = problem(network, batch, num_steps, kind, seed)
    mask = make_mask(draw("whole", "padded", "holes"), batch, num_steps, seed)
    assert_equals_torch(solver, kind, x, y, mask, start if draw(False, True) else None, 1e-9)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "every", "mean"])
@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
def test_single_precision_is_near_double(cell, pooling, bidirectional):
    got = {}
    for dtype in (np.float32, np.float64):
        network = build(cell, pooling, bidirectional, 2, True, dtype=dtype)
        solver = NetworkSolver(network, 12, STEPPING, STEPPING, loss=LOSSES["classes"])
        x, y, _ = problem(network, 4, 12, "classes")
        got[dtype] = solver.loss_and_gradient(x, y, make_mask("holes", 4, 12), inputs=True)
        assert got[dtype].gradient.dtype == got[dtype].input_gradient.dtype == dtype
    single, double = got.values()
    assert single.loss == pytest.approx(double.loss, rel=1e-5)
    for name in ("gradient", "input_gradient", "start_gradient"):
        expected = getattr(double, name)
        error = np.abs(getattr(single, name) - expected).max()
        assert error < 1e-5 * np.abs(expected).max(), name


def test_what_stands_in_missing_elements_does_not_matter():
    network = build("classic", "every", True, 2)
    solver = NetworkSolver(network, 7, STEPPING, STEPPING, loss=LOSSES["numbers"])
    x, y, _ = problem(network, 3, 7, "numbers")
    mask = make_mask("holes", 3, 7)
    expected = solver.loss_and_gradient(x, y, mask, inputs=True)
    x[~mask], y[~mask] = np.nan, np.inf
    got = solver.loss_and_gradient(x, y, mask, inputs=True)
    assert got.loss == expected.loss
    np.testing.assert_array_equal(got.gradient, expected.gradient)
    np.testing.assert_array_equal(got.input_gradient, expected.input_gradient)
    classes = NetworkSolver(network, 7, STEPPING, STEPPING)
    labels = np.where(mask, 1, -1)  # as padded labels often are
    assert classes.loss_and_gradient(x, labels, mask).num_elements == mask.sum()


def test_elements_are_counted_with_their_weights():
    """Right ones and all: of the elements there are, whose class has a weight."""
    network = build("classic", "every", False, 1)
    loss = CrossEntropy(class_weights=(1.0, 0.0, 1.0))
    solver = NetworkSolver(network, 6, STEPPING, STEPPING, loss=loss)
    x, y, _ = problem(network, 4, 6, "classes")
    mask = make_mask("holes", 4, 6)
    got = solver.loss_and_gradient(x, y, mask)
    counts = mask & (y != 1)
    assert got.num_elements == counts.sum()
    right = solver.predict(x, mask)[0].argmax(axis=-1) == y
    assert got.num_correct == (right & counts).sum() > 0


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gradient_of_two_halves_adds_up(bidirectional):
    network = build("lstm", "mean", bidirectional, 2, True)
    solver = NetworkSolver(network, 8, STEPPING, STEPPING)
    x, y, _ = problem(network, 5, 8, "classes")
    whole = solver.loss_and_gradient(x, y).gradient
    two, three = solver.loss_and_gradient(x[:2], y[:2]), solver.loss_and_gradient(x[2:], y[2:])
    accumulated = (2 * two.gradient + 3 * three.gradient) / 5
    np.testing.assert_allclose(accumulated, whole, rtol=0, atol=1e-14)


def test_residuals_of_several_solves_are_joined():
    """The root of the sum of squares; a direction that converged first keeps its last residual."""
    network = build("classic", "last", True, 2)
    x, y, _ = problem(network, 3, 32, "classes")
    fixed = MGRITOptions(levels=2, coarsening=4, max_iterations=3, skip_first_down=False)
    got = NetworkSolver(network, 32, fixed, fixed).loss_and_gradient(x, y)
    assert got.forward_residuals.shape == got.backward_residuals.shape == (3,)
    assert (np.diff(got.forward_residuals) < 0).all()
    assert 0 < got.forward_relative < got.forward_residuals[-1]
    until = dataclasses.replace(fixed, max_iterations=40, tolerance=1e-6)
    solver = NetworkSolver(network, 32, until, until)
    got = solver.loss_and_gradient(x, y)
    solved = solver._forward_pass(solver._batch(x, None, None))
    sizes = {row.size for row in solved.residuals}
    assert len(sizes) > 1  # else nothing would be shown
    assert got.forward_residuals.size == max(sizes)
    last = np.linalg.norm([row[-1] for row in solved.residuals])
    assert got.forward_residuals[-1] == pytest.approx(last, rel=1e-12)
    assert last < 2e-6
    solver.iterate(2, 1)
    got = solver.loss_and_gradient(x, y)
    assert (got.forward_residuals.size, got.backward_residuals.size) == (2, 1)


def test_no_input_gradient_is_left_behind():
    network = build("classic", "every", True, 2)
    solver = NetworkSolver(network, 6, STEPPING, STEPPING)
    x, y, _ = problem(network, 3, 6, "classes")
    assert solver.loss_and_gradient(x, y).input_gradient is None
    first = solver.loss_and_gradient(x, y, inputs=True).input_gradient.copy()
    loose = MGRITOptions(levels=2, coarsening=2, max_iterations=3, divergence_factor=1e-30)
    failing = NetworkSolver(network, 6, STEPPING, loose)
    with pytest.raises(FloatingPointError, match=r"no gradient .*diverged"):
        failing.loss_and_gradient(x, y, inputs=True)
    for one in solver.layer_solvers + failing.layer_solvers:
        assert one.model.input_gradient is None
    again = solver.loss_and_gradient(x, y, inputs=True).input_gradient
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_stages_share_out_parameters_and_states(bidirectional, layers):
    network = build("lstm", "last", bidirectional, layers, True)
    stacks = [
        stack
        for stage in layer_stacks(network.options, bidirectional=bidirectional)
        for stack in stage
    ]
    numbers = np.arange(network.parameters.size)
    parts = np.concatenate([numbers[stack.part] for stack in stacks])
    of_layers = sum(t.size for name, t in network.weights.items() if name[:4] in ("weig", "bias"))
    np.testing.assert_array_equal(parts, numbers[:of_layers])
    rows = [row for stack in stacks for row in range(layers * 2)[stack.rows]]
    assert rows == list(range(network.architecture.num_states))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_architecture_is_enough_to_rebuild_a_network(bidirectional):
    network = build("lstm", "mean", bidirectional, 2, True)
    again = Network.of(network.architecture)
    assert again.architecture == network.architecture
    again.set_weights(network.weights)
    np.testing.assert_array_equal(again.parameters, network.parameters)
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        Network.of(Architecture(num_features=1, hidden=1))


BAD_INPUT = {
    "too long": ({"x": np.zeros((3, 7, 2))}, r"shape \(batch, 6, 2\), .* got \(3, 7, 2\)"),
    "one sequence": ({"x": np.zeros((6, 2))}, r"shape \(batch, 6, 2\), .* got \(6, 2\)"),
    "no sequence": ({"x": np.zeros((0, 6, 2))}, r"batch at least 1, got \(0, 6, 2\)"),
    "NaN": ({"x": np.full((3, 6, 2), np.nan)}, "sequences must not hold NaN or inf"),
    "narrow mask": ({"mask": np.ones((3, 5), bool)}, r"mask must be bool \(3, 6\), got bool"),
    "mask of numbers": ({"mask": np.ones((3, 6))}, r"mask must be bool .* got float64"),
    "nothing left": ({"mask": np.eye(3, 6) > 1}, "mask leaves a sequence without any element"),
    "wrong start": ({"start": np.zeros((3, 3))}, r"start must have shape \(2, 3, 3\), got"),
    "NaN in start": ({"start": np.full((2, 3, 3), np.nan)}, "start must not hold NaN or inf"),
    "classes of sequences": ({"y": np.zeros(3, int)}, r"integers of shape \(3, 6\), got \(3,\)"),
    "unknown class": ({"y": np.full((3, 6), 3)}, r"classes must be in 0\.\.2, got 3\.\.3"),
    "no weight": ({"y": np.ones((3, 6), int)}, "no element of the batch has a weight"),
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network": RecurrenceOptions(num_features=2, hidden=3)}, "network must be of Network"),
        ({"forward": {"levels": 1}}, "forward must be of MGRITOptions, got {'levels': 1}"),
        ({"backward": None}, "backward must be of MGRITOptions, got None"),
        ({"loss": "mse"}, "loss must be of Loss, got 'mse'"),
        ({"num_steps": "6"}, "num_steps must be an integer, got '6'"),
    ],
)
def test_objects_of_another_class_are_refused(changed, message):
    network = build("classic", "every", True, 1)
    good = {"network": network, "num_steps": 6, "forward": STEPPING, "backward": STEPPING}
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        NetworkSolver(**good | changed)


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_told(case):
    changed, message = BAD_INPUT[case]
    network = build("classic", "every", True, 1)
    loss = CrossEntropy(class_weights=(1.0, 0.0, 1.0))
    solver = NetworkSolver(network, 6, STEPPING, STEPPING, loss=loss)
    x, y, start = problem(network, 3, 6, "classes")
    good = {"x": x, "y": y, "mask": np.ones((3, 6), bool), "start": start}
    solver.loss_and_gradient(**good)
    with pytest.raises(ValueError, match=message):
        solver.loss_and_gradient(**{**good, **changed})


@pytest.mark.parametrize("time_ranks", [0, 2])
def test_ranks_that_cannot_be_split(time_ranks):
    network = build("classic", "last", False, 1)
    with pytest.raises(ValueError, match=f"time_ranks .*{time_ranks}"):
        NetworkSolver(network, 6, STEPPING, STEPPING, time_ranks=time_ranks)


@pytest.mark.parametrize("which", [0, 1])
def test_states_are_needed_at_all_points(which):
    grids = [MGRITOptions(levels=2), MGRITOptions(levels=2)]
    grids[which] = dataclasses.replace(grids[which], storage="c_points")
    with pytest.raises(ValueError, match="leave storage 'c_points' out"):
        NetworkSolver(build("implicit", "last", False, 1, False), 8, *grids)


@pytest.mark.parametrize("pooling", ["last", "every", "mean"])
@pytest.mark.parametrize("suffix", [".h5", ".safetensors"])
def test_a_saved_network_predicts_the_same(tmp_path, suffix, pooling):
    network = build("lstm", pooling, True, 2, True)
    x, _, _ = problem(network, 3, 7, "classes")
    mask = np.arange(7) < np.array([[7], [3], [1]])
    scores, _ = NetworkSolver(network, 7, STEPPING, STEPPING).predict(x, mask)
    np.testing.assert_array_equal(network.predict(x, mask), scores)
    network.save(tmp_path / f"weights{suffix}")
    again = Network.load(tmp_path / f"weights{suffix}")
    assert again.architecture == network.architecture
    np.testing.assert_array_equal(again.predict(x, mask), scores)
    with pytest.raises(ValueError, match="pooling is"):
        Network.load(tmp_path / f"weights{suffix}", pooling="last" if pooling != "last" else "mean")
    with pytest.raises(ValueError, match="sequences must have shape"):
        again.predict(x[0])


def test_repr_shows_layers_and_parameters():
    network = Network(RecurrenceOptions(num_features=2, hidden=4, layers=2), 3, bidirectional=True)
    shown = repr(network)
    assert shown.startswith("Network(2 features > implicit 4 in both directions > implicit 4 in ")
    assert f"{network.parameters.size} parameters, float32" in shown
