"""What the command lines of all apps share: one rank speaks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


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
