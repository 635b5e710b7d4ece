"""Open an HDF5 file of features and check its contents (docs/hmdb51.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
"""Raised only when a reader of the previous version would misread the file."""

NUM_FEATURES = 1000
"""Number of features of a frame: the scores of ImageNet's classes."""

UNUSED, TRAIN, TEST = 0, 1, 2
"""Numbers of the parts of a data set, as in HMDB51's split files."""

OPTION_NAMES = ("model_sha256", "frames", "size", "dtype")
"""Attributes that hold the options of the features."""

PENDING, STORED, SKIPPED = 0, 1, 2
REASON_BYTES = 200
_SPLIT_BYTES = 100
_KIND = "clip features"


def open_features(path: Path) -> h5py.File:
    """Open a file of features for reading.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is another file, of a newer version, or damaged.
    OSError
        If another process writes it, or it may not be read.
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
    """Open an existing file; errors give its name.

    Raises
    ------
    ValueError
        If it is no HDF5 file, or truncated.
    OSError
        If another process writes it, or it may not be opened.
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
    """Return why a file is refused, or an empty text."""
    if file.attrs.get("kind") != _KIND:
        return "holds no features of clips"
    version = file.attrs.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        return f"format version {version}, this pint reads up to {FORMAT_VERSION}"
    damage = _damage(file)
    return f"damaged: {damage}" if damage else ""


def _damage(file: h5py.File) -> str:
    """Return what is missing or inconsistent in a file, or an empty text."""
    for name in ("format_version", "split", *OPTION_NAMES):
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
        if wrong := _wrong_dataset(file, name, kinds, shape):
            return wrong
    for name, last in (("label", num_classes - 1), ("num_frames", frames)):
        values = file[name][:]
        outside = values[(values < 0) | (values > last)]
        if outside.size:
            return f"{name} must lie in 0..{last}, got {outside[0]}"
    return ""


def _wrong_dataset(file: h5py.File, name: str, kinds: str, shape: tuple[int, ...]) -> str:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        return f"no dataset {name}"
    if found.shape != shape:
        return f"{name} has the shape {found.shape}, expected {shape}"
    if found.dtype.kind not in kinds:
        return f"{name} has the type {found.dtype}"
    if kinds == "O":
        found.asstr()[:]  # raises where a text is damaged
    return ""


def check_parts(path: Path, part: NDArray[np.uint8]) -> None:
    """Raise `ValueError` unless there are clips for training and for the test."""
    train, test = (np.count_nonzero(part == each) for each in (TRAIN, TEST))
    if not (train and test):
        raise ValueError(f"{path} has {train} clips for training and {test} for the test")
