"""Where a result comes from: versions, time of writing and commit."""

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
    """Return the attributes that say what wrote a file, and when.

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
        The top folder of a git checkout. A folder further down is not one: an environment
        inside a checkout of something else must not lend pint that commit.

    Returns
    -------
    str
        40 hexadecimal digits, with "-dirty" behind them where tracked files were changed;
        "" where `folder` is no checkout or git cannot tell.
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
