"""Exported graphs in onnxruntime against pint's exact stepping, torch, and plain formulas."""

import sys
from itertools import product

import numpy as np
import pytest

from pint import MGRITOptions
from pint.grid.timegrid import TimeGrid
from pint.mgrit.solver import MGRIT
from pint.rnn.architecture import Architecture
from pint.rnn.network import Network
from pint.rnn.onnx import export_onnx
from pint.rnn.recurrence import Recurrence
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from tests.recurrent_reference import one_step, sigmoid

onnx = pytest.importorskip("onnx", reason="the export is an extra: pint[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="runs exported graphs: pint[test]")

STEPPING = MGRITOptions(levels=1)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
SIZES = list(product([1, 2, 33], [1, 5]))  # length and batch


def exported(path, weights, architecture):
    """Return a function of x that gives the exported model's outputs by their names."""
    export_onnx(path, weights, architecture)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(names, {"x": x}), strict=True))


def random_weights(architecture, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-0.7, 0.7, shape).astype(architecture.dtype)
        for name, shape in architecture.shapes.items()
    }


def sequences(architecture, length, batch):
    rng = np.random.default_rng(length + 100 * batch)
    return rng.standard_normal((batch, length, architecture.num_features)).astype(
        architecture.dtype
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["implicit", "classic"])
def test_equals_exact_stepping(tmp_path, cell, layers, dtype):
    """One file for all lengths and batches; scores of the classifier, states of all its layers."""
    options = RecurrenceOptions(num_features=4, hidden=7, layers=layers, cell=cell, dtype=dtype)
    model = Network(options, num_outputs=5, seed=layers)
    model.parameters *= 3  # trained weights are greater than fresh ones, and gates farther from 1/2
    architecture = Architecture.of(options, num_outputs=5)
    run = exported(tmp_path / "model.onnx", model.weights, architecture)
    for length, batch in SIZES:
        x = sequences(architecture, length, batch)
        got = run(x)
        expected, _ = NetworkSolver(model, length, STEPPING, STEPPING).predict(x)
        assert list(got) == ["logits", "h_n"]
        assert got["logits"].dtype == got["h_n"].dtype == np.dtype(dtype)
        np.testing.assert_allclose(got["logits"], expected, rtol=0, atol=TOLERANCE[dtype])
        np.testing.assert_allclose(got["h_n"], last_states(model, x), rtol=0, atol=TOLERANCE[dtype])
    assert np.ptp(expected) > 0.1


def last_states(model, x):
    """Return the states of all layers after serial stepping."""
    gru = Recurrence(
        model.options,
        model.parameters[: -model.weights["head.weight"].size - model.weights["head.bias"].size],
    )
    gru.set_inputs(x)
    grid = TimeGrid.uniform(0.0, 1.0, x.shape[1])
    zero = np.zeros(gru.state_shape, gru.dtype)
    return MGRIT(gru, grid, STEPPING).solve(zero).final_state()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["classic", "lstm"])
