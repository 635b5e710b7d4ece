"""Write events as a trace file for ui.perfetto.dev and chrome://tracing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pint.timeline.events import Events


def write_trace(path: str | Path, events: Events) -> None:
    """Write events as a trace for ui.perfetto.dev and chrome://tracing; on one rank.

    The JSON file has one thread per rank, times in microseconds since the first event, and level
    and iteration as arguments. It is replaced atomically.

    Parameters
    ----------
    path : path
        Name of the file.
    events : Events
        The events to write.

    Raises
    ------
    OSError
        If the file cannot be written.

    References
    ----------
    "Trace Event Format", the Chromium authors.
    """
    from pint.results.atomic import check_folder, put_in_place, temporary_beside

    path = Path(path)
    check_folder(path)
    origin = events.begin.min(initial=np.inf)
    # Round to whole nanoseconds, so that nested events stay nested.
    begin, end = (np.rint((x - origin) * 1e9).astype(np.int64) for x in (events.begin, events.end))
    names = [_named("process_name", 0, "pint")]
    names += [_named("thread_name", rank, f"rank {rank}") for rank in range(events.num_ranks)]
    complete = (
        {
            "name": phase,
            "ph": "X",
            "ts": ts / 1000,
            "dur": (stop - ts) / 1000,
            **_place(rank),
            "args": {"level": level, "iteration": iteration},
        }
        for (rank, phase, level, iteration, *_), ts, stop in zip(
            events.rows(), begin.tolist(), end.tolist(), strict=True
        )
    )
    trace = {"traceEvents": [*names, *complete], "displayTimeUnit": "ms"}
    with temporary_beside(path) as temporary:
        temporary.write_text(json.dumps(trace))
        put_in_place(temporary, path)


def _named(kind: str, rank: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", **_place(rank), "args": {"name": name}}


def _place(rank: int) -> dict[str, int]:
    """Return process and thread of a rank, from 1 on: in Perfetto 0 means idle."""
    return {"pid": 1, "tid": rank + 1}
