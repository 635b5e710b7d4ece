"""Decode the frames of a clip with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.optional import import_extra

__all__ = ["UnreadableClipError", "count_packets", "read_frames"]


class UnreadableClipError(Exception):
    """A clip cannot be decoded, or has no frame; the message has the reason."""


def read_frames(path: Path, size: int, limit: int) -> Iterator[NDArray[np.uint8]]:
    """Decode a clip, frame by frame, from its beginning.

    Parameters
    ----------
    path : Path
        The video.
    size : int
        Height and width of the frames, which are resized bilinearly from any shape.
    limit : int
        Greatest number of frames; later ones are not decoded.

    Yields
    ------
    ndarray of uint8, shape (size, size, 3)
        Red, green, blue; new.

    Raises
    ------
    UnreadableClipError
        If the file is missing or no video, or a frame cannot be decoded.
    ImportError
        If PyAV is not installed.
    """
    with _video(path) as (container, stream):
        for frame in islice(container.decode(stream), limit):
            yield frame.to_ndarray(
                format="rgb24", width=size, height=size, interpolation="BILINEAR"
            )


def count_packets(path: Path, limit: int) -> int:
    """Return a bound on the number of frames of a clip, up to a limit, without decoding.

    Raises
    ------
    UnreadableClipError
        If the file is missing or no video.
    ImportError
        If PyAV is not installed.
    """
    with _video(path) as (container, stream):
        filled = (packet for packet in container.demux(stream) if packet.size)
        return sum(1 for _ in islice(filled, limit))


@contextmanager
def _video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file and its first video stream; errors become `UnreadableClipError`."""
    av = import_extra("av", "video")
    try:
        # Metadata such as titles may have any encoding.
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnreadableClipError("it holds no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableClipError("its codec is unknown")
            stream.codec_context.thread_count = 1  # the worker processes already use all cores
            yield container, stream
    except av.FFmpegError as error:
        raise UnreadableClipError(error.strerror or type(error).__name__) from error
    except ValueError as error:
        raise UnreadableClipError(f"{type(error).__name__}: {error}") from error
