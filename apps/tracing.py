"""The option --trace of the apps: a trace or a figure of the phases of every rank."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from pint.cli.figures import check_figure
from pint.results.atomic import check_folder
from pint.timeline import Timeline


def add_argument(parser: argparse._ActionsContainer) -> None:
    """Add the argument to a parser."""
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="what each rank did when: trace.json for ui.perfetto.dev, or a figure, trace.png",
    )


def check_trace(path: Path | None) -> None:
    """Raise if a trace cannot be written under a given name; make its folder.

    Raises
    ------
    OSError
        If the folder cannot be made or written.
    ImportError
        If it is a figure, and matplotlib is not installed.
    ValueError
        If its ending is unknown.
    """
    if path is None:
        return
    if path.suffix != ".json":
        check_figure(path, "--trace", also=("json",))
    path.parent.mkdir(parents=True, exist_ok=True)
    check_folder(path)


def recorded(timeline: Timeline, path: Path | None) -> contextlib.AbstractContextManager[object]:
    """Return a timeline if a trace is requested, else an empty context."""
    return contextlib.nullcontext() if path is None else timeline


def save_trace(timeline: Timeline, path: Path | None) -> None:
    """Write the file, if requested; collective."""
    if path is None:
        return
    (timeline.write if path.suffix == ".json" else timeline.draw)(path)
    if timeline.comm.rank == 0:
        print(f"trace       {path}", flush=True)