def test_layers_equal_torch(tmp_path, cell, bidirectional, dtype):
    """Without a head: all states of the top layer, and the last ones of each layer."""
    torch = pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")
    kind = torch.nn.LSTM if cell == "lstm" else torch.nn.GRU
    peer = kind(3, 6, 2, batch_first=True, bidirectional=bidirectional, dtype=getattr(torch, dtype))
    weights = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    architecture = Architecture.infer(weights, "classic")
    assert architecture.cell == cell
    run = exported(tmp_path / "model.onnx", weights, architecture)
    for length, batch in SIZES:
        x = sequences(architecture, length, batch)
        with torch.no_grad():
            states, last = peer(torch.tensor(x))
        expected = [states, *(last if cell == "lstm" else [last])]
        got = run(x)
        assert list(got) == ["states", "h_n", "c_n"][: len(expected)]
        for ours, theirs in zip(got.values(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_implicit_layers_in_both_directions(tmp_path, dtype):
    """Against the plain step, one layer and direction after the other."""
    architecture = Architecture(num_features=3, hidden=5, layers=2, bidirectional=True, dtype=dtype)
    weights = random_weights(architecture)
    x = sequences(architecture, 12, 4)
    got = exported(tmp_path / "model.onnx", weights, architecture)(x)
    y, last = x.astype(np.float64), []
    for layer in range(2):
        directions = []
        for suffix, turn in (("", 1), ("_reverse", -1)):
            single = {
                f"{kind}_l0": weights[f"{kind}_l{layer}{suffix}"].astype(np.float64)
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            states = [np.zeros((4, 5))]
            for t in range(12)[::turn]:
                states.append(one_step(single, "implicit", 0, y[:, t], states[-1]))
            directions.append(np.stack(states[1:], axis=1)[:, ::turn])
            last.append(states[-1])
        y = np.concatenate(directions, axis=2)
    np.testing.assert_allclose(got["states"], y, rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(got["h_n"], last, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pooling_of_the_head(tmp_path, cell, bidirectional, dtype):
    """Scores from the states that the same layers give without a head."""
    common = {"num_features": 3, "hidden": 5, "layers": 2, "cell": cell, "dtype": dtype}
    common["bidirectional"] = bidirectional
    bare = Architecture(**common)
    weights = random_weights(Architecture(**common, num_outputs=4))
    layers = {name: weights[name] for name in bare.shapes}
    W, b = weights["head.weight"], weights["head.bias"]
    x = sequences(bare, 9, 2)
    states = exported(tmp_path / "bare.onnx", layers, bare)(x)["states"]
    ends = [states[:, -1, :5], states[:, 0, 5:]]  # each direction at its own end
    features = {
        "last": np.concatenate(ends, axis=1),
        "every": states,
        "mean": states.mean(axis=1),
    }
    for pooling, expected in features.items():
        architecture = Architecture(**common, num_outputs=4, pooling=pooling)
        logits = exported(tmp_path / "model.onnx", weights, architecture)(x)["logits"]
        np.testing.assert_allclose(logits, expected @ W.T + b, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("learned_start", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["implicit", "classic", "lstm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kind_of_network_predicts_alike(tmp_path, dtype, cell, bidirectional, learned_start):
    for pooling in ("last", "every", "mean"):
        options = RecurrenceOptions(num_features=4, hidden=5, layers=2, cell=cell, dtype=dtype)
        kind = {"bidirectional": bidirectional, "learned_start": learned_start}
        network = Network(options, 3, pooling=pooling, seed=1, **kind)
        network.parameters *= 2
        if learned_start:
            start = network.weights["initial_state"]
            start[...] = np.random.default_rng(2).standard_normal(start.shape)
        run = exported(tmp_path / "model.onnx", network.weights, network.architecture)
        for length, batch in ((1, 1), (9, 4)):
            x = sequences(network.architecture, length, batch)
            expected, _ = NetworkSolver(network, length, STEPPING, STEPPING).predict(x)
            assert np.ptp(expected) > 0.1
            np.testing.assert_allclose(run(x)["logits"], expected, rtol=0, atol=TOLERANCE[dtype])


def test_great_inputs_saturate(tmp_path):
    """Gates at 0 and 1: h' = n where z = 0, exactly what the formulas say."""
    architecture = Architecture(num_features=1, hidden=1, dtype="float64")
    weights = {name: np.zeros(shape) for name, shape in architecture.shapes.items()}
    weights["weight_ih_l0"][:] = [[0], [-1], [1]]
    got = exported(tmp_path / "model.onnx", weights, architecture)(np.full((1, 3, 1), 1e4))
    np.testing.assert_allclose(got["states"].ravel(), [1 / 2, 3 / 4, 7 / 8], rtol=1e-15)
    assert sigmoid(-1e2) < 1e-40


def test_standard_operators_and_description(tmp_path):
    """A classic network needs no loop in float32, and says what it is."""
    architecture = Architecture(num_features=3, hidden=5, layers=3, cell="classic", num_outputs=2)
    export_onnx(tmp_path / "model.onnx", random_weights(architecture), architecture)
    model = onnx.load(tmp_path / "model.onnx")
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("GRU") == 3
    assert "Scan" not in operators
    described = {entry.key: entry.value for entry in model.metadata_props}
    assert described["cell"] == "classic"
    assert described["layers"] == "3"
    shape = model.graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["batch", "time", 3]


def test_the_same_network_gives_the_same_file(tmp_path):
    architecture = Architecture(num_features=2, hidden=3)
    weights = random_weights(architecture)
    for name in ("a.onnx", "b.onnx"):
        export_onnx(tmp_path / name, weights, architecture)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_bad_requests_are_told(tmp_path, monkeypatch):
    architecture = Architecture(num_features=2, hidden=3)
    weights = random_weights(architecture)
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(tmp_path / "model.pb", weights, architecture)
    with pytest.raises(FileNotFoundError, match=r"folder .*absent' does not exist"):
        export_onnx(tmp_path / "absent" / "model.onnx", weights, architecture)
    with pytest.raises(ValueError, match=r"missing \['bias_hh_l0'\]"):
        export_onnx(
            tmp_path / "model.onnx",
            {name: tensor for name, tensor in weights.items() if name != "bias_hh_l0"},
            architecture,
        )
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "pint-mgrit\[onnx\]"'):
        export_onnx(tmp_path / "model.onnx", weights, architecture)
    assert not list(tmp_path.iterdir())
