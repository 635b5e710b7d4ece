"""What compiling costs: the first training of `make demo` with an empty cache of kernels.

Prints the functions that take longest to compile to stderr, and as the last line JSON with

- ``cpu_seconds``: CPU seconds that one process spends compiling;
- ``wall_seconds_2_ranks``: by how much the demo on 2 ranks takes longer with an empty cache than
  with a full one.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from numba.core import event

from pint.parallel.launcher import mpiexec_path

NUM_SHOWN = 10


class CompileTimes(event.Listener):
    """CPU seconds by function, without the functions that it calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    def _charge(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def on_start(self, event: Any) -> None:
        """Charge the time from now on to a function."""
        self._charge()
        function = event.data["dispatcher"].py_func
        self._open.append(f"{function.__module__}.{function.__name__}")

    def on_end(self, event: Any) -> None:
        """Return to the function that calls it."""
        self._charge()
        self._open.pop()


def train(arguments: list[str], report: str | None) -> None:
    """Run the training of the demo in this process; write compile times to a file, if given."""
    sys.argv = ["train", *arguments]
    listener = CompileTimes()
    with event.install_listener("numba:compile", listener):
        try:
            runpy.run_module("apps.train", run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
    if report:
        Path(report).write_text(json.dumps(listener.seconds))


def run(command: list[str], cache: Path) -> float:
    """Return the wall seconds of a process with its own cache of kernels."""
    one_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    )
    begin = time.perf_counter()
    environment = {**os.environ, **one_thread, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2, help="0: leave out wall_seconds_2_ranks")
    parser.add_argument("--report", help=argparse.SUPPRESS)
    parser.add_argument("train", nargs="*", help="options of apps.train, behind --")
    args = parser.parse_args()
    if args.report is not None:
        train(args.train, args.report)
        return
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = ["--output", str(folder / "demo.h5"), *args.train]
        report, python = folder / "report.json", [sys.executable, "-m"]
        measured = [*python, "benchmarks.compiling", "--report", str(report), "--", *output]
        run(measured, folder / "one")
        seconds: dict[str, float] = json.loads(report.read_text())
        for function in sorted(seconds, key=lambda name: -seconds[name])[:NUM_SHOWN]:
            print(f"{seconds[function]:7.2f} s  {function}", file=sys.stderr)
        numbers["cpu_seconds"] = round(sum(seconds.values()), 2)
        if args.ranks:
            ranks = [mpiexec_path(), "-n", str(args.ranks), *python, "apps.train", *output]
            cold, warm = (run(ranks, folder / "many") for _ in range(2))
            numbers[f"wall_seconds_{args.ranks}_ranks"] = round(cold - warm, 2)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
