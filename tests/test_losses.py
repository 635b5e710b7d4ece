"""Losses: terms and derivatives against torch, weights, and what does not fit."""

import numpy as np
import pytest

from pint.rnn.losses import CrossEntropy, SquaredError

WEIGHTS = (0.5, 0.0, 2.0, 1.0)


def problem(shape, seed=0):
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((*shape, 4)), rng.integers(0, 4, shape)


def test_cross_entropy_of_equal_scores():
    terms, d_scores = CrossEntropy().terms(np.zeros((2, 4)), np.array([1, 3]))
    np.testing.assert_allclose(terms, np.log(4), rtol=1e-14)
    expected = np.full((2, 4), 0.25)
    expected[[0, 1], [1, 3]] -= 1
    np.testing.assert_allclose(d_scores, expected, rtol=1e-14)


def test_cross_entropy_survives_great_scores():
    terms, d_scores = CrossEntropy().terms(np.array([[1e4, -1e4]]), np.array([1]))
    assert terms[0] == 2e4
    np.testing.assert_array_equal(d_scores, [[1, -1]])


def test_squared_error_by_hand():
    terms, d_scores = SquaredError().terms(np.array([[1.0, 2.0], [0.0, 0.0]]), np.eye(2))
    np.testing.assert_array_equal(terms, [2, 0.5])  # (0 + 4) / 2, (0 + 1) / 2
    np.testing.assert_array_equal(d_scores, [[0, 2], [0, -1]])


@pytest.mark.parametrize("shape", [(6,), (3, 5)])
@pytest.mark.parametrize("kind", ["classes", "weighted classes", "numbers"])
def test_the_weighted_mean_of_terms_is_torchs(kind, shape):
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    scores, y = problem(shape)
    theirs = torch.tensor(scores, requires_grad=True)
    flat = theirs.reshape(-1, 4)
    if kind == "numbers":
        loss, y = SquaredError(), problem(shape, seed=1)[0]
        expected = torch.nn.functional.mse_loss(theirs, torch.tensor(y))
    else:
        loss = CrossEntropy(class_weights=WEIGHTS if kind == "weighted classes" else None)
        weight = torch.tensor(WEIGHTS, dtype=torch.float64) if loss.class_weights else None
        expected = torch.nn.functional.cross_entropy(flat, torch.tensor(y).reshape(-1), weight)
    expected.backward()
    loss.check(y, scores.shape)
    (terms, d_scores), weights = loss.terms(scores, y), loss.weights(y)
    assert terms.shape == weights.shape == shape
    weights = weights / weights.sum()
    assert (weights * terms).sum() == pytest.approx(expected.item(), rel=1e-14)
    np.testing.assert_allclose(weights[..., None] * d_scores, theirs.grad.numpy(), atol=1e-15)


@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredError()])
def test_derivatives_keep_the_dtype_and_terms_are_doubles(loss):
    scores, y = problem((5,))
    given = y if isinstance(loss, CrossEntropy) else scores + 1
    terms, d_scores = loss.terms(scores.astype(np.float32), given)
    assert terms.dtype == np.float64
    assert d_scores.dtype == np.float32
    np.testing.assert_allclose(d_scores, loss.terms(scores, given)[1], rtol=0, atol=1e-6)


def test_elements_that_count_and_are_right():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    y, counts = np.array([0, 1, 0]), np.array([True, False, True])
    assert CrossEntropy().num_correct(scores, y, counts) == 1
    assert CrossEntropy().num_correct(scores, y, ~counts) == 1
    assert CrossEntropy().num_correct(scores, y, counts | True) == 2
    assert SquaredError().num_correct(scores, scores, counts) == 0


@pytest.mark.parametrize(
    "weights", [(1.0, -0.5), (0.0, 0.0), (np.nan, 1.0), (1.0, np.nan), (1.0, np.inf)]
)
def test_bad_class_weights(weights):
    with pytest.raises(
        ValueError, match="class_weights must be finite, at least 0 and not all 0, got"
    ):
        CrossEntropy(class_weights=weights)


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (CrossEntropy(), [0, 1, -1], r"classes must be in 0\.\.3, got -1\.\.1"),
        (CrossEntropy(), [0, 4, 1], r"classes must be in 0\.\.3, got 0\.\.4"),
        (CrossEntropy(), [0, 1], r"classes must be integers of shape \(3,\), got \(2,\)"),
        (CrossEntropy(), [0.0, 1.0, 2.0], r"integers of shape \(3,\), got \(3,\) of float64"),
        (CrossEntropy(class_weights=(1, 2)), [0, 1, 1], "class_weights must be 4 numbers, got 2"),
        (SquaredError(), np.zeros((3, 1)), r"real numbers of shape \(3, 4\), got \(3, 1\)"),
        (SquaredError(), np.zeros((3, 4), int), "real numbers .* of int64"),
        (SquaredError(), np.full((3, 4), np.nan), "targets must not hold NaN or inf"),
    ],
)
def test_targets_that_do_not_fit(loss, y, message):
    with pytest.raises(ValueError, match=message):
        loss.check(np.array(y), (3, 4))
