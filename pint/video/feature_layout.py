"""What stands in an HDF5 file of features, and whether it is all there (docs/hmdb51.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from pint.options import at_least
from pint.results.provenance import provenance
from pint.video.backbone import NUM_FEATURES
from pint.video.clips import TEST, TRAIN, Clips

__all__ = [
    "FORMAT_VERSION",
    "REASON_BYTES",
    "SKIPPED",
    "STORED",
    "FeatureOptions",
    "check_parts",
    "lay_out",
    "open_features",
    "open_hdf5",
    "split_attribute",
]

FORMAT_VERSION = 1
"""Raised only when a reader of the version before would misread the file."""

PENDING, STORED, SKIPPED = 0, 1, 2
REASON_BYTES = 200
_SPLIT_BYTES = 100
_KIND = "clip features"


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """What decides the features; a file cannot go on with other ones.

    Parameters
    ----------
    model_sha256 : str
        SHA-256 of the ONNX file.
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
    frames: int = 128
    size: int = 240
    dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        at_least("frames", self.frames, 1)
        at_least("size", self.size, 1)
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, got {self.dtype!r}")


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A dataset: its values when it is laid out, and what they mean."""

    values: Any
    description: str
    dtype: Any = field(default=None)


def lay_out(
    path: Path, clips: Clips, options: FeatureOptions, notes: Mapping[str, str | int]
) -> None:
    """Write a file with room for all clips; further attributes are `notes`."""
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
            values=np.zeros(count, f"S{REASON_BYTES}"),
            description="why a clip was skipped",
        ),
        "finished": _Column(values=False, description="whether no clip is left to do"),
    }
    with h5py.File(path, "w") as file:
        file.attrs.update({"kind": _KIND, "format_version": FORMAT_VERSION})
        file.attrs.update({**provenance(), **notes, **asdict(options)})
        file.attrs["split"] = split_attribute("")
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


def split_attribute(split: str) -> NDArray[np.bytes_]:
    """Return the attribute that tells in words how clips are split; its length is always the same.

    So that it can be rewritten where it stands, and the structure of the file stays as it is.
    """
    return np.array(split.encode("ascii", "replace"), dtype=f"S{_SPLIT_BYTES}")


def _with_room() -> Any:
    """Return properties of a dataset whose chunks all have their place from the begin."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties


def open_features(path: Path) -> h5py.File:
    """Open a file of features for reading.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is another file, of a newer version, or damaged.
    OSError
        If another process is at work on it, or it may not be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    file = open_hdf5(path, "r")
    try:
        wrong = _what_is_wrong(file)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        wrong = f"damaged: {error}"  # h5py has no common class of its errors
    if wrong:
        file.close()
        raise ValueError(f"{path}: {wrong}")
    return file


def open_hdf5(path: Path, mode: Literal["r", "r+"]) -> h5py.File:
    """Open a file that exists; what fails is told with its name.

    Raises
    ------
    ValueError
        If it is no HDF5 file, or a part of one.
    OSError
        If another process is at work on it, or it may not be opened.
    """
    try:
        return h5py.File(path, mode)
    except BlockingIOError as error:
        raise OSError(f"{path}: another process is at work on it") from error
    except PermissionError as error:
        what = "read" if mode == "r" else "write"
        raise PermissionError(f"{path}: no permission to {what} it") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened as HDF5: {error}") from error


def _what_is_wrong(file: h5py.File) -> str:
    """Say why a file is refused; nothing if it is not."""
    if file.attrs.get("kind") != _KIND:
        return "holds no features of clips"
    version = file.attrs.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        return f"format version {version}, this pint reads up to {FORMAT_VERSION}"
    damage = _damage(file)
    return f"damaged: {damage}" if damage else ""


def _damage(file: h5py.File) -> str:
    """Say what of `lay_out` is missing or contradicts itself; nothing if the file is whole."""
    for name in ("format_version", "split", *(each.name for each in fields(FeatureOptions))):
        if name not in file.attrs:
            return f"no attribute {name}"
    count, num_classes = (getattr(file.get(name), "size", 0) for name in ("clip", "class_names"))
    frames = int(file.attrs["frames"])
    expected = {
        "finished": ("b", ()),
        "clip": ("O", (count,)),
        "class_names": ("O", (num_classes,)),
        "reason": ("S", (count,)),
        **dict.fromkeys(("label", "part", "num_frames", "state"), ("iu", (count,))),
        "features": ("f", (count, frames, NUM_FEATURES)),
    }
    for name, (kinds, shape) in expected.items():
        found = file.get(name)
        if not isinstance(found, h5py.Dataset):
            return f"no dataset {name}"
        if found.shape != shape:
            return f"{name} has the shape {found.shape}, expected {shape}"
        if found.dtype.kind not in kinds:
            return f"{name} has the type {found.dtype}"
        if kinds == "O":
            found.asstr()[:]  # raises where a text is damaged
    for name, last in (("label", num_classes - 1), ("num_frames", frames)):
        values = file[name][:]
        outside = values[(values < 0) | (values > last)]
        if outside.size:
            return f"{name} must lie in 0..{last}, got {outside[0]}"
    return ""


def check_parts(path: Path, part: NDArray[np.uint8]) -> None:
    """Raise `ValueError` unless there are clips for training and for the test."""
    train, test = (np.count_nonzero(part == each) for each in (TRAIN, TEST))
    if not (train and test):
        raise ValueError(f"{path} has {train} clips for training and {test} for the test")
