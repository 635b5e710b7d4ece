"""The Allen-Cahn equation in parallel over time: python -m apps.allen_cahn --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pint import MGRITOptions
from pint.models import allen_cahn

from .command_line import App, run_app
from .figures import image


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=64, help="cells of a side")
    parser.add_argument("--threshold", type=float, default=0.25, help="a")


APP = App(
    name="allen_cahn",
    description="Solve u_t = eps^2 (u_xx + u_yy) + u (1 - u) (u - a), a front, t in [0, 8].",
    add_arguments=_arguments,
    build=lambda args: allen_cahn.problem(args.cells, args.threshold),
    draw=image,
    defaults=MGRITOptions(levels=3, coarsening=2, tolerance=1e-8),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    return run_app(APP, argv)


if __name__ == "__main__":
    sys.exit(main())
