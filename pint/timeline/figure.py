"""Draw events as a figure of ranks over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pint.timeline.events import Events

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLORS = {
    "relaxation": "#4c78a8",
    "residual": "#72b7b2",
    "restriction": "#54a24b",
    "coarsest level": "#b279a2",
    "correction": "#eeca3b",
    "cycle": "#c7a76c",
    "messages": "#e45756",
    "gradient": "#f58518",
    "linearization": "#ffbf79",
    "inputs": "#9d755d",
    "head": "#d6a5c9",
    "update": "#666666",
    "start": "#a5b8c9",
    "forward solve": "#dbe4ee",
    "backward solve": "#eadfd0",
    "batch": "#eeeeee",
    "rest": "#e2e2e2",
}
"""Phases in the order of the legend; other phases follow."""

_OTHERS = ("#2f4b7c", "#a05195", "#008585", "#7a5195", "#665c00")


def draw_events(events: Events, ax: Axes | None = None) -> Axes:
    """Draw ranks over time, the finest level at the top of each rank's row; on one rank.

    Of nested events, the innermost is drawn. Events without a level take the whole height of the
    row.

    Parameters
    ----------
    events : Events
        The events to draw.
    ax : matplotlib Axes, optional
        The axes; new by default.

    Returns
    -------
    matplotlib Axes
        The diagram.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    ax = _new_figure(events).subplots() if ax is None else ax
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    pieces = events.innermost()
    origin, last = pieces.begin.min(initial=np.inf), pieces.end.max(initial=-np.inf)
    unit, scale = _unit_of(last - origin)
    left, right = ((x - origin) * scale for x in (pieces.begin, pieces.end))
    top, bottom = _heights(pieces, int(events.level.max(initial=0)) + 1)
    corners = np.stack([left, top, right, top, right, bottom, left, bottom], axis=1)
    colors = _colors_of(pieces)
    for phase, color in colors.items():
        boxes = corners[pieces.phase == phase].reshape(-1, 4, 2)
        ax.add_collection(PolyCollection(boxes, facecolor=color, linewidth=0))
    ranks = np.arange(events.num_ranks)[:: max(events.num_ranks // 16, 1)]
    ax.set(xlabel=f"time in {unit}", ylabel="rank", yticks=ranks + _ROW / 2, yticklabels=ranks)
    ax.set(xlim=(0, max((last - origin) * scale, 1)), ylim=(events.num_ranks - 1 + _ROW, 0))
    handles = [Patch(facecolor=color, label=phase) for phase, color in colors.items()]
    ax.legend(handles=handles, ncols=8, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return ax


_ROW = 0.9
"""Fraction of a rank's row that is used for drawing."""


def _heights(events: Events, num_levels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the upper and the lower edge of each event."""
    first = np.maximum(events.level, 0)
    last = np.where(events.level < 0, num_levels, events.level + 1)
    return events.rank + _ROW * first / num_levels, events.rank + _ROW * last / num_levels


def _colors_of(events: Events) -> dict[str, str]:
    found = {str(phase) for phase in np.unique(events.phase)}
    known = {phase: color for phase, color in COLORS.items() if phase in found}
    rest = sorted(found - set(known))
    return known | {phase: _OTHERS[k % len(_OTHERS)] for k, phase in enumerate(rest)}


def _unit_of(seconds: float) -> tuple[str, float]:
    """Return the unit for times up to `seconds`, and the number of units in a second."""
    for unit, per_second in (("s", 1.0), ("ms", 1e3)):
        if seconds * per_second >= 2:
            return unit, per_second
    return "us", 1e6


def save_figure(path: str | Path, events: Events) -> None:
    """Save the figure of `draw_events` in a format of matplotlib, by the ending; on one rank.

    Raises
    ------
    ImportError, OSError, ValueError
        Without matplotlib, or if it cannot write such a file.
    """
    figure = _new_figure(events)
    draw_events(events, figure.subplots())
    figure.savefig(path, dpi=120)


def _new_figure(events: Events) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'pint-mgrit[report]'") from error
    return Figure(figsize=(13, min(2 + 0.8 * events.num_ranks, 12)), layout="constrained")
