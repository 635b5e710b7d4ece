"""Log the first compilation of a process: the first run on a machine compiles for a minute."""

from __future__ import annotations

import logging
import os
from typing import Any

from numba.core import event

LOGGER = logging.getLogger("pint.compiling")
"""Logger of the announcement; its level is WARNING, so that it is visible without configuration."""

_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


class _Announcer(event.Listener):  # type: ignore[misc, unused-ignore]
    """Log a line when the first function of pint is compiled; loading one is no event."""

    is_silent = True

    def on_start(self, event: Any) -> None:
        module = str(event.data["dispatcher"].py_func.__module__)
        if self.is_silent and module.startswith("pint."):
            self.is_silent = False
            LOGGER.warning(
                "compiling kernels; they are kept for the next time (it can take a minute)"
            )

    def on_end(self, event: Any) -> None:
        pass


def announce_compilation() -> None:
    """Log the first compilation from now on, on rank 0 of a launcher."""
    if not any(os.environ.get(name, "0") != "0" for name in _RANK_VARIABLES):
        event.register("numba:compile", _Announcer())  # type: ignore[no-untyped-call]
