"""Decoding: size, order, colours and defects of clips made on the spot."""

import numpy as np
import pytest

from apps.hmdb51.frames import UnreadableClipError, count_packets, read_frames
from tests.moving_shapes import av, write_video


@pytest.fixture
def clip(tmp_path):
    """Ten frames of 48 x 64 that get brighter, red on the left and blue on the right."""
    images = []
    for number in range(10):
        image = np.zeros((48, 64, 3))
        image[:, :32, 0] = image[:, 32:, 2] = 60 + 15 * number
        images.append(image)
    write_video(tmp_path / "clip.avi", images)
    return tmp_path / "clip.avi"


def test_frames_are_resized_in_order_and_colours_kept(clip):
    frames = np.stack(list(read_frames(clip, 24, 128)))
    assert frames.shape == (10, 24, 24, 3)
    assert frames.dtype == np.uint8
    left, right = frames[:, 4:20, 2:9].mean(axis=(1, 2)), frames[:, 4:20, 15:22].mean(axis=(1, 2))
    expected = 60 + 15 * np.arange(10)
    # MPEG-4 is lossy; 8 of 256 is half of the step from frame to frame.
    np.testing.assert_allclose(left, np.outer(expected, [1, 0, 0]), atol=8)
    np.testing.assert_allclose(right, np.outer(expected, [0, 0, 1]), atol=8)


def test_frames_behind_the_limit_are_left_out(clip):
    whole, begin = (list(read_frames(clip, 24, limit)) for limit in (10, 4))
    assert len(begin) == 4
    assert all((a == b).all() for a, b in zip(whole, begin, strict=False))


def test_packets_are_counted_up_to_a_limit(clip):
    assert count_packets(clip, 128) == 10
    assert count_packets(clip, 3) == 3


@pytest.mark.parametrize("defect", ["missing", "empty", "text", "head only", "sound only"])
def test_unreadable_clips(tmp_path, clip, defect):
    path = tmp_path / "defect.avi"
    content = {"empty": b"", "text": b"no video" * 99, "head only": clip.read_bytes()[:1000]}
    if defect in content:
        path.write_bytes(content[defect])
    if defect == "sound only":
        write_sound(path)
    with pytest.raises(UnreadableClipError) as caught:
        list(read_frames(path, 24, 128))
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_title_in_latin_1_does_no_harm(tmp_path, clip):
    """The new title of the file has the number of bytes of the old one."""
    path = tmp_path / "titled.avi"
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        container.metadata["title"] = "Cafe"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    content = path.read_bytes()
    assert content.count(b"Cafe") == 1
    path.write_bytes(content.replace(b"Cafe", b"Caf\xe9"))
    assert len(list(read_frames(path, 24, 128))) == count_packets(path, 128) == 10


def test_errors_of_the_decoder_that_are_not_its_own(clip, monkeypatch):
    """Whatever value of a file PyAV stumbles over, the clip alone is lost."""

    def stumble(path, metadata_errors):
        raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid byte")

    monkeypatch.setattr(av, "open", stumble)
    with pytest.raises(UnreadableClipError, match="UnicodeDecodeError: 'utf-8' codec"):
        list(read_frames(clip, 24, 128))
    with pytest.raises(UnreadableClipError, match="UnicodeDecodeError: 'utf-8' codec"):
        count_packets(clip, 128)


def test_a_codec_that_nobody_knows(tmp_path, clip):
    content = clip.read_bytes()
    assert b"FMP4" in content
    (tmp_path / "odd.avi").write_bytes(content.replace(b"FMP4", b"ZZ9Q"))
    with pytest.raises(UnreadableClipError, match="its codec is unknown"):
        list(read_frames(tmp_path / "odd.avi", 24, 128))


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
