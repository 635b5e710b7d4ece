"""Names of figures, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_figure(path: Path, flag: str = "--plot", also: Sequence[str] = ()) -> None:
    """Raise unless a figure can be drawn and saved under the name in an argument.

    The message names other allowed endings of the argument too.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If it cannot write such a file.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise ImportError(f"{flag} needs matplotlib: pip install 'pint-mgrit[report]'") from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        names = ", ".join(sorted({*known, *also}))
        raise ValueError(f"{flag} must end with one of {names}, got {str(path)!r}")
