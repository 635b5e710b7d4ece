"""What a network is made of: names and shapes against torch's, and what does not fit."""

import itertools

import numpy as np
import pytest

from pint.rnn.architecture import Architecture
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions


def zeros(architecture):
    return {
        name: np.zeros(shape, architecture.dtype) for name, shape in architecture.shapes.items()
    }


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_shapes_are_those_of_torch(kind, bidirectional, layers):
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    peer = getattr(torch.nn, kind)(5, 4, layers, bidirectional=bidirectional)
    architecture = Architecture(
        num_features=5,
        hidden=4,
        layers=layers,
        cell="lstm" if kind == "LSTM" else "classic",
        bidirectional=bidirectional,
    )
    assert list(architecture.shapes.items()) == [
        (name, tuple(tensor.shape)) for name, tensor in peer.state_dict().items()
    ]


@pytest.mark.parametrize("cell", ["implicit", "classic"])
def test_belongs_to_a_classifier(cell):
    options = RecurrenceOptions(num_features=3, hidden=4, layers=2, cell=cell, dtype=np.float64)
    model = Network(options, num_outputs=5)
    architecture = Architecture.of(options, num_outputs=5)
    assert architecture.shapes == model.architecture.shapes
    architecture.check(model.weights)
    assert architecture.recurrence_options() == RecurrenceOptions(
        num_features=3, hidden=4, layers=2, cell=cell, dtype="float64"
    )


@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
def test_is_inferred_from_names_and_shapes(cell):
    for layers, bidirectional, num_outputs in itertools.product([1, 2, 11], [False, True], [0, 3]):
        architecture = Architecture(
            num_features=5,
            hidden=2,
            layers=layers,
            cell=cell,
            bidirectional=bidirectional,
            num_outputs=num_outputs,
            dtype="float64",
        )
        given = "classic" if cell == "lstm" else cell
        assert Architecture.infer(zeros(architecture), given) == architecture


def test_layers_in_two_directions_are_no_recurrence():
    with pytest.raises(ValueError, match="layers in one direction"):
        Architecture(num_features=1, hidden=1, bidirectional=True).recurrence_options()


def without(name):
    return lambda tensors: tensors.pop(name)


def put(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("bias_ih_l1"), r"missing \['bias_ih_l1'\], unknown \[\]; found .* expected .*l1'"),
        (without("head.weight"), r"missing \['head.weight'\]"),
        (put("weight_hr_l0", np.zeros(2)), r"missing \[\], unknown \['weight_hr_l0'\]"),
        (put("bias_hh_l0", np.zeros(11, "f4")), r"'bias_hh_l0' must have shape \(12,\), got \(11,"),
        (put("bias_hh_l0", np.zeros(12, "f8")), "'bias_hh_l0' must be of float32, got float64"),
        (
            put("bias_hh_l0", np.array([np.nan, np.inf] + 10 * [0], "f4")),
            "holds 2 numbers .* of 12",
        ),
    ],
)
def test_what_does_not_fit_is_told(change, message):
    architecture = Architecture(num_features=3, hidden=4, layers=2, num_outputs=5)
    tensors = zeros(architecture)
    architecture.check(tensors)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        architecture.check(tensors)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head.bias": np.zeros(2)}, r"missing 'weight_ih_l0'; found \['head.bias'\]"),
        ({"weight_ih_l0": np.zeros(3)}, r"'weight_ih_l0' must be a matrix, got shape \(3,\)"),
        (
            {"weight_ih_l0": np.zeros((6, 1)), "weight_hh_l0": np.zeros((6, 0))},
            r"'weight_hh_l0' must be a matrix, got shape \(6, 0\)",
        ),
        (
            {"weight_ih_l0": np.zeros((5, 1)), "weight_hh_l0": np.zeros((5, 2))},
            "missing .*bias_hh_l0",
        ),
        (
            {"weight_ih_l0": np.zeros((6, 1), "f2"), "weight_hh_l0": np.zeros((6, 2), "f2")},
            "dtype must be one of float32, float64, got 'float16'",
        ),
    ],
)
def test_nothing_is_inferred_from_other_tensors(tensors, message):
    with pytest.raises(ValueError, match=message):
        Architecture.infer(tensors, "classic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"num_features": 0}, "num_features must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"num_outputs": -1}, "num_outputs must be at least 0, got -1"),
        ({"cell": "vanilla"}, "cell must be one of implicit, classic, lstm, got 'vanilla'"),
        ({"pooling": "max"}, "pooling must be one of last, every, mean, got 'max'"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**{"num_features": 1, "hidden": 1, **options})
