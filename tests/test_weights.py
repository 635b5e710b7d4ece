"""Files of weights: round trips with torch and pint, and what is wrong with a file."""

import sys

import h5py
import numpy as np
import pytest

from pint import MGRITOptions, open_run
from pint.results import RunRecord, write_run
from pint.rnn import weights as weights_module
from pint.rnn.architecture import Architecture
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.rnn.weights import load, load_architecture, save

STEPPING = MGRITOptions(levels=1)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(params=[".safetensors", ".h5", ".hdf5"])
def path(request, tmp_path):
    if request.param == ".safetensors":
        safetensors()
    return tmp_path / f"weights{request.param}"


def safetensors():
    return pytest.importorskip("safetensors.numpy", reason="an extra: pint[weights]")


def torch_module():
    return pytest.importorskip("torch", reason="torch is an independent reference: pint[torch]")


def make(**options):
    architecture = Architecture(**{"num_features": 3, "hidden": 4, "layers": 2, **options})
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape).astype(architecture.dtype)
        for name, shape in architecture.shapes.items()
    }
    return weights, architecture


@pytest.mark.parametrize(
    "options",
    [
        {"num_outputs": 5, "pooling": "mean"},
        {"cell": "classic", "dtype": "float64"},
        {"cell": "lstm", "bidirectional": True, "num_outputs": 2, "pooling": "every"},
    ],
)
def test_file_gives_back_bits_and_architecture(path, options):
    weights, architecture = make(**options)
    save(path, dict(reversed(weights.items())), architecture)
    again = load(path)
    assert list(again) == list(architecture.shapes)
    for name, tensor in weights.items():
        np.testing.assert_array_equal(again[name], tensor, strict=True)
    assert load_architecture(path) == architecture
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_transposed_views_are_written_as_they_look(path):
    weights, architecture = make()
    weights["weight_hh_l0"] = np.asfortranarray(weights["weight_hh_l0"])
    save(path, weights, architecture)
    np.testing.assert_array_equal(load(path)["weight_hh_l0"], weights["weight_hh_l0"])


def test_a_network_is_rebuilt_from_the_file_alone(path):
    options = RecurrenceOptions(num_features=3, hidden=4, layers=2, cell="classic")
    model = Network(options, num_outputs=5, seed=7)
    save(path, model.weights, Architecture.of(options, num_outputs=5))
    architecture = load_architecture(path)
    again = Network(architecture.recurrence_options(), architecture.num_outputs)
    again.set_weights(load(path))
    x = np.random.default_rng(1).standard_normal((2, 9, 3)).astype(np.float32)
    solvers = [NetworkSolver(each, 9, STEPPING, STEPPING) for each in (model, again)]
    np.testing.assert_array_equal(solvers[0].predict(x)[0], solvers[1].predict(x)[0])


def test_weights_in_hdf5_are_a_run_file(tmp_path):
    weights, architecture = make(num_outputs=2)
    save(tmp_path / "weights.h5", weights, architecture)
    run = open_run(tmp_path / "weights.h5")
    assert list(run.model) == list(weights)
    assert run.options["architecture"]["hidden"] == 4


# --- torch --------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_module_of_torch_becomes_a_classifier(tmp_path, layers, dtype):
    """torch -> safetensors, by safetensors' own writer -> pint; then equal scores."""
    torch = torch_module()
    safetensors()
    from safetensors.torch import save_file

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.gru = torch.nn.GRU(3, 6, layers, batch_first=True)
            self.fc = torch.nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(self.gru(x)[0][:, -1])

    module = Module().to(getattr(torch, dtype))
    path = tmp_path / "module.safetensors"
    save_file(module.state_dict(), path)
    architecture = load_architecture(path, head="fc.")
    assert architecture.cell == "classic"
    model = Network(architecture.recurrence_options(), architecture.num_outputs)
    model.set_weights(load(path, head="fc."))
    x = np.random.default_rng(2).standard_normal((4, 50, 3)).astype(dtype)
    scores, _ = NetworkSolver(model, 50, STEPPING, STEPPING).predict(x)
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE[dtype])
    assert np.ptp(expected) > 0.05


