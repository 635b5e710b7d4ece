"""Read the raw inertial signals of UCI-HAR."""

import io
import os
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.data.sequences import SequenceData
from pint.optional import import_extra

__all__ = ["load_har"]


_HAR_URL = (
    "https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip"
)
# UCI publishes no checksum. Unrelated public projects that downloaded the archive record this
# one: isglobal-brge/dsFlowerClient (tools/campaign/multiclass/har561_protocol.json),
# yoavmp/ml-neuro-tutorials (scripts/export_uci_har_data.py) and
# abdullahuseyinli-dot/inclusive-shift-har (docs/DATA_ACQUISITION_RUNBOOK.md), all on GitHub.
_HAR_HASH = "sha256:c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031"

_HAR_FOLDER = "UCI HAR Dataset"
_HAR_STEPS = 128
_HAR_CLASSES = 6
_HAR_CHANNELS = tuple(
    f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
_HAR_NAMES_FILE = "activity_labels.txt"
_LABEL_FILE = "{0}/y_{0}.txt"
_SIGNAL_FILE = "{0}/Inertial Signals/{1}_{0}.txt"
_HAR_FILES = (
    _HAR_NAMES_FILE,
    *(_LABEL_FILE.format(split) for split in ("train", "test")),
    *(_SIGNAL_FILE.format(split, name) for split in ("train", "test") for name in _HAR_CHANNELS),
)
_HAR_LAYOUT = (
    f"'{_HAR_FOLDER}/' with {_HAR_NAMES_FILE}, {{train,test}}/y_{{train,test}}.txt and "
    "{train,test}/Inertial Signals/{body_acc,body_gyro,total_acc}_{x,y,z}_{train,test}.txt"
)


def load_har(data_dir: str | os.PathLike[str] | None = None) -> SequenceData:
    """Load UCI-HAR, the raw signals of a smartphone worn during six activities.

    A sequence is a window of 2.56 s, 128 steps at 50 Hz. The nine features are body_acc x y z (in
    g), body_gyro x y z (in rad/s) and total_acc x y z (in g). Values are read as float32,
    neither standardised nor shuffled; label 1 of the files is class 0.

    Parameters
    ----------
    data_dir : path-like, optional
        The folder "UCI HAR Dataset" in its original layout, the folder that contains it, or the
        folder above that; it may hold any number of windows. Without it, the archive (61 MB)
        is downloaded from the UCI repository, checked against its SHA-256 and unpacked, once, into
        the user's cache, ``pooch.os_cache("pint")``.

    Returns
    -------
    SequenceData
        New arrays, 6 classes, 128 steps, 9 features; 7352 windows for training and 2947 for the
        test in the full set. The subjects of the two parts differ.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If a file is empty, a row has not 128 values, a value is no finite float32, a label is not
        one of 1..6, or files differ in their number of rows; or if the downloaded archive does not
        have the expected checksum.
    ImportError
        If `data_dir` is None and pooch is not installed.
    OSError
        If a file cannot be read or the download fails.

    Notes
    -----
    UCI gives the licence as CC BY 4.0; the README inside the archive excludes commercial use.

    References
    ----------
    D. Anguita, A. Ghio, L. Oneto, X. Parra and J. L. Reyes-Ortiz, "A Public Domain Dataset for
    Human Activity Recognition Using Smartphones", ESANN 2013, https://doi.org/10.24432/C54S4K.

    Examples
    --------
    >>> load_har().x_train.shape  # doctest: +SKIP
    (7352, 128, 9)
    """
    root = _find_har(_download_har() if data_dir is None else Path(data_dir))
    class_names = _read_class_names(root / _HAR_NAMES_FILE)
    x_train, y_train = _read_har_split(root, "train")
    x_test, y_test = _read_har_split(root, "test")
    return SequenceData(
        name="har",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=class_names,
    )


def _download_har() -> Path:
    """Return the folder of the user's cache with the unpacked data set."""
    pooch = import_extra("pooch", "data")
    cache = Path(pooch.os_cache("pint"))
    if not (cache / _HAR_FOLDER).is_dir():
        archive = pooch.retrieve(
            url=_HAR_URL, known_hash=_HAR_HASH, fname="uci_har.zip", path=cache
        )
        _unpack_har(Path(archive), cache)
    return cache


def _unpack_har(archive: Path, folder: Path) -> None:
    """Unpack the files that `load_har` reads; the folder appears complete or not at all."""
    target = folder / _HAR_FOLDER
    wanted = [f"{_HAR_FOLDER}/{file}" for file in _HAR_FILES]
    with zipfile.ZipFile(archive) as outer:  # UCI wraps the original archive in a second one
        original = io.BytesIO(outer.read(f"{_HAR_FOLDER}.zip"))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with zipfile.ZipFile(original) as inner:
            inner.extractall(scratch, members=wanted)
        try:
            (Path(scratch) / _HAR_FOLDER).rename(target)
        except OSError:
            # Of several processes that unpack at once, such as MPI ranks, only the first renames.
            if not target.is_dir():
                raise


def _find_har(data_dir: Path) -> Path:
    """Return the folder "UCI HAR Dataset" with all its files: at, in or below `data_dir`."""
    below = sorted(data_dir.glob(f"*/{_HAR_FOLDER}"))
    candidates = [data_dir / _HAR_FOLDER, data_dir, *below]
    root = next((folder for folder in candidates if (folder / "train").is_dir()), None)
    if root is None:
        raise FileNotFoundError(
            f"{data_dir}: neither contains nor is the folder '{_HAR_FOLDER}'; "
            f"expected layout: {_HAR_LAYOUT}"
        )
    for file in _HAR_FILES:
        if not (root / file).is_file():
            raise FileNotFoundError(f"{root / file}: missing; expected layout: {_HAR_LAYOUT}")
    return root


def _read_har_split(root: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    label_path = root / _LABEL_FILE.format(split)
    labels = _read_labels(label_path)
    channels = []
    for channel in _HAR_CHANNELS:
        path = root / _SIGNAL_FILE.format(split, channel)
        values = _read_signal(path)
        if len(values) != len(labels):
            raise ValueError(
                f"{path}: expected {len(labels)} rows like {label_path.name}, got {len(values)}"
            )
        channels.append(values)
    return np.stack(channels, axis=-1), labels


def _read_table(path: Path, dtype: type) -> NDArray[Any]:
    """Return a text file as an array of two dimensions, a row for each line that is not blank."""
    # A byte that is not ASCII becomes a character that no number contains.
    with path.open(encoding="ascii", errors="replace") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is an error below
        try:
            table: NDArray[Any] = np.loadtxt(file, dtype=dtype, comments=None, ndmin=2)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if table.size == 0:
        raise ValueError(f"{path}: the file is empty")
    return table


def _read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names of the lines "1 WALKING", "2 WALKING_UPSTAIRS", ..., in this order."""
    table = _read_table(path, str)
    numbers = [str(number) for number in range(1, _HAR_CLASSES + 1)]
    if table.shape[1] != 2 or table[:, 0].tolist() != numbers:
        raise ValueError(
            f"{path}: expected {_HAR_CLASSES} lines, '1 NAME' to '{_HAR_CLASSES} NAME'"
        )
    return tuple(table[:, 1].tolist())


def _read_labels(path: Path) -> NDArray[np.int64]:
    """Return labels 1..6, one per line, as classes 0..5."""
    labels = _read_table(path, np.int64)
    _check_width(path, labels, 1)
    wrong = np.flatnonzero((labels < 1) | (labels > _HAR_CLASSES))
    if wrong.size:
        raise ValueError(
            f"{path}, line {wrong[0] + 1}: expected an integer label in 1..{_HAR_CLASSES}, "
            f"got {labels[wrong[0], 0]}"
        )
    return labels[:, 0] - 1


def _read_signal(path: Path) -> NDArray[np.float32]:
    """Return the values of one channel, shape (windows, 128)."""
    values: NDArray[np.float32] = _read_table(path, np.float32)
    _check_width(path, values, _HAR_STEPS)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path}, line {row + 1}: value {column + 1} is not finite in float32: "
            f"{values[row, column]}"
        )
    return values


def _check_width(path: Path, table: NDArray[Any], width: int) -> None:
    if table.shape[1] != width:
        raise ValueError(f"{path}, line 1: expected {width} values, got {table.shape[1]}")
