"""Networks over the ranks, of the time axis and of the batch: what one process gives, everywhere.

Solves of a few cycles are compared, not only exact ones: they too are the same on any number of
ranks.
"""

import dataclasses

import numpy as np
import pytest

from pint import MGRITOptions
from pint.parallel.comm import SerialCommunicator, world
from pint.rnn.losses import CrossEntropy, SquaredError
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.train.optimizers import Adam, clip_by_norm

SERIAL = SerialCommunicator()
STEPPING = MGRITOptions(levels=1)
FEW = MGRITOptions(levels=3, coarsening=2, relax=(0, 1), max_iterations=2)
TIME_RANKS = pytest.mark.parametrize("time_ranks", [1, 2, None])
POOLINGS = ["last", "every", "mean"]


def dividing(time_ranks):
    """Return a number of ranks in time that divides the number of ranks."""
    size = world().size
    return time_ranks if time_ranks and size % time_ranks == 0 else size


def build(cell="classic", pooling="last", bidirectional=False, dtype=np.float64, seed=1):
    options = RecurrenceOptions(num_features=2, hidden=4, layers=2, cell=cell, dtype=dtype)
    kind = {"pooling": pooling, "bidirectional": bidirectional, "learned_start": True}
    network = Network(options, 3, seed=seed, **kind)
    network.parameters *= 2
    start = network.weights["initial_state"]
    start[...] = np.random.default_rng(4).standard_normal(start.shape)
    return network


def problem(network, num_steps, batch=4, kind="classes"):
    """Sequences and targets, the same on every rank."""
    a, rng = network.architecture, np.random.default_rng(num_steps)
    x = rng.standard_normal((batch, num_steps, a.num_features))
    elements = (batch, num_steps) if a.pooling == "every" else (batch,)
    if kind == "numbers":
        return x, rng.standard_normal((*elements, 3))
    return x, rng.integers(0, 3, elements)


