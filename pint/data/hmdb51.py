"""Read the features of video clips that apps.hmdb51 wrote."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from pint.data.feature_file import TEST, TRAIN, check_parts, open_features
from pint.data.sequences import SequenceData
from pint.data.stored import StoredSequences

__all__ = ["load_features"]


def load_features(path: str | os.PathLike[str]) -> SequenceData:
    """Load the features of HMDB51, frame by frame.

    Sequences stay in the file and are read batch by batch, as float32 from either precision. The
    file stays open as long as the data are in use.

    Parameters
    ----------
    path : path-like
        File that ``python -m apps.hmdb51`` has written.

    Returns
    -------
    SequenceData
        The parts of the file, with 1000 features at each frame, and masks that are False behind
        the last frame of a clip.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is another file, damaged, not finished, or has no clip in one of the parts. Later,
        if a clip of a batch cannot be read or holds values that are not finite.
    OSError
        If `apps.hmdb51` writes it, or it may not be read.

    Examples
    --------
    >>> load_features("features.h5").x_train.shape  # doctest: +SKIP
    (6053, 128, 1000)
    """
    file = open_features(Path(path))
    try:
        return _as_data(file)
    except BaseException:
        file.close()
        raise


def _as_data(file: h5py.File) -> SequenceData:
    """Return the two parts of a file that stays open."""
    path = Path(file.filename)
    if not file["finished"][()]:
        stored = np.count_nonzero(file["num_frames"][:])
        raise ValueError(
            f"{path} is not finished, {stored} clips so far: give the command of apps.hmdb51 again "
            "that was to fill it"
        )
    part, label, num_frames = (file[name][:] for name in ("part", "label", "num_frames"))
    check_parts(path, part)
    train, test = (np.flatnonzero(part == each) for each in (TRAIN, TEST))
    names = file["clip"].asstr()[:].tolist()
    mask = np.arange(file["features"].shape[1]) < num_frames[:, None]
    return SequenceData(
        name="hmdb51",
        x_train=StoredSequences(file["features"], train, names),
        y_train=label[train],
        mask_train=mask[train],
        x_test=StoredSequences(file["features"], test, names),
        y_test=label[test],
        mask_test=mask[test],
        class_names=tuple(file["class_names"].asstr()[:].tolist()),
    )
