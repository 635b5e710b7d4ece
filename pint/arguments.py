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
