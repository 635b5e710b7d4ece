"""Clips of a shape in one of six motions, and a small network of frames, both made on the spot."""

import numpy as np
import pytest

av = pytest.importorskip("av", reason="clips need PyAV: pint[video]")
onnx = pytest.importorskip("onnx", reason="models of frames need onnx: pint[video]")
pytest.importorskip("onnxruntime", reason="models of frames need onnxruntime: pint[video]")

SIZE, FRAMES = 32, 16
"""Height and width of the frames, and the length of the longest clip."""
MOTIONS = ("down", "grow", "left", "right", "shrink", "up")


def write_clip(path, motion, rng, frames=FRAMES):
    """Write a square or disc that moves; its middle, size, speed and grey are drawn."""
    centre, radius = rng.uniform(14, 18, 2), rng.uniform(4.5, 5.5)
    speed = rng.uniform(0.8, 1.0)
    round_shape, grey = rng.random() < 0.5, rng.uniform(180, 220)
    direction = {"down": (1, 0), "up": (-1, 0), "right": (0, 1), "left": (0, -1)}
    growth = {"grow": 0.5, "shrink": -0.5}.get(motion, 0.0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = []
    for number in range(frames):
        time = number - (frames - 1) / 2
        y, x = centre + np.multiply(direction.get(motion, (0, 0)), speed * time)
        r = max(radius + growth * time * (8 / frames), 1)
        away = np.stack([abs(rows - y), abs(columns - x)])
        inside = (np.hypot(*away) if round_shape else away.max(axis=0)) < r
        images.append(np.where(inside, grey, 40)[..., None].repeat(3, axis=2))
    write_video(path, images)


def write_video(path, images):
    """Write images (height, width, 3) as the frames of an MPEG-4 clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in images:
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_folder(folder, clips_per_class, seed=0):
    """Write clips of all six motions, 11 to 16 frames long, as HMDB51 lays them out."""
    rng = np.random.default_rng(seed)
    for motion in MOTIONS:
        (folder / motion).mkdir(parents=True)
        for number in range(clips_per_class):
            path = folder / motion / f"{motion}_{number:02d}.avi"
            write_clip(path, motion, rng, int(rng.integers(11, FRAMES + 1)))


def write_model(path, size=None, batch="N", features=1000, channels=3, pooling="grid"):
    """Write random convolutions and a random head; `size` None: frames of any size.

    The file refuses frames of another `size`, as files of the model zoo do. The first filters have
    no sum, so that features depend on the shape and not on the background. A "grid" of 6 x 6 cells,
    for frames of 32 x 32 alone, keeps where things are; their "mean" takes frames of any size.
    """
    rng = np.random.default_rng(1)
    W1 = rng.standard_normal((8, channels, 5, 5))
    W1 -= W1.mean(axis=(1, 2, 3), keepdims=True)
    cells = {"grid": 36, "mean": 1}[pooling]
    tensors = {
        "W1": W1 / 9,
        "W2": rng.standard_normal((16, 8, 3, 3)) / 9,
        "W3": rng.standard_normal((features, 16 * cells)) / 16,
    }
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["frames", "W1"], ["c1"], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "W2"], ["c2"], strides=[2, 2]),
        node("Relu", ["c2"], ["r2"]),
        node("Identity" if pooling == "grid" else "GlobalAveragePool", ["r2"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "W3"], ["scores"], transB=1),
    ]
    side = (size, size) if size else ("H", "W")
    save_model(path, nodes, tensors, (batch, channels, *side), (batch, features))


def save_model(path, nodes, tensors, takes, gives):
    """Write a graph from "frames" to "scores"."""
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [value("frames", kind, takes)],
        [value("scores", kind, gives)],
        [onnx.numpy_helper.from_array(x.astype(np.float32), name) for name, x in tensors.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
