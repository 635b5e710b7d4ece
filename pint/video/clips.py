"""Which clips a folder holds, and which of them are for training and for the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["TEST", "TRAIN", "UNUSED", "Clips", "draw_parts", "find_clips", "official_parts"]

UNUSED, TRAIN, TEST = 0, 1, 2
"""Parts of a data set, with the numbers of HMDB51's split files."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """Clips of a folder with their classes.

    Attributes
    ----------
    names : tuple of str
        ``class/file.avi``, in order.
    labels : ndarray of int64, shape (clips,)
        Class of each.
    class_names : tuple of str
        Names of the classes, in order.
    parts : ndarray of uint8, shape (clips,)
        `TRAIN` or `TEST`; `UNUSED` as long as that is not decided.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    parts: NDArray[np.uint8]


def find_clips(folder: Path, classes: Sequence[str] | None = None) -> Clips:
    """Return the clips in the class folders of a folder.

    Parameters
    ----------
    folder : Path
        Holds a folder for each class, which hold ``*.avi``.
    classes : sequence of str, optional
        Take these alone; all folders with clips if left out.

    Returns
    -------
    Clips
        In the order of their names, all of them `UNUSED`.

    Raises
    ------
    FileNotFoundError
        If the folder, a class or all clips are missing.
    NotADirectoryError
        If `folder` is a file.
    ValueError
        If there are fewer than two classes.
    """
    if not folder.is_dir():
        kind = NotADirectoryError if folder.exists() else FileNotFoundError
        raise kind(f"{folder}: is no folder; expected FOLDER/<class>/<name>.avi")
    found = {path.name: _videos(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    with_clips = [name for name, videos in found.items() if videos]
    if not with_clips:
        archives = any(path.suffix == ".rar" for path in folder.iterdir())
        hint = "unpack the .rar archives first" if archives else "is it the right folder?"
        raise FileNotFoundError(f"{folder}: no clips in <class>/<name>.avi; {hint}")
    chosen = sorted(set(with_clips if classes is None else classes))
    for name in chosen:
        if name not in with_clips:
            raise FileNotFoundError(
                f"{folder / name}: no clips of class {name!r}; there are {', '.join(with_clips)}"
            )
    if len(chosen) < 2:
        raise ValueError(f"{folder}: two classes are the least, got {chosen[0]!r} alone")
    return _listed({name: found[name] for name in chosen})


def _videos(folder: Path) -> list[str]:
    """Return the names of the clips in a class's folder."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".avi")


def _listed(files: dict[str, list[str]]) -> Clips:
    """Return clips, all of them unused, from the file names of each class."""
    names = tuple(f"{name}/{file}" for name, videos in files.items() for file in videos)
    labels = np.repeat(np.arange(len(files)), [len(videos) for videos in files.values()])
    return Clips(
        names=names,
        labels=labels.astype(np.int64),
        class_names=tuple(files),
        parts=np.full(len(names), UNUSED, dtype=np.uint8),
    )


def official_parts(clips: Clips, folder: Path, number: int) -> Clips:
    """Return the clips that a split of HMDB51 uses, with their parts.

    Clips that the split leaves out are left out. Those that it names and the folder has not are
    in the list: they are among the unreadable ones later.

    Parameters
    ----------
    clips : Clips
        What `find_clips` found.
    folder : Path
        Holds ``<class>_test_split<number>.txt`` for each class, with a line ``name.avi 0``, 1
        or 2 for each clip: not used, training, test.
    number : int
        1, 2 or 3.

    Raises
    ------
    FileNotFoundError
        If the file of a class is missing.
    ValueError
        If a line is another one, or a part is left without clips.

    References
    ----------
    H. Kuehne, H. Jhuang, E. Garrote, T. Poggio and T. Serre, "HMDB: A Large Video Database for
    Human Motion Recognition", ICCV 2011, https://doi.org/10.1109/ICCV.2011.6126543.
    """
    chosen: dict[str, dict[str, int]] = {}
    for name in clips.class_names:
        parts = _read_split(folder / f"{name}_test_split{number}.txt")
        chosen[name] = {file: part for file, part in sorted(parts.items()) if part != UNUSED}
    listed = _listed({name: list(files) for name, files in chosen.items()})
    parts_in_order = [part for files in chosen.values() for part in files.values()]
    for part, what in ((TRAIN, "training"), (TEST, "test")):
        if part not in parts_in_order:
            raise ValueError(f"{folder}: split {number} has no clip for {what}")
    return replace(listed, parts=np.array(parts_in_order, dtype=np.uint8))


def _read_split(path: Path) -> dict[str, int]:
    """Return the part of each clip that the split file of a class names."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing; the official splits are files <class>_test_split<1, 2 or 3>.txt"
        )
    parts = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise ValueError(f"{path}, line {number}: expected 'name.avi 0|1|2', got {line!r}")
        parts[words[0].strip()] = int(words[1])
    return parts


def draw_parts(labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Draw nine tenths for training and one for the test, from each class alike.

    The test part has a tenth of all clips, rounded up: 673 of 6726, and 129 of 1286. A class gives
    a tenth of its own, rounded down, or one more: those with the greatest remainders, so that the
    sum is right.

    Parameters
    ----------
    labels : ndarray of int64, shape (clips,)
        Class of each clip.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of uint8, shape (clips,)
        `TRAIN` or `TEST` for each; new.

    Examples
    --------
    >>> import numpy as np
    >>> parts = draw_parts(np.repeat([0, 1], [16, 24]), seed=0)
    >>> np.bincount(parts[:16]), np.bincount(parts[16:])
    (array([ 0, 14,  2]), array([ 0, 22,  2]))
    """
    num_test = -(-labels.size // 10)
    classes, counts = np.unique(labels, return_counts=True)
    shares, remainders = np.divmod(num_test * counts, labels.size)
    most = np.argsort(-remainders, kind="stable")[: num_test - int(shares.sum())]
    shares[most] += 1
    rng = np.random.default_rng(seed)
    parts = np.full(labels.size, TRAIN, dtype=np.uint8)
    for label, share in zip(classes, shares, strict=True):
        parts[rng.choice(np.flatnonzero(labels == label), share, replace=False)] = TEST
    return parts
