"""Compute features of all clips in several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pint.options import at_least

from .backbone import Backbone
from .frames import UnreadableClipError, read_frames

__all__ = ["Extraction", "Outcome", "clip_features", "extract"]

_HAS_BEGUN = "has begun"
"""Message of a process before its first clip; other messages are no texts."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Options of the computation of features.

    Parameters
    ----------
    model : Path
        ONNX file of the network.
    frames : int
        Greatest number of frames of a clip.
    size : int
        Height and width of the resized frames.
    dtype : str
        Type of the features.
    batch : int, default 16
        Number of frames in one call of the network.
    min_frames : int, default 1
        Least number of decoded frames of a clip.
    threads : int, default 1
        Threads of the network in each process.

    Raises
    ------
    ValueError
        If a number is less than 1.
    """

    model: Path
    frames: int
    size: int
    dtype: str
    batch: int = 16
    min_frames: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("frames", "size", "batch", "min_frames", "threads"):
            at_least(name, getattr(self, name), 1)
        if self.min_frames > self.frames:
            raise ValueError(
                f"min_frames {self.min_frames} is more than the {self.frames} frames that are kept"
            )

    def backbone(self) -> Backbone:
        """Return the network, after a test; errors as in `Backbone`."""
        return Backbone(self.model, self.size, min(self.batch, self.frames), self.threads)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of a clip: its features, or the reason for their absence.

    Attributes
    ----------
    clip : int
        Number of the clip.
    features : ndarray, shape (n, 1000), or None
        One row for each frame.
    reason : str
        Why there are no features.
    """

    clip: int
    features: NDArray[Any] | None
    reason: str = ""


def clip_features(path: Path, backbone: Backbone, how: Extraction) -> NDArray[Any]:
    """Return the features of the first frames of a clip.

    Returns
    -------
    ndarray of ``how.dtype``, shape (n, 1000)
        New; n is at most ``how.frames``.

    Raises
    ------
    UnreadableClipError
        If the clip cannot be decoded, or has fewer than ``how.min_frames`` frames.
    ValueError
        If the network fails, or the features are too large for the dtype; the message names the
        clip.
    """
    batches = _batches(read_frames(path, how.size, how.frames), backbone.batch)
    try:
        rows = [backbone.features(frames) for frames in batches]
    except ValueError as error:  # an error of the network, not of the clip
        raise ValueError(f"{path}: {error}") from error
    count = sum(map(len, rows))
    if count < how.min_frames:
        raise UnreadableClipError(f"{count} frames can be decoded, {how.min_frames} are the least")
    whole = np.concatenate(rows)
    if np.abs(whole).max() > np.finfo(how.dtype).max:
        raise ValueError(f"{path}: features are too large for {how.dtype}: take float32")
    return whole.astype(how.dtype)


def _batches(frames: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    waiting = []
    for frame in frames:
        waiting.append(frame)
        if len(waiting) == size:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


def extract(
    paths: Sequence[Path], chosen: Sequence[int], how: Extraction, num_workers: int
) -> Iterator[Outcome]:
    """Yield the outcome of each chosen clip when its process has finished it.

    The processes end with the iterator. A process that dies, for example by a fault of a decoder,
    is replaced, and its clip has no features.

    Parameters
    ----------
    paths : sequence of Path
        Files of all clips.
    chosen : sequence of int
        Numbers of the clips to read.
    how : Extraction
        Options of the computation.
    num_workers : int
        Number of processes.

    Raises
    ------
    ValueError
        If the network fails or features are too large for their type.
    RuntimeError
        If a process ends before its first clip.
    """
    at_least("num_workers", num_workers, 1)
    to_do = iter([int(clip) for clip in chosen])
    workers = [_Worker(how) for _ in range(min(num_workers, len(chosen)))]
    try:
        for worker in workers:
            worker.give(next(to_do), paths)
        while busy := {worker.connection: worker for worker in workers if worker.clip is not None}:
            for connection in wait(list(busy)):
                worker = busy[cast(Connection, connection)]
                outcome = worker.take()
                if outcome is None:
                    continue
                yield outcome
                following = next(to_do, None)
                if following is not None:
                    worker.give(following, paths)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, and its present clip."""

    def __init__(self, how: Extraction) -> None:
        self.how = how
        self.clip: int | None = None
        self._start()

    def _start(self) -> None:
        # A forked process would inherit the locks of threads, but not the threads.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.how), daemon=True)
        # Ctrl-C is for this process alone: the new one inherits the blocked signal. The
        # first process would start the tracker as well, which unblocks it.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.has_begun = False

    def give(self, clip: int, paths: Sequence[Path]) -> None:
        """Start a clip, in a new process if the old one has died."""
        if not self.process.is_alive():
            self.end()
            self._start()
        self.clip = clip
        self.connection.send(paths[clip])

    def take(self) -> Outcome | None:
        """Return the outcome of the clip; None if the message is only its start."""
        try:
            got = self.connection.recv()
        except (EOFError, ConnectionResetError):
            if not self.has_begun:
                raise RuntimeError(f"a process died at its start, {self._end()}") from None
            got = UnreadableClipError(f"the process that read it died, {self._end()}")
        if isinstance(got, str):
            self.has_begun = True
            return None
        assert self.clip is not None
        clip, self.clip = self.clip, None
        if isinstance(got, UnreadableClipError):
            return Outcome(clip, None, str(got))
        if isinstance(got, Exception):
            raise got
        return Outcome(clip, got)

    def _end(self) -> str:
        """Describe how the process ended."""
        self.process.join()
        code = self.process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """Kill the process."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, how: Extraction) -> None:
    """Answer paths with features or an exception, until the pipe is closed."""
    backbone = how.backbone()
    with contextlib.suppress(EOFError, BrokenPipeError):
        connection.send(_HAS_BEGUN)
        while True:
            path = connection.recv()
            try:
                connection.send(clip_features(path, backbone, how))
            except (UnreadableClipError, ValueError) as error:
                connection.send(error)
