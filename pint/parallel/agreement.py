"""Errors as text: an exception of one rank becomes an exception of the same type on the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_COMMON: tuple[type[Exception], ...] = (
    InterruptedError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    OSError,
    ImportError,
    NotImplementedError,
    FloatingPointError,
    TypeError,
    ValueError,
    Exception,
)
"""Types that keep their type on other ranks, subclasses first; others become RuntimeError."""


def describe_error(error: Exception) -> str:
    """Return the index of the error's type among the common types, and the error's message."""
    kind = next(kind for kind, common in enumerate(_COMMON) if isinstance(error, common))
    return f"{kind} {str(error) or type(error).__name__}"


def revive_error(text: str, rank: int) -> Exception:
    """Return the exception of rank `rank` that `describe_error` described."""
    kind, _, message = text.partition(" ")
    common = _COMMON[int(kind)]
    return (RuntimeError if common is Exception else common)(f"{message} (on rank {rank})")


def encode_text(text: str) -> NDArray[np.uint8]:
    """Return the UTF-8 bytes of a text; undecodable bytes of file names are escaped."""
    return np.frombuffer(text.encode(errors="backslashreplace"), dtype=np.uint8)
