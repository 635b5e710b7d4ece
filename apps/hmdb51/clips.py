"""Find the clips of a folder, and split them into training and test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pint.data.feature_file import TEST, TRAIN, UNUSED

__all__ = ["TEST", "TRAIN", "UNUSED", "Clips", "draw_parts", "find_clips", "official_parts"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clips:
    """Clips of a folder with their classes.

    Attributes
    ----------
    names : tuple of str
        ``class/file.avi``, in order.
    labels : ndarray of int64, shape (clips,)
        Class of each clip.
    class_names : tuple of str
        Names of the classes, in order.
    parts : ndarray of uint8, shape (clips,)
        `UNUSED`, `TRAIN` or `TEST`; all `TRAIN` before a split.
    empty_folders : tuple of str
        Names of the folders without clips.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    parts: NDArray[np.uint8]
    empty_folders: tuple[str, ...] = ()

    @property
    def used(self) -> NDArray[np.bool_]:
        """Return which clips are used, shape (clips,); new."""
        used: NDArray[np.bool_] = self.parts != UNUSED
        return used


def find_clips(folder: Path, classes: Sequence[str] | None = None) -> Clips:
    """Return the clips in the class folders of a folder.

    Parameters
    ----------
    folder : Path
        Holds a folder for each class, with files ``*.avi``.
    classes : sequence of str, optional
        The classes; by default all folders with clips.

    Returns
    -------
    Clips
        In the order of their names, all of them `TRAIN`.

    Raises
    ------
    FileNotFoundError
        If the folder, a class or all clips are missing.
    NotADirectoryError
        If `folder` is a file.
    ValueError
        If there are fewer than two classes, or the name of a clip is no UTF-8.
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
        got = f"{chosen[0]!r} alone" if chosen else "none"
        raise ValueError(f"{folder}: two classes are the least, got {got}")
    empty = tuple(name for name, videos in found.items() if not videos)
    return _listed({name: dict.fromkeys(found[name], TRAIN) for name in chosen}, empty)


def _videos(folder: Path) -> list[str]:
    """Return the names of the clips in a class's folder."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".avi")
    for name in names:
        try:
            name.encode()  # as the file of features does
        except UnicodeEncodeError as error:
            raise ValueError(f"{folder}: rename the clip {name!r}, which is no UTF-8") from error
    return names


def _listed(files: Mapping[str, Mapping[str, int]], empty_folders: tuple[str, ...] = ()) -> Clips:
    """Return clips in their order from the parts of each file, by class."""
    in_order = [(name, file) for name in sorted(files) for file in sorted(files[name])]
    class_names = tuple(dict.fromkeys(name for name, _ in in_order))
    return Clips(
        names=tuple(f"{name}/{file}" for name, file in in_order),
        labels=np.array([class_names.index(name) for name, _ in in_order], dtype=np.int64),
        class_names=class_names,
        parts=np.array([files[name][file] for name, file in in_order], dtype=np.uint8),
        empty_folders=empty_folders,
    )


def official_parts(
    clips: Clips, folder: Path, number: int, classes: Sequence[str] | None = None
) -> Clips:
    """Return clips with their parts in a split of HMDB51.

    The list includes clips that the split names and the folder lacks, also all clips of an empty
    class: they are unreadable ones later. Clips outside the split are `UNUSED`.

    Parameters
    ----------
    clips : Clips
        The result of `find_clips`.
    folder : Path
        Holds ``<class>_test_split<number>.txt`` for each class, with a line ``name.avi 0``, 1
        or 2 for each clip: not used, training, test.
    number : int
        1, 2 or 3.
    classes : sequence of str, optional
        The classes of `find_clips`; by default all with clips or with such a file.

    Raises
    ------
    FileNotFoundError
        If the file of a class is missing.
    ValueError
        If a line has another form, or a part has no clips.

    References
    ----------
    H. Kuehne, H. Jhuang, E. Garrote, T. Poggio and T. Serre, "HMDB: A Large Video Database for
    Human Motion Recognition", ICCV 2011, https://doi.org/10.1109/ICCV.2011.6126543.
    """
    ending = f"_test_split{number}.txt"
    found: dict[str, dict[str, int]] = {name: {} for name in clips.class_names}
    for path in folder.glob(f"*{ending}") if classes is None else ():
        found.setdefault(path.name.removesuffix(ending), {})
    for clip in clips.names:
        name, file = clip.split("/", maxsplit=1)
        found[name][file] = UNUSED
    for name, parts in found.items():
        parts.update(_read_split(folder / f"{name}{ending}"))
    listed = _listed(found)
    for part, what in ((TRAIN, "training"), (TEST, "test")):
        if part not in listed.parts:
            raise ValueError(f"{folder}: split {number} has no clip for {what}")
    return listed


def _read_split(path: Path) -> dict[str, int]:
    """Return the part of each clip in the split file of a class."""
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
    """Draw nine tenths of each class for training and one tenth for the test.

    The test part has a tenth of all clips, rounded up: 673 of 6726, and 129 of 1286. At least one
    clip is left for training. A class contributes a tenth of its clips, rounded down. Classes with
    the greatest remainders contribute one more.

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
    num_test = min(-(-labels.size // 10), labels.size - 1)
    classes, counts = np.unique(labels, return_counts=True)
    shares, remainders = np.divmod(num_test * counts, labels.size)
    most = np.argsort(-remainders, kind="stable")[: num_test - int(shares.sum())]
    shares[most] += 1
    rng = np.random.default_rng(seed)
    parts = np.full(labels.size, TRAIN, dtype=np.uint8)
    for label, share in zip(classes, shares, strict=True):
        parts[rng.choice(np.flatnonzero(labels == label), share, replace=False)] = TEST
    return parts
