"""What all benchmarks of the engine share: clocks, memory, the machine, and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "numba", "scipy", "mpi4py")


def seconds_of(action: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def medians(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time several actions in turn, `rounds` times; return each one's median."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds_of(action))
    return {name: statistics.median(values) for name, values in times.items()}


def extra_megabytes(action: Callable[[], object]) -> float:
    """Return by how much a call raises the memory that the process holds, at its peak."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    before = _resident("VmRSS")
    action()
    return (_resident("VmHWM") - before) / 1e3


def _resident(field: str) -> int:
    """Return a number of kB from the kernel's books."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def in_new_process(module: str, *arguments: str) -> Any:
    """Run ``python -m module arguments`` and return the JSON of its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def last_json(command: list[str], environment: dict[str, str], shown: str = "epoch") -> Any:
    """Run a command; print its lines that begin so; return the JSON of its last line.

    Raises
    ------
    SystemExit
        If the command fails.
    """
    last = ""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last = line
            if line.startswith(shown):
                print(line, end="", flush=True)
    if process.returncode != 0:
        raise SystemExit(f"{shlex.join(command)} failed")
    return json.loads(last)


def on_ranks(ranks: int) -> list[str]:
    """Return the beginning of a command that starts `ranks` processes.

    MPIEXEC names the launcher; else it is the one on the path, or the one beside this Python.

    Raises
    ------
    SystemExit
        If there is none.
    """
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    known = os.environ.get("MPIEXEC") or shutil.which("mpiexec") or beside
    if known is None:
        raise SystemExit("no mpiexec: install an MPI, or pip install 'pint-mgrit[mpich]'")
    return [*shlex.split(known), "-n", str(ranks)]


def rank_counts(size: int) -> list[int]:
    """Return 1, 2, 4, ... and the full number of ranks."""
    return sorted({size, *(1 << k for k in range(size.bit_length()))})


def rank_environment() -> dict[str, str]:
    """Return the environment of ranks: one thread each, anywhere, on more ranks than cores too."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(names, "1"),
        # Open MPI refuses more ranks than cores, and keeps all threads of a rank on one core.
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        # glibc would return large arrays to the system after one way, and the next would pay.
        "MALLOC_TRIM_THRESHOLD_": "4000000000",
        "MALLOC_MMAP_THRESHOLD_": "4000000000",
    }


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of the same names, floats to four digits."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=140).print(table)


def save(name: str, result: dict[str, Any]) -> None:
    """Write a result with the machine and the versions to benchmarks/results."""
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / f"{name}.json", result)


def write(path: Path, result: dict[str, Any], packages: Iterable[str] = PACKAGES) -> None:
    """Write a result with the machine and the versions as JSON."""
    record = {"machine": machine(), "versions": versions(packages), **result}
    path.write_text(json.dumps(record, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Return what ran the benchmark, and how busy it was with other work."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    load = round(os.getloadavg()[0], 2)
    return {"processor": model, "cores": os.cpu_count(), "load_average": load}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
