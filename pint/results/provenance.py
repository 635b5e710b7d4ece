"""Provenance of a result: versions, time of writing and commit."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from pint._version import __version__

__all__ = ["checkout_commit", "provenance"]

_PACKAGE = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str]:
    """Return the attributes on the origin and the time of a file.

    Returns
    -------
    dict of str to str
        ``pint_version``, ``created`` (ISO 8601, UTC, microseconds), ``git_commit``,
        ``python_version`` and ``numpy_version``.
    """
    return {
        "pint_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "git_commit": checkout_commit(_PACKAGE.parent),
        "python_version": platform.python_version(),
        "numpy_version": np.__version__,
    }


@cache
def checkout_commit(folder: Path) -> str:
    """Return the commit checked out in `folder`, found once per process.

    Parameters
    ----------
    folder : Path
        The top folder of a git checkout. Folders inside a checkout do not count: an environment
        may be inside the checkout of another project.

    Returns
    -------
    str
        40 hexadecimal digits, followed by "-dirty" if tracked files were changed; "" if `folder` is
        no checkout or git fails.
    """
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
