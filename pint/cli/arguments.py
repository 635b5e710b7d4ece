"""Types of the arguments of command lines."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable


def at_least(least: int) -> Callable[[str], int]:
    """Return an argparse type: an integer of at least `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "int"  # argparse prints it
    return number


count = at_least(1)


def one_line(error: Exception, path: str | None = None) -> str:
    """Return the text of an error on one line; of a system error the file, or `path`, and why."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path!r}: {error.strerror}"
    return " ".join(str(error).split())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return an unknown name in quotes, with the nearest known one."""
    (nearest,) = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"{name!r} (did you mean {nearest!r}?)"