def holes(batch, num_steps):
    """Some sequences with holes, one that ends after its first element."""
    mask = np.random.default_rng(5).random((batch, num_steps)) < 0.6
    mask[:, num_steps // 3] = True
    mask[0] = np.arange(num_steps) < 1
    return mask


def assert_near(actual, expected, rtol, name):
    """Relative to the greatest entry."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, name
    assert actual.dtype == expected.dtype, name
    scale = np.abs(expected).max()
    assert scale > 1e-6, name  # a gradient of zero would prove nothing
    assert np.abs(actual - expected).max() < rtol * scale, name


def assert_same(actual, expected, rtol=1e-12):
    """All that a batch gives."""
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(actual, field.name), getattr(expected, field.name)
        if field.name.startswith("num_"):
            assert ours == theirs, field.name
        elif field.name.startswith(("forward", "backward")):  # differences of states of size 1
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13, err_msg=field.name)
        else:
            assert_near(ours, theirs, rtol, field.name)
    assert_on_all_ranks(actual.gradient)


def assert_on_all_ranks(array):
    """The same bits on every rank."""
    rows = world().allgather_blocks(np.ascontiguousarray(array)[None])
    assert (rows.view(np.uint8) == rows[:1].view(np.uint8)).all()


def evaluate(network, comm, options, x, y, mask=None, **choices):
    """Scores, and loss and gradients."""
    solver = NetworkSolver(network, x.shape[1], options, options, comm, **choices)
    scores, _ = solver.predict(x, mask)
    return scores, solver.loss_and_gradient(x, y, mask, inputs=True)


@pytest.mark.parametrize("num_steps", [5, 26])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_equals_one_process(pooling, bidirectional, masked, num_steps):
    """With 5 steps and 7 ranks some own no point; the sizes together have every combination."""
    index = POOLINGS.index(pooling) + 2 * bidirectional + masked + world().size + num_steps
    cell = ("implicit", "classic", "lstm")[index % 3]
    kind = ("classes", "numbers")[index % 2]
    loss = SquaredError() if kind == "numbers" else CrossEntropy(class_weights=(1.0, 2.0, 0.5))
    network = build(cell, pooling, bidirectional)
    x, y = problem(network, num_steps, kind=kind)
    mask = holes(4, num_steps) if masked else None
    options = (STEPPING, FEW)[(index // 2) % 2]
    scores, expected = evaluate(network, SERIAL, options, x, y, mask, loss=loss)
    ours, actual = evaluate(network, world(), options, x, y, mask, loss=loss)
    assert_near(ours, scores, 1e-12, "scores")
    assert_same(actual, expected)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_in_single_precision(bidirectional, pooling):
    network = build("lstm", pooling, bidirectional, np.float32)
    x, y = problem(network, 26)
    _, expected = evaluate(network, SERIAL, FEW, x, y)
    _, actual = evaluate(network, world(), FEW, x, y)
    assert actual.gradient.dtype == actual.input_gradient.dtype == np.float32
    for name in ("loss", "gradient", "input_gradient", "start_gradient"):
        assert_near(getattr(actual, name), getattr(expected, name), 1e-5, name)


@pytest.mark.parametrize("batch", [1, 5])
@TIME_RANKS
@pytest.mark.parametrize("pooling", POOLINGS)
def test_groups_share_a_batch(pooling, time_ranks, batch):
    """Also fewer sequences than groups, so that some have nothing to do."""
    index = POOLINGS.index(pooling) + (time_ranks or 0)
    bidirectional = (index % 2 == 1) == (batch == 5)
    options = (STEPPING, FEW)[(index // 2 + (batch == 5)) % 2]
    network = build("classic", pooling, bidirectional)
    x, y = problem(network, 18, batch)
    mask = holes(batch, 18)
    scores, expected = evaluate(network, SERIAL, options, x, y, mask)
    ours, actual = evaluate(
        network, world(), options, x, y, mask, time_ranks=time_ranks and dividing(time_ranks)
    )
    assert_near(ours, scores, 1e-12, "scores")
    assert_same(actual, expected)


@TIME_RANKS
def test_groups_that_converge_after_different_numbers_of_cycles(time_ranks):
    network = build(bidirectional=True)
    x, y = problem(network, 18, 3)
    x[0] *= 1e-3  # its gates hardly move
    _, exact = evaluate(network, SERIAL, STEPPING, x, y)
    until = MGRITOptions(levels=2, coarsening=2, tolerance=1e-12)
    _, actual = evaluate(
        network, world(), until, x, y, time_ranks=time_ranks and dividing(time_ranks)
    )
    sizes = [actual.forward_residuals.size, actual.backward_residuals.size]
    assert_on_all_ranks(np.array(sizes))
    for name in ("loss", "gradient", "input_gradient", "start_gradient"):
        assert_near(getattr(actual, name), getattr(exact, name), 1e-10, name)


@TIME_RANKS
def test_a_given_initial_state(time_ranks):
    """Of two halves of a batch that begin differently; it takes the place of the learned one."""
    network = build("lstm", bidirectional=True)
    a = network.architecture
    x, y = problem(network, 18, 3)
    start = np.random.default_rng(8).standard_normal((a.num_states, 3, a.state_width))
    got = []
    for comm, groups in ((SERIAL, None), (world(), dividing(time_ranks))):
        solver = NetworkSolver(network, 18, FEW, FEW, comm, time_ranks=groups)
        got.append(solver.loss_and_gradient(x, y, start=start, inputs=True))
    assert_same(got[1], got[0])
    begin = network.parameters.size - a.num_states * a.state_width - network.options.hidden * 6 - 3
    learned = got[1].gradient[begin : begin + a.num_states * a.state_width]
    assert (learned == 0).all()


@TIME_RANKS
@pytest.mark.parametrize("pooling", POOLINGS)
def test_accumulated_gradients_are_those_of_both_halves(pooling, time_ranks):
    network = build("implicit", pooling, bidirectional=True)
    x, y = problem(network, 18, 5)
    whole = NetworkSolver(network, 18, FEW, FEW).loss_and_gradient(x, y).gradient
    solver = NetworkSolver(
        network, 18, FEW, FEW, world(), time_ranks=time_ranks and dividing(time_ranks)
    )
    halves = [
        (2, solver.loss_and_gradient(x[:2], y[:2])),
        (3, solver.loss_and_gradient(x[2:], y[2:])),
    ]
    accumulated = sum(count * half.gradient for count, half in halves) / 5
    assert_near(accumulated, whole, 1e-12, "gradient")


def train(network, comm, time_ranks, num_updates=3):
    """Updates as the trainer makes them; the norms before clipping."""
    optimizer, norms = Adam(learning_rate=1e-2), []
    state = optimizer.init(network.parameters)
    x, y = problem(network, 18, 6)
    solver = NetworkSolver(
        network, 18, FEW, FEW, comm, time_ranks=time_ranks and dividing(time_ranks)
    )
    for _ in range(num_updates):
        gradient, norm = clip_by_norm(solver.loss_and_gradient(x, y).gradient, 0.05)
        update = optimizer.update(gradient, state, network.parameters, 1e-2)
        state = update.state
        network.parameters += update.change
        norms.append(norm)
    return np.array(norms)


@TIME_RANKS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipped_updates_keep_all_ranks_alike(dtype, time_ranks):
    ours, alone = build("implicit", "mean", True, dtype), build("implicit", "mean", True, dtype)
    norms = train(ours, world(), dividing(time_ranks))
    assert (norms > 0.05).all()  # every one is clipped
    assert_on_all_ranks(norms)
    assert_on_all_ranks(ours.parameters)
    expected = train(alone, SERIAL, None)
    rtol = 1e-10 if dtype == np.float64 else 1e-2  # Adam divides by small numbers
    assert_near(norms, expected, rtol, "norms")
    assert_near(ours.parameters, alone.parameters, rtol, "parameters")


class Refusing(CrossEntropy):
    """Refuses a score whose class is 2."""

    def terms(self, scores, y):
        if (y == 2).any():
            raise ValueError("a score of class 2")
        return super().terms(scores, y)


@TIME_RANKS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_error_of_one_rank_reaches_all(bidirectional, time_ranks):
    """One element is refused: it lies in one group, and there on one rank."""
    network = build("classic", "every", bidirectional)
    solver = NetworkSolver(network, 18, FEW, FEW, world(), Refusing(), dividing(time_ranks))
    x, y = problem(network, 18, 5)
    y %= 2
    good = solver.loss_and_gradient(x, y)
    y[4, 11] = 2
    with pytest.raises(ValueError, match="a score of class 2"):
        solver.loss_and_gradient(x, y)
    y[4, 11] = 0
    again = solver.loss_and_gradient(x, y)
    assert np.isfinite(again.loss)
    y[4, 11] = problem(network, 18, 5)[1][4, 11] % 2
    np.testing.assert_array_equal(solver.loss_and_gradient(x, y).gradient, good.gradient)


@TIME_RANKS
def test_a_score_that_is_not_finite_is_told_on_all_ranks(time_ranks):
    """States are zero before the first element, and the head overflows after it."""
    network = build("classic", "every")
    network.weights["initial_state"][...] = 0
    network.weights["head.weight"][...] = 1e308
    network.weights["head.weight"][0] = -1e308
    solver = NetworkSolver(
        network, 18, STEPPING, STEPPING, world(), SquaredError(), dividing(time_ranks)
    )
    x, y = problem(network, 18, 5, "numbers")
    mask = np.ones((5, 18), bool)
    mask[:, :15] = False
    with pytest.raises(FloatingPointError, match="the loss is"):
        solver.loss_and_gradient(x, y, mask)


def test_bad_input_on_one_rank_is_told_on_all():
    network = build()
    solver = NetworkSolver(network, 18, FEW, FEW, world())
    x, y = problem(network, 18)
    last = world().rank == world().size - 1
    with pytest.raises(ValueError, match=r"sequences must have shape \(batch, 18, 2\)"):
        solver.predict(x[:, 1:] if last else x)
    with pytest.raises(ValueError, match="mask leaves a sequence without any element"):
        solver.loss_and_gradient(x, y, np.full((4, 18), not last))
    with pytest.raises(ValueError, match=r"classes must be in 0\.\.2, got 3\.\.3"):
        solver.loss_and_gradient(x, np.full(4, 3) if last else y)
    assert np.isfinite(solver.loss_and_gradient(x, y).loss)


def test_groups_that_do_not_divide_the_ranks_are_told():
    with pytest.raises(
        ValueError, match=f"time_ranks {world().size + 1} does not divide the {world().size} ranks"
    ):
        NetworkSolver(build(), 18, FEW, FEW, world(), time_ranks=world().size + 1)
