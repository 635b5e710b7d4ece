"""Masks and targets of sequences: their properties, and refused values."""

import re

import numpy as np
import pytest

from pint.data.sequences import SequenceData
from tests.training_data import KINDS, make


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_follow_from_the_targets(kind):
    data = make(kind)
    assert data.is_classification == kind.startswith("labels")
    assert data.is_per_step == kind.endswith("per step")
    assert data.num_outputs == 3
    assert data.num_classes == (3 if data.is_classification else 0)


def test_samples_are_those_of_their_part():
    data = make("numbers per step")
    for samples, x, y, mask in (
        (data.train(np.array([3, 1])), data.x_train[[3, 1]], data.y_train[[3, 1]], data.mask_train),
        (data.test(slice(1, 3)), data.x_test[1:3], data.y_test[1:3], data.mask_test),
    ):
        np.testing.assert_array_equal(samples.x, x)
        np.testing.assert_array_equal(samples.y, y)
        np.testing.assert_array_equal(samples.mask, np.isfinite(x).all(axis=2))
        assert mask is not None
    assert make("labels", masked=False).train(slice(0, 2)).mask is None


X = np.ones((2, 4, 3), dtype=np.float32)
ONES = np.ones((2, 4), dtype=bool)
EMPTY = np.array([[True] * 4, [False] * 4])
HOLE = np.array([[True] * 4, [True, True, False, True]])
Y = np.ones((2, 4, 2), dtype=np.float32)


def at(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_train": ONES.astype(int)}, "mask_train must be an array of bool, got int64"),
        ({"mask_train": ONES[:, :3]}, "mask_train must have shape (2, 4) like its x, got (2, 3)"),
        ({"mask_test": EMPTY}, "mask_test leaves sample 1 without any element"),
        ({"mask_train": HOLE, "x_train": at(X, (1, 1, 0), np.nan)}, "in sample 1, step 1"),
        ({"y_train": np.ones((2, 4), np.int64)}, "float32, got int64: labels go with class_names"),
        ({"y_train": Y.astype(np.float64)}, "y_train must be an array of float32, got float64"),
        ({"y_train": Y[:, 0]}, "y_train and y_test must agree"),
        ({"y_train": Y[:, :3]}, "must have shape (2, outputs) or (2, 4, outputs) like its x"),
        ({"y_train": Y[..., :0]}, "must have shape (2, outputs) or (2, 4, outputs) like its x"),
        ({"y_test": at(Y, (1, 2, 0), np.inf)}, "y_test must be finite, got inf in sample 1, step"),
        ({"y_train": at(Y[:, 0], (1, 1), np.nan)}, "got nan in sample 1, output 1"),
        ({"class_names": ("a", "b")}, "float32: numbers to be predicted go without class_names"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    fields = {"name": "demo", "x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    with pytest.raises(ValueError, match=re.escape(message)):
        SequenceData(**(fields | changes))


def test_labels_per_step_lie_in_the_classes_where_there_are_elements():
    y = np.zeros((2, 4), np.int64)
    fields = {"name": "demo", "x_train": X, "y_train": y, "x_test": X, "y_test": y}
    wrong = {"y_train": at(y, (1, 2), 9), "class_names": ("a", "b")}
    SequenceData(**(fields | wrong), mask_train=HOLE)
    with pytest.raises(
        ValueError, match=r"y_train must lie in 0\.\.1 .* got 9 in sample 1, step 2"
    ):
        SequenceData(**(fields | wrong))


def test_missing_elements_do_not_matter():
    nan = at(X, (1, 2), np.nan)
    fields = {"x_train": nan, "y_train": at(Y, (1, 2), np.inf), "x_test": X, "y_test": Y}
    assert SequenceData(name="demo", mask_train=HOLE, **fields).num_outputs == 2
