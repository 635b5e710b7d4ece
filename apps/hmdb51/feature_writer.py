"""Write the HDF5 file of features, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pint.data.feature_file import (
    REASON_BYTES,
    SKIPPED,
    STORED,
    UNUSED,
    check_parts,
    open_features,
    open_hdf5,
)
from pint.results.atomic import check_folder, put_in_place, temporary_beside

from .clips import Clips
from .feature_layout import FeatureOptions, lay_out, split_attribute

__all__ = ["FeatureFile"]


class FeatureFile:
    """A file of features that is written; a context manager.

    All its space is allocated at creation, under a temporary name. Afterwards only values are
    written, in place, and the structure of the file does not change. A process that is killed at
    any time therefore leaves a readable file, and a later run continues it. A clip is marked
    as stored after its features. The parts of clips are written at the end. A later split replaces
    them, and needs only features of clips that no earlier split used.

    Parameters
    ----------
    path : Path
        The file; an existing one is continued.
    clips : Clips
        All clips of the file; the used ones get features.
    options : FeatureOptions
        Options of the features.
    notes : mapping of str to str or int, optional
        Further attributes of a new file.

    Raises
    ------
    ValueError
        If the file has another kind, other clips or other options.
    OSError
        If the file cannot be written, or another process writes it.
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
                lay_out(temporary, clips, options, notes or {})
                put_in_place(temporary, path)
        self._file = open_hdf5(path, "r+")
        self.path = path
        self.dtype = np.dtype(options.dtype)
        self._used = clips.used
        self._was_finished = bool(self._file["finished"][()])

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
        """Return which used clips have no features yet, including skipped ones; new."""
        return np.flatnonzero(self._used & (self._file["state"][:] != STORED))

    def store(self, clip: int, features: NDArray[Any]) -> None:
        """Store the features of a clip.

        Parameters
        ----------
        clip : int
            Number of the clip.
        features : ndarray of the file's dtype, shape (n, 1000)
            Features of its frames; n is at least 1 and at most `frames`.
        """
        whole = np.zeros(self._file["features"].shape[1:], self.dtype)
        whole[: len(features)] = features
        self._file["features"][clip] = whole
        self._file["num_frames"][clip] = len(features)
        self._mark(clip, STORED, "")

    def skip(self, clip: int, reason: str) -> None:
        """Mark a clip as unreadable, with the reason."""
        self._mark(clip, SKIPPED, reason)

    def _mark(self, clip: int, state: int, reason: str) -> None:
        self._file["reason"][clip] = reason.encode("ascii", "replace")[:REASON_BYTES]
        self._file.flush()  # the features must reach the disk before the state
        self._file["state"][clip] = state
        self._file["finished"][...] = False
        self._file.flush()

    def skipped(self) -> dict[str, str]:
        """Return the used clips that were skipped, with the reasons."""
        chosen = np.flatnonzero(self._used & (self._file["state"][:] == SKIPPED))
        names, reasons = self._file["clip"].asstr()[:], self._file["reason"].asstr()[:]
        return {str(names[clip]): str(reasons[clip]) for clip in chosen}

    def stored(self) -> NDArray[np.int64]:
        """Return which used clips have features; new."""
        return np.flatnonzero(self._used & (self._file["state"][:] == STORED))

    def finish(self, parts: NDArray[np.uint8], split: str) -> int:
        """Store the part of each clip, and mark the file as finished.

        Parameters
        ----------
        parts : ndarray of uint8, shape (clips,)
            `TRAIN` or `TEST` for stored and used clips; the others become `UNUSED`.
        split : str
            Description of the split.

        Returns
        -------
        int
            Number of clips that had another part in the opened file; 0 if it was not finished.

        Raises
        ------
        ValueError
            If one of the parts has no clip; the file does not change.
        """
        stored = self._used & (self._file["state"][:] == STORED)
        new = np.where(stored, parts, UNUSED).astype(np.uint8)
        check_parts(self.path, new)
        changed = int((self._file["part"][:] != new).sum()) if self._was_finished else 0
        self._file["finished"][...] = False
        self._file.flush()
        self._file["part"][:] = new
        self._file.attrs.modify("split", split_attribute(split))
        self._file.flush()
        self._file["finished"][...] = True
        self._file.flush()
        return changed


def _check_same(path: Path, file: h5py.File, clips: Clips, options: FeatureOptions) -> None:
    """Raise unless a file holds these clips, made with equal options."""
    remedy = "give the old value, or another file"
    for name, value in asdict(options).items():
        if file.attrs[name] != value:
            raise ValueError(
                f"{path} was begun with {name} {file.attrs[name]}, now it is {value}: {remedy}"
            )
    before = file["clip"].asstr()[:].tolist()
    for name in sorted(set(before) ^ set(clips.names)):
        what = "has gone since" if name in before else "is new"
        raise ValueError(
            f"{path} was begun with {len(before)} clips, now there are {len(clips.names)}: "
            f"{name} {what}; restore them, or name another file"
        )
