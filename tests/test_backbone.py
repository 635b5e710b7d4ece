"""The network of frames: its input, files that fix a size, and everything that may be wrong."""

import hashlib

import numpy as np
import pytest

from apps.hmdb51 import backbone
from apps.hmdb51.backbone import KNOWN_MODELS, Backbone, locate_model
from tests.moving_shapes import onnx, save_model, write_model


def some_frames(count, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_pixels_are_normalised_as_imagenet_models_expect(tmp_path):
    """The network gives the mean of red, green and blue, which NumPy computes as well."""
    node, head = onnx.helper.make_node, np.zeros((1000, 3))
    head[[0, 1, 2], [0, 1, 2]] = 1
    nodes = [
        node("GlobalAveragePool", ["frames"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "head"], ["scores"], transB=1),
    ]
    save_model(tmp_path / "m.onnx", nodes, {"head": head}, ("N", 3, "H", "W"), ("N", 1000))
    frames = some_frames(3, 20)
    got = Backbone(tmp_path / "m.onnx", 20, 4).features(frames)
    mean, deviation = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    expected = (frames.mean(axis=(1, 2)) - mean) / deviation
    assert got.dtype == np.float32
    assert got.shape == (3, 1000)
    np.testing.assert_allclose(got[:, :3], expected, atol=1e-5)
    assert not got[:, 3:].any()


@pytest.mark.parametrize(("size", "batch"), [(24, "N"), (None, 1), (24, 8)])
def test_a_fixed_number_or_size_of_frames_is_loosened(tmp_path, size, batch):
    """A file made for 24 x 24, or for one frame at a time, gives what the free one gives."""
    write_model(tmp_path / "free.onnx", pooling="mean")
    write_model(tmp_path / "fixed.onnx", size=size, batch=batch, pooling="mean")
    frames = some_frames(5, 40)
    free, fixed = (Backbone(tmp_path / f"{name}.onnx", 40, 8) for name in ("free", "fixed"))
    np.testing.assert_allclose(fixed.features(frames), free.features(frames), rtol=1e-5, atol=1e-6)
    assert np.ptp(free.features(frames), axis=0).max() > 0


def test_each_frame_by_itself(tmp_path):
    """What stands beside a frame in a batch does not matter."""
    write_model(tmp_path / "m.onnx")
    frames, network = some_frames(3, 32), Backbone(tmp_path / "m.onnx", 32, 4)
    alone = np.concatenate([network.features(frame[None]) for frame in frames])
    np.testing.assert_allclose(network.features(frames), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": 10}, r"gives \(1, 10\) for 1 frames, must give \(1, 1000\)"),
        ({"channels": 1}, r"must take frames \(N, 3, height, width\) in float32, takes tensor"),
        ({"size": 32, "pooling": "grid"}, "does not work on 1 frames of 48 x 48, the file says"),
    ],
    ids=["output", "input", "size"],
)
def test_wrong_models(tmp_path, wrong, message):
    write_model(tmp_path / "m.onnx", **({"pooling": "mean"} | wrong))
    with pytest.raises(ValueError, match=message) as caught:
        Backbone(tmp_path / "m.onnx", 48, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (4, "does not work on 1 frames of 32 x 32"),
        (1, r"does not work on 4 frames of .*; one frame works: take a batch of 1 \(--batch 1\)$"),
    ],
    ids=["a batch alone", "one alone"],
)
def test_a_model_for_one_number_of_frames(tmp_path, count, message):
    """The number is inside the graph, and the declaration of the file does not show it."""
    node = onnx.helper.make_node
    nodes = [
        node("Constant", [], ["shape"], value_ints=[count, 1]),
        node("Conv", ["frames", "W"], ["c"]),
        node("Reshape", ["c", "shape"], ["f"]),
        node("MatMul", ["f", "head"], ["scores"]),
    ]
    tensors = {"W": np.ones((1, 3, 32, 32)), "head": np.ones((1, 1000))}
    save_model(tmp_path / "m.onnx", nodes, tensors, ("N", 3, 32, 32), ("N", 1000))
    with pytest.raises(ValueError, match=message):
        Backbone(tmp_path / "m.onnx", 32, 4)
    if count == 1:
        assert Backbone(tmp_path / "m.onnx", 32, 1).features(some_frames(1, 32)).shape == (1, 1000)


@pytest.mark.parametrize("kind", ["list", "text"])
def test_outputs_that_are_no_numbers(tmp_path, kind):
    helper, tensor = onnx.helper, onnx.TensorProto
    node, gives = {
        "list": (
            helper.make_node("SequenceConstruct", ["scores"], ["got"]),
            helper.make_tensor_sequence_value_info("got", tensor.FLOAT, None),
        ),
        "text": (
            helper.make_node("Cast", ["scores"], ["got"], to=tensor.STRING),
            helper.make_tensor_value_info("got", tensor.STRING, ("N", 1000)),
        ),
    }[kind]
    write_model(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.node.append(node)
    del model.graph.output[:]
    model.graph.output.append(gives)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"gives no array of numbers for 1 frames, must give"):
        Backbone(tmp_path / "m.onnx", 32, 4)


def test_values_that_are_not_finite(tmp_path):
    node = onnx.helper.make_node
    nodes = [
        node("GlobalAveragePool", ["frames"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "head"], ["m"]),
        node("Log", ["m"], ["scores"]),
    ]
    head = {"head": np.ones((3, 1000))}
    save_model(tmp_path / "m.onnx", nodes, head, ("N", 3, "H", "W"), ("N", 1000))
    with pytest.raises(ValueError, match="gives values that are not finite"):
        Backbone(tmp_path / "m.onnx", 32, 4)  # the logarithm of black, which is below zero


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "m.onnx").write_text("no model")
    with pytest.raises(ValueError, match=r"m\.onnx is no ONNX model") as caught:
        Backbone(tmp_path / "m.onnx", 32, 4)
    assert "\n" not in str(caught.value)


def test_a_given_file_and_its_checksum(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    assert locate_model(str(path)) == path
    assert locate_model(str(path), right.upper()) == path
    with pytest.raises(ValueError, match=f"has the SHA-256 {right}, expected 00"):
        locate_model(str(path), "00")
    with pytest.raises(FileNotFoundError, match=r"no model of that name \(resnet18, resnet34"):
        locate_model("resnet19")


def test_known_models_are_downloaded_with_their_checksums(tmp_path, monkeypatch):
    """The file of another content is refused, and what fails says what to do."""
    pooch = pytest.importorskip("pooch", reason="downloads need pooch: pint[video]")
    served, asked = tmp_path / "served", []

    def fetch(url, output, pooch):
        asked.append(url)
        served.replace(output)

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: fetch)
    content = b"weights"
    known = {"resnet18": (KNOWN_MODELS["resnet18"][0], hashlib.sha256(content).hexdigest())}
    served.write_bytes(b"something else")
    with monkeypatch.context() as patched:
        patched.setattr(backbone, "KNOWN_MODELS", known)
        with pytest.raises(ValueError, match="hash"):
            locate_model("resnet18")
        served.write_bytes(content)
        path = locate_model("resnet18")
    assert path.read_bytes() == content
    assert path == tmp_path / "pint" / "resnet18-v1-7.onnx"
    assert asked[-1].endswith("/resnet18-v1-7/resolve/main/resnet18-v1-7.onnx")
    with pytest.raises(OSError, match="give the file in place of the name"):
        locate_model("resnet50")  # there is nothing to serve
    with pytest.raises(ValueError, match="has a checksum of its own"):
        locate_model("resnet18", "00")


def test_checksums_are_different_and_complete():
    hashes = [sha256 for _, sha256 in KNOWN_MODELS.values()]
    assert len(set(hashes)) == 3
    assert all(len(bytes.fromhex(each)) == 32 for each in hashes)
