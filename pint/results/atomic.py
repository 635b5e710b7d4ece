"""Replace a file atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["check_folder", "put_in_place", "temporary_beside"]


def check_folder(path: Path) -> None:
    """Raise unless a file can have the name `path`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If its folder does not exist or is a file.
    IsADirectoryError
        If `path` is a folder.
    PermissionError
        If the folder is not writable.
    """
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(f"folder {str(folder)!r} does not exist: create it first")
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is a file, not a folder")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: give the name of a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"folder {str(folder)!r} is not writable")


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Yield a free name in the target's folder, and remove the file of this name at the end."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, target: Path) -> None:
    """Flush the file to the disk, then rename it: a rename may survive a power cut."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
