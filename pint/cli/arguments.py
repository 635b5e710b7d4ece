"""Types of the arguments of command lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of argparse: a whole number that is so great or greater."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "int"  # as argparse calls it where the text is no number
    return number


count = at_least(1)


def one_line(error: Exception, path: str) -> str:
    """Return the text of an error on one line, with the path where it is one of the system."""
    if isinstance(error, OSError) and error.strerror:
        return f"{path!r}: {error.strerror}"
    return " ".join(str(error).split())
