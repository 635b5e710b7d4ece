"""What the command lines of all apps share: types of arguments, and that one rank speaks."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator


def count(text: str) -> int:
    """Read an integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


@contextlib.contextmanager
def quiet_unless(speaks: bool) -> Iterator[None]:
    """Let only one rank print usage errors and help."""
    if speaks:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
