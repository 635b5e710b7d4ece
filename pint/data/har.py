"""Read the raw inertial signals of UCI-HAR."""

import io
import os
import tempfile
import zipfile
from pathlib import Path

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


def _signal_file(channel: str, split: str) -> str:
    return f"{split}/Inertial Signals/{channel}_{split}.txt"


def _label_file(split: str) -> str:
    return f"{split}/y_{split}.txt"


_HAR_FILES = (
    _HAR_NAMES_FILE,
    *(_label_file(split) for split in ("train", "test")),
    *(_signal_file(channel, split) for split in ("train", "test") for channel in _HAR_CHANNELS),
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
        The folder "UCI HAR Dataset" in its original layout, or the folder that contains it; it may
        hold any number of windows. Without it, the archive (61 MB) is downloaded from the UCI
        repository, checked against its SHA-256 and unpacked, once, into the user's cache,
        ``pooch.os_cache("pint")``.

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
    """Unpack the files of `load_har`; the folder appears complete or not at all."""
    target = folder / _HAR_FOLDER
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _extract_har(archive, Path(scratch))
        try:
            (Path(scratch) / _HAR_FOLDER).rename(target)
        except OSError:
            # Of several processes that unpack at the same time (MPI ranks), the first renames.
            if not target.is_dir():
                raise


def _extract_har(archive: Path, folder: Path) -> None:
    wanted = [f"{_HAR_FOLDER}/{file}" for file in _HAR_FILES]
    # UCI wraps the original archive in a second one.
    with zipfile.ZipFile(archive) as outer:
        original = io.BytesIO(outer.read(f"{_HAR_FOLDER}.zip"))
    with zipfile.ZipFile(original) as inner:
        inner.extractall(folder, members=wanted)


def _find_har(data_dir: Path) -> Path:
    """Return the folder "UCI HAR Dataset" in or at `data_dir`, with all its files in place."""
    root = data_dir / _HAR_FOLDER
    if not root.is_dir():
        root = data_dir
    if not (root / "train").is_dir():
        raise FileNotFoundError(
            f"{data_dir}: neither contains nor is the folder '{_HAR_FOLDER}'; "
            f"expected layout: {_HAR_LAYOUT}"
        )
    for file in _HAR_FILES:
        if not (root / file).is_file():
            raise FileNotFoundError(f"{root / file}: missing; expected layout: {_HAR_LAYOUT}")
    return root


def _read_har_split(root: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    label_path = root / _label_file(split)
    labels = _read_labels(label_path)
    channels = []
    for channel in _HAR_CHANNELS:
        path = root / _signal_file(channel, split)
        values = _read_signal(path)
        if len(values) != len(labels):
            raise ValueError(
                f"{path}: expected {len(labels)} rows like {label_path.name}, got {len(values)}"
            )
        channels.append(values)
    return np.stack(channels, axis=-1), labels


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without blank ones at its end."""
    # A byte that is not ASCII becomes a character that no number contains, and so is reported
    # with its line rather than as a decoding error.
    text = path.read_text(encoding="ascii", errors="replace").rstrip()
    if not text:
        raise ValueError(f"{path}: the file is empty")
    return text.split("\n")


def _read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names of the lines "1 WALKING", "2 WALKING_UPSTAIRS", ..., in this order."""
    lines = _read_lines(path)
    if len(lines) != _HAR_CLASSES:
        raise ValueError(f"{path}: expected {_HAR_CLASSES} lines, got {len(lines)}")
    names = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) != 2 or words[0] != str(number):
            raise ValueError(f"{path}, line {number}: expected '{number} NAME', got {line!r}")
        names.append(words[1])
    return tuple(names)


def _read_labels(path: Path) -> NDArray[np.int64]:
    """Return labels 1..6, one per line, as classes 0..5."""
    class_of = {str(label): label - 1 for label in range(1, _HAR_CLASSES + 1)}
    labels = []
    for number, line in enumerate(_read_lines(path), start=1):
        label = class_of.get(line.strip())
        if label is None:
            raise ValueError(
                f"{path}, line {number}: expected an integer label in 1..{_HAR_CLASSES}, "
                f"got {line.strip()!r}"
            )
        labels.append(label)
    return np.array(labels, dtype=np.int64)


def _read_signal(path: Path) -> NDArray[np.float32]:
    """Return the values of one channel, shape (windows, 128)."""
    lines = _read_lines(path)
    values = _parse_rows(lines)
    if values is None:
        # Looking at each line by itself is slow, so it is done only when there is a defect to name.
        defects = enumerate(map(_row_defect, lines), start=1)
        number, defect = next((number, defect) for number, defect in defects if defect)
        raise ValueError(f"{path}, line {number}: {defect}")
    return values


def _parse_rows(lines: list[str]) -> NDArray[np.float32] | None:
    """Return one row of 128 finite values per line, or None if any line is not such a row."""
    try:
        values = np.loadtxt(lines, dtype=np.float32, comments=None, ndmin=2)
    except ValueError:
        return None
    # loadtxt skips blank lines; they show as a lack of rows.
    is_complete = values.shape == (len(lines), _HAR_STEPS)
    return values if is_complete and np.isfinite(values).all() else None


def _row_defect(line: str) -> str | None:
    """Return the defect of a line of a signal file, or None."""
    words = line.split()
    if len(words) != _HAR_STEPS:
        return f"expected {_HAR_STEPS} values, got {len(words)}"
    if _parse_rows([line]) is not None:
        return None
    defects = (_word_defect(word) for word in words)
    return next(f"value {i} {defect}" for i, defect in enumerate(defects, start=1) if defect)


def _word_defect(word: str) -> str | None:
    """Return the defect of one value, read as whole files are, or None."""
    try:
        value = np.loadtxt([word], dtype=np.float32, comments=None)
    except ValueError:
        return f"is not a number: {word!r}"
    return None if np.isfinite(value) else f"is not finite in float32: {word!r}"
