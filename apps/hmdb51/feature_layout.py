"""Lay out a new file of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from pint.data.feature_file import (
    _KIND,
    _SPLIT_BYTES,
    FORMAT_VERSION,
    NUM_FEATURES,
    PENDING,
    REASON_BYTES,
)
from pint.options import at_least
from pint.results.provenance import provenance

from .clips import Clips


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """The options that determine the features; a file continues only with equal ones.

    Parameters
    ----------
    model_sha256 : str
        SHA-256 of the ONNX file.
    frames : int, default 128
        Number of stored frames of a clip; shorter clips are padded with zeros.
    size : int, default 240
        Height and width of the resized frames.
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
    """A dataset: its initial values, and their meaning."""

    values: Any
    description: str
    dtype: Any = field(default=None)


def lay_out(
    path: Path, clips: Clips, options: FeatureOptions, notes: Mapping[str, str | int]
) -> None:
    """Write a file with space for all clips; `notes` are further attributes."""
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
    """Return the attribute that describes the split of clips, a text of fixed length.

    The attribute can then be rewritten in place, without a change of the structure of the file.
    """
    return np.array(split.encode("ascii", "replace"), dtype=f"S{_SPLIT_BYTES}")


def _with_room() -> Any:
    """Return properties of a dataset whose chunks are all allocated at creation."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties
