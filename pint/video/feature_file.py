"""The HDF5 file of features: laid out once, filled clip by clip (docs/hmdb51.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from pint.options import at_least
from pint.results.atomic import check_folder, put_in_place, temporary_beside
from pint.results.provenance import provenance
from pint.video.backbone import NUM_FEATURES
from pint.video.clips import UNUSED, Clips

__all__ = ["FORMAT_VERSION", "FeatureFile", "FeatureOptions", "open_features"]

FORMAT_VERSION = 1
"""Raised only when a reader of the version before would misread the file."""

PENDING, STORED, SKIPPED = 0, 1, 2
_REASON_BYTES = 200
_KIND = "clip features"


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What decides the features and the parts; a file cannot go on with other ones.

    Parameters
    ----------
    model_sha256 : str
        SHA-256 of the ONNX file.
    split : str
        Which clips are for training and for the test, in words.
    frames : int, default 128
        Frames of a clip that are kept; shorter clips are filled up with zeros.
    size : int, default 240
        Height and width that frames are resized to.
    dtype : {"float16", "float32"}, default "float16"
        Type of the stored features.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    model_sha256: str
    split: str
    frames: int = 128
    size: int = 240
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        at_least("frames", self.frames, 1)
        at_least("size", self.size, 1)
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, got {self.dtype!r}")


class FeatureFile:
    """A file of features that is being filled; a context manager.

    All its space is laid out when it is made, under a temporary name. From then on values are
    only written where they belong and the structure of the file stays as it is, so that a process
    that is killed at any time leaves a file that can be read, and gone on with. A clip is marked
    as stored after its features are.

    Parameters
    ----------
    path : Path
        The file. If there is one it is gone on with.
    clips : Clips
        The clips whose features it is to hold.
    options : FeatureOptions
        How they are made.
    notes : mapping of str to str or int, optional
        Further attributes of a new file.

    Raises
    ------
    ValueError
        If there is a file of another kind, of other clips or with other options.
    OSError
        If the file cannot be written, or another process is at work on it.
    """

    def __init__(
        self,
        path: Path,
        clips: Clips,
        options: FeatureOptions,
        notes: Mapping[str, str | int] | None = None,
    ) -> None:
        check_folder(path)
        if path.exists():
            with open_features(path) as file:
                _check_same(path, file, clips, options)
        else:
            with temporary_beside(path) as temporary:
                _lay_out(temporary, clips, options, notes or {})
                put_in_place(temporary, path)
        try:
            self._file = h5py.File(path, "r+")
        except BlockingIOError as error:
            raise OSError(f"{path}: another process is at work on it") from error
        self.path = path
        self.dtype = np.dtype(options.dtype)

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._file.close()

    def pending(self) -> NDArray[np.int64]:
        """Return which clips have no features yet, those skipped before included; new."""
        return np.flatnonzero(self._file["state"][:] != STORED)

    def store(self, clip: int, features: NDArray[Any]) -> None:
        """Keep the features of a clip.

        Parameters
        ----------
        clip : int
            Number of the clip.
        features : ndarray of the file's dtype, shape (n, 1000)
            Of its frames; n is at least 1 and at most `frames`.
        """
        whole = np.zeros(self._file["features"].shape[1:], self.dtype)
        whole[: len(features)] = features
        self._file["features"][clip] = whole
        self._file["num_frames"][clip] = len(features)
        self._mark(clip, STORED, "")

    def skip(self, clip: int, reason: str) -> None:
        """Note that a clip cannot be read, and why."""
        self._mark(clip, SKIPPED, reason)

    def _mark(self, clip: int, state: int, reason: str) -> None:
        self._file["reason"][clip] = reason.encode("ascii", "replace")[:_REASON_BYTES]
        self._file.flush()  # the state is not to reach the disk before what it speaks of
        self._file["state"][clip] = state
        self._file["finished"][...] = False
        self._file.flush()

    def skipped(self) -> dict[str, str]:
        """Return the clips that were skipped, with the reasons."""
        chosen = np.flatnonzero(self._file["state"][:] == SKIPPED)
        names, reasons = self._file["clip"].asstr()[:], self._file["reason"].asstr()[:]
        return {str(names[clip]): str(reasons[clip]) for clip in chosen}

    def stored(self) -> NDArray[np.int64]:
        """Return which clips have features; new."""
        return np.flatnonzero(self._file["state"][:] == STORED)

    def finish(self, parts: NDArray[np.uint8]) -> None:
        """Note the part of each clip, and that no clip is left.

        Parameters
        ----------
        parts : ndarray of uint8, shape (clips,)
            `TRAIN` or `TEST` for those that are stored; the others become `UNUSED`.
        """
        self._file["part"][:] = np.where(self._file["state"][:] == STORED, parts, UNUSED)
        self._file.flush()
        self._file["finished"][...] = True
        self._file.flush()


def open_features(path: Path) -> h5py.File:
    """Open a file of features for reading.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is another file, or of a newer version.
    OSError
        If another process is at work on it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except BlockingIOError as error:
        raise OSError(f"{path}: another process is at work on it") from error
    except OSError as error:
        raise ValueError(f"{path}: is no HDF5 file") from error
    if file.attrs.get("kind") != _KIND:
        file.close()
        raise ValueError(f"{path}: holds no features of clips")
    if file.attrs["format_version"] > FORMAT_VERSION:
        version = file.attrs["format_version"]
        file.close()
        raise ValueError(
            f"{path}: format version {version}, this pint reads up to {FORMAT_VERSION}"
        )
    return file


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A dataset: its values when it is laid out, and what they mean."""

    values: Any
    description: str
    dtype: Any = field(default=None)


def _lay_out(
    path: Path, clips: Clips, options: FeatureOptions, notes: Mapping[str, str | int]
) -> None:
    """Write a file with room for all clips."""
    count = len(clips.names)
    text = h5py.string_dtype()
    columns = {
        "clip": _Column(values=clips.names, dtype=text, description="class/file of each clip"),
        "class_names": _Column(
            values=clips.class_names, dtype=text, description="name of each label"
        ),
        "label": _Column(values=clips.labels, description="class of each clip"),
        "part": _Column(values=clips.parts, description="0 not used, 1 training, 2 test"),
        "num_frames": _Column(
            values=np.zeros(count, np.int64), description="frames kept; rows behind them are zero"
        ),
        "state": _Column(
            values=np.full(count, PENDING, np.uint8), description="0 to do, 1 stored, 2 skipped"
        ),
        "reason": _Column(
            values=np.zeros(count, f"S{_REASON_BYTES}"),
            description="why a clip was skipped",
        ),
        "finished": _Column(values=False, description="whether no clip is left to do"),
    }
    with h5py.File(path, "w") as file:
        file.attrs.update({"kind": _KIND, "format_version": FORMAT_VERSION})
        file.attrs.update({**provenance(), **notes, **asdict(options)})
        for name, column in columns.items():
            dataset = file.create_dataset(name, data=column.values, dtype=column.dtype)
            dataset.attrs["description"] = column.description
        features = file.create_dataset(
            "features",
            shape=(count, options.frames, NUM_FEATURES),
            dtype=options.dtype,
            chunks=(1, options.frames, NUM_FEATURES),
            dcpl=_with_room(),
        )
        features.attrs["description"] = "features of each frame (clip, frame, feature)"


def _with_room() -> Any:
    """Return properties of a dataset whose chunks all have their place from the begin."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties


def _check_same(path: Path, file: h5py.File, clips: Clips, options: FeatureOptions) -> None:
    """Raise unless a file holds the same clips, made alike."""
    remedy = "give the old value, or another file"
    for name, value in asdict(options).items():
        if file.attrs[name] != value:
            raise ValueError(
                f"{path} was begun with {name} {file.attrs[name]}, now it is {value}: {remedy}"
            )
    before = dict(zip(file["clip"].asstr()[:], file["part"][:], strict=True))
    for name in sorted(before.keys() ^ set(clips.names)):
        what = "has gone since" if name in before else "is new"
        raise ValueError(
            f"{path} was begun with {len(before)} clips, now there are {len(clips.names)}: "
            f"{name} {what}; restore them, or name another file"
        )
