"""Train a recurrent network in parallel over time: python -m apps.train --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status.

    0 is done, 2 is wrong use or a failure, 130 is interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from pint.parallel.comm import world

        from .arguments import quiet_unless, refuse
        from .train_options import PROGRAM, read

        comm = world()
        try:
            with quiet_unless(comm.rank == 0), comm.collective():
                args = read(arguments)
        except (ValueError, OSError) as error:
            return refuse(PROGRAM, error, comm)
        from .train_run import train  # after --help and errors, for which compilers need no import

        return train(args, arguments, comm)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
