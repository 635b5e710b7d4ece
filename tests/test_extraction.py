"""Features by several processes: the same as by one, whatever becomes of clips and processes."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from apps.hmdb51.extraction import Extraction, clip_features, extract
from apps.hmdb51.frames import UnreadableClipError, read_frames
from tests.moving_shapes import FRAMES, SIZE, write_clip, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number, frames in enumerate((FRAMES, 3, 20)):
        write_clip(folder / f"{number}.avi", "up", rng, frames)
    (folder / "empty.avi").touch()
    write_model(folder / "m.onnx")
    return folder


def settings(folder, **changes):
    given = {"frames": FRAMES, "size": SIZE, "dtype": "float32", "batch": 5} | changes
    return Extraction(model=folder / "m.onnx", **given)


@pytest.mark.parametrize(("number", "frames"), [(0, FRAMES), (1, 3), (2, FRAMES)])
def test_features_of_a_clip(folder, number, frames):
    """Batch by batch, as the network gives for all frames at once; not more than are kept."""
    path, how = folder / f"{number}.avi", settings(folder)
    got = clip_features(path, how.backbone(), how)
    whole = np.stack(list(read_frames(path, SIZE, FRAMES)))
    expected = settings(folder, batch=FRAMES).backbone().features(whole)
    assert got.shape == (frames, 1000)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_rounds(folder):
    single, half = (settings(folder, dtype=dtype) for dtype in ("float32", "float16"))
    network, path = single.backbone(), folder / "0.avi"
    rounded = clip_features(path, network, half)
    assert rounded.dtype == np.float16
    np.testing.assert_array_equal(rounded, clip_features(path, network, single).astype(np.float16))


def test_features_too_large_for_half_precision(folder):
    how = settings(folder, dtype="float16")
    network = how.backbone()
    network.features = lambda frames: np.full((len(frames), 1000), 7e4, np.float32)
    with pytest.raises(ValueError, match=r"0\.avi: features are too large for float16: take flo"):
        clip_features(folder / "0.avi", network, how)


def test_an_error_of_the_network_names_the_clip(folder):
    how = settings(folder)
    network = how.backbone()
    network.size = 7  # the words of the error alone; the model takes no such frames either
    with pytest.raises(ValueError, match=r"0\.avi: .*m\.onnx does not work on 5 frames"):
        clip_features(folder / "0.avi", network, settings(folder, size=7))


def test_too_few_frames_in_a_damaged_clip(folder):
    how = settings(folder, min_frames=4)
    with pytest.raises(UnreadableClipError, match="3 frames can be decoded, 4 are the least"):
        clip_features(folder / "1.avi", how.backbone(), how)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"min_frames": 17}, "min_frames 17 is more than the 16 frames that are kept"),
    ],
    ids=["batch", "threads", "min_frames"],
)
def test_wrong_settings(folder, wrong, message):
    with pytest.raises(ValueError, match=message):
        settings(folder, **wrong)


def test_a_process_that_dies_over_a_clip_is_replaced(folder):
    """A pipe as a clip holds the only process until it is killed; the clips behind it are done."""
    trap = folder / "trap.avi"
    os.mkfifo(trap)
    paths = [trap, folder / "empty.avi", folder / "1.avi"]
    killer = threading.Thread(target=kill_the_reader_of, args=(trap,))
    killer.start()
    try:
        outcomes = list(extract(paths, range(3), settings(folder), num_workers=1))
    finally:
        killer.join()
    assert [outcome.clip for outcome in outcomes] == [0, 1, 2]
    assert outcomes[0].reason == "the process that read it died, signal 9"
    assert outcomes[1].features is None
    assert "Invalid data" in outcomes[1].reason
    assert outcomes[2].features.shape == (3, 1000)
    assert not multiprocessing.active_children()


def kill_the_reader_of(pipe):
    """Wait until a child has the pipe open, and kill it."""
    writer = open_for_writing(pipe)  # as long as it is open the child waits for what comes
    (child,) = multiprocessing.active_children()
    os.kill(child.pid, signal.SIGKILL)
    os.close(writer)


def open_for_writing(pipe):
    """Open a pipe as soon as a process reads it."""
    for _ in range(3000):
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no reader yet
            time.sleep(0.02)
    raise AssertionError("the pipe has no reader")