@each_dtype
def test_torch_reads_what_pint_writes(tmp_path, dtype):
    torch = torch_module()
    safetensors()
    from safetensors.torch import load_file

    options = RecurrenceOptions(num_features=3, hidden=6, layers=2, cell="classic", dtype=dtype)
    model = Network(options, num_outputs=5)
    path = tmp_path / "weights.safetensors"
    save(path, model.weights, Architecture.of(options, num_outputs=5))
    state = load_file(path)
    head = {part: state.pop(f"head.{part}") for part in ("weight", "bias")}
    gru = torch.nn.GRU(3, 6, 2, batch_first=True, dtype=getattr(torch, dtype))
    gru.load_state_dict(state)
    x = np.random.default_rng(2).standard_normal((4, 50, 3)).astype(dtype)
    with torch.no_grad():
        expected = gru(torch.tensor(x))[0][:, -1] @ head["weight"].T + head["bias"]
    scores, _ = NetworkSolver(model, 50, STEPPING, STEPPING).predict(x)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=TOLERANCE[dtype])


# --- names --------------------------------------------------------------------------------------


def write_tensors(path, tensors):
    """Write names as they are, without a description."""
    safetensors().save_file(tensors, path)


def test_stacks_of_a_bigger_module(tmp_path):
    path = tmp_path / "module.safetensors"
    encoder, _ = make(cell="classic")
    decoder, _ = make(cell="lstm", layers=1)
    write_tensors(
        path,
        {
            **{f"encoder.gru.{name}": tensor for name, tensor in encoder.items()},
            **{f"decoder.{name}": tensor for name, tensor in decoder.items()},
            "embedding.weight": np.ones((2, 2), "f4"),
        },
    )
    for prefix, expected in (("encoder.gru.", encoder), ("decoder.", decoder)):
        got = load(path, prefix=prefix)
        assert list(got) == list(expected)
        np.testing.assert_array_equal(got["bias_hh_l0"], expected["bias_hh_l0"])
    assert load_architecture(path, prefix="decoder.").cell == "lstm"
    assert load_architecture(path, prefix="encoder.gru.").cell == "classic"
    for prefix in (None, "gru.", ""):
        with pytest.raises(
            ValueError, match=r"expected .*weight_ih_l0.*, found .*decoder\.bias_hh"
        ):
            load(path, prefix=prefix)


def test_a_head_that_is_named_must_be_there(tmp_path):
    path = tmp_path / "module.safetensors"
    weights, _ = make()
    write_tensors(path, weights)
    assert "head.bias" not in load(path)
    with pytest.raises(
        ValueError, match=r"expected \['fc.bias', 'fc.weight'\], found .*bias_hh_l0"
    ):
        load(path, head="fc.")


@pytest.mark.parametrize("cell", ["implicit", "classic"])
def test_an_undescribed_run_must_be_told_its_cell(tmp_path, cell):
    path = tmp_path / "run.h5"
    weights, architecture = make(cell=cell, num_outputs=3)
    write_run(path, RunRecord(command="demo", model=weights, finished=True))
    np.testing.assert_array_equal(load(path)["head.weight"], weights["head.weight"])
    assert load_architecture(path, cell=cell) == architecture
    assert load_architecture(path, cell=cell, pooling="mean").pooling == "mean"
    with pytest.raises(ValueError, match=r"run\.h5'.* give cell 'implicit', 'classic' or 'lstm'"):
        load_architecture(path)


def test_a_file_is_not_contradicted(path):
    weights, architecture = make()
    save(path, weights, architecture)
    assert load_architecture(path, cell="implicit", pooling="last") == architecture
    with pytest.raises(ValueError, match="cell is 'implicit', not 'classic'"):
        load_architecture(path, cell="classic")
    with pytest.raises(ValueError, match="pooling is 'last', not 'mean'"):
        load_architecture(path, pooling="mean")


# --- what can be wrong --------------------------------------------------------------------------


def test_nothing_is_written_that_does_not_fit(path):
    weights, architecture = make()
    save(path, weights, architecture)
    before = path.read_bytes()
    weights["bias_hh_l1"][3] = np.nan
    with pytest.raises(ValueError, match="'bias_hh_l1' holds 1 numbers that are NaN or inf, of 12"):
        save(path, weights, architecture)
    assert path.read_bytes() == before


def test_a_failure_keeps_the_file_before(tmp_path, monkeypatch):
    safetensors()
    path = tmp_path / "weights.safetensors"
    weights, architecture = make()
    save(path, weights, architecture)
    before = path.read_bytes()

    def fails(temporary, target):
        assert temporary.stat().st_size == target.stat().st_size
        raise OSError("no space left")

    monkeypatch.setattr(weights_module, "put_in_place", fails)
    with pytest.raises(OSError, match="no space left"):
        save(path, weights, architecture)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_any_other(path):
    save(path, *make())
    other = path.with_name("other")
    other.write_text("")
    assert path.stat().st_mode == other.stat().st_mode


def test_damaged_tensors_are_told(path):
    """The description fits, the tensors do not: the file was changed by another program."""
    weights, architecture = make()
    save(path, weights, architecture)
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
        weights["bias_hh_l0"] = np.full(12, np.inf, "f4")
        safetensors().save_file(weights, path, metadata=metadata)
    else:
        with h5py.File(path, "r+") as file:
            file["model/bias_hh_l0"][...] = np.inf
    for read in (load, load_architecture):
        with pytest.raises(ValueError, match=rf"{path.name}'.*'bias_hh_l0' holds 12 numbers"):
            read(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.h5"])
def test_no_file(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError):
        load(tmp_path / name)
    weights, architecture = make()
    with pytest.raises(IsADirectoryError):
        save(tmp_path / name, weights, architecture)
    with pytest.raises(FileNotFoundError, match=r"absent' does not exist"):
        save(tmp_path / "absent" / name, weights, architecture)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.h5"])
@pytest.mark.parametrize("content", [b"", b"no tensors in here"])
def test_another_kind_of_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load(tmp_path / name)


def test_other_content_is_told(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights, _ = make()
    safetensors().save_file(weights, path, metadata={"architecture": '{"cells": 3}'})
    with pytest.raises(ValueError, match=r"architecture in unknown words: .*'cells'"):
        load(path)
    safetensors().save_file(weights, path, metadata={"architecture": "{"})
    with pytest.raises(ValueError, match=r"weights\.safetensors': .*column"):
        load(path)
    write_tensors(path, {"embedding.weight": np.ones(2)})
    with pytest.raises(
        ValueError, match=r"expected one name that ends in weight_ih_l0, found \['em"
    ):
        load(path)
    write_run(tmp_path / "run.h5", RunRecord(command="demo", finished=True))
    with pytest.raises(ValueError, match=r"run\.h5': holds no model"):
        load(tmp_path / "run.h5")


def test_half_precision_is_told(tmp_path):
    torch = torch_module()
    safetensors()
    from safetensors.torch import save_file

    for dtype in (torch.float16, torch.bfloat16):
        save_file(torch.nn.GRU(1, 1, dtype=dtype).state_dict(), tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=r"a\.safetensors'.*float32"):
            load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["weights.pt", "weights.npz", "weights"])
def test_other_suffixes_are_refused(tmp_path, name):
    weights, architecture = make()
    with pytest.raises(ValueError, match=r"must end in one of \.safetensors, \.h5, \.hdf5"):
        save(tmp_path / name, weights, architecture)
    with pytest.raises(ValueError, match=r"must end in one of"):
        load(tmp_path / name)


def test_without_safetensors(tmp_path, monkeypatch):
    weights, architecture = make()
    for module in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "pint-mgrit\[weights\]"'):
        save(tmp_path / "weights.safetensors", weights, architecture)
    save(tmp_path / "weights.h5", weights, architecture)
    assert load(tmp_path / "weights.h5").keys() == weights.keys()
