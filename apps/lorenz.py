"""Solve Lorenz's equations in parallel over time: python -m apps.lorenz --help."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.train import count, number_or_none, per_level_list
from pint import MGRIT, MGRITOptions, Result, TimeGrid
from pint.comm import Communicator, run, world
from pint.models.lorenz import Lorenz
from pint.results import RunRecord, check_target, write_solution

START = np.array([9.614521163788712, 17.519127090401067, 13.94230712158098])
"""A point on the attractor."""


def main(argv: Sequence[str] | None = None) -> int:
    """Solve as the command line says; return the exit status."""
    comm = world()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with contextlib.nullcontext() if comm.rank == 0 else _silence():
        args = _parser().parse_args(arguments)
    return run(lambda: _solve(args, arguments, comm), comm)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Leave usage errors and help to rank 0."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _solve(args: argparse.Namespace, arguments: Sequence[str], comm: Communicator) -> int:
    """Build, solve, write, report."""
    try:
        comm.agree(_refused(args.output))
        model = Lorenz(args.sigma, args.rho, args.beta, args.method)
        solver = MGRIT(model, TimeGrid.uniform(0.0, args.time, args.steps), _options(args), comm)
        result = solver.solve(START, START)
        summary = _summary(result, model, args.settled)
    except (ValueError, OSError) as error:  # on every rank
        if comm.rank == 0:
            print(f"apps.lorenz: {error}", file=sys.stderr)
        return 2
    _write(args, arguments, result, model, comm)
    if comm.rank == 0:
        print(json.dumps(summary) if args.json else _report(summary), flush=True)
    return 0 if summary["finished"] else 1


def _refused(output: Path) -> Exception | None:
    try:
        check_target(output)
    except Exception as error:  # the other ranks must hear of it
        return error
    return None


def _options(args: argparse.Namespace) -> MGRITOptions:
    return MGRITOptions(
        levels=args.levels,
        coarsening=args.coarsening,
        relax=args.relax,
        max_iterations=args.max_iterations,
        tolerance=args.tolerance,
        skip_first_down=args.skip_first_down,
        delta=args.delta,
        delta_level=args.delta_level,
        delta_iteration=args.delta_iteration,
        coarsest=args.coarsest,
        driver=args.driver,
    )


def reference(model: Lorenz, stop: float) -> NDArray[np.float64]:
    """Return the state at a time, by a method of order 8 with relative tolerance 1e-13."""
    from scipy.integrate import solve_ivp

    sigma, rho, beta = model.parameters.tolist()

    def rate(t: float, u: NDArray[np.float64]) -> list[float]:
        x, y, z = u.tolist()
        return [sigma * (y - x), x * (rho - z) - y, x * y - beta * z]

    solved = solve_ivp(rate, (0.0, stop), START, "DOP853", rtol=1e-13, atol=1e-13)
    last: NDArray[np.float64] = solved.y[:, -1]
    return last


def _summary(result: Result, model: Lorenz, settled: float) -> dict[str, Any]:
    """Return what is reported; collective."""
    last = result.final_state()
    error = float(np.abs(last - reference(model, float(result.times[-1]))).max())
    exponents = None if result.lyapunov is None else result.lyapunov.exponents(settled).tolist()
    return {
        "status": result.status.name,
        "finished": bool(np.isfinite(last).all()),
        "iterations": result.num_iterations,
        "residuals": [None if np.isnan(r) else float(r) for r in result.residuals],
        "error": error if np.isfinite(error) else None,
        "exponents": exponents,
        "ranks": result.comm.size,
    }


def _report(summary: dict[str, Any]) -> str:
    lines = [f"{summary['status']} after {summary['iterations']} iterations"]
    lines += [
        f"  residual {k}: {'not measured' if r is None else f'{r:.6e}'}"
        for k, r in enumerate(summary["residuals"])
    ]
    if summary["error"] is not None:
        lines.append(f"error at the last time: {summary['error']:.3e}")
    if summary["exponents"] is not None:
        lines.append("Lyapunov exponents: " + " ".join(f"{x:.4f}" for x in summary["exponents"]))
    return "\n".join(lines)


def _write(
    args: argparse.Namespace,
    arguments: Sequence[str],
    result: Result,
    model: Lorenz,
    comm: Communicator,
) -> None:
    """Write the run file; collective."""
    seconds = comm.allgather_blocks(np.array([result.seconds]))
    options = {name: value for name, value in vars(args).items() if name != "json"}
    record = RunRecord(
        command=shlex.join(["python", "-m", "apps.lorenz", *arguments]),
        ranks=comm.size,
        hosts=comm.num_hosts(),
        options={**options, "output": str(args.output)},
        times=result.times,
        coarsening=result.coarsening,
        history={"residual": result.residuals},
        timings={"solve": seconds},
        model={"parameters": model.parameters},
        finished=True,
    )
    write_solution(args.output, record, np.ascontiguousarray(result.u), result.first, comm)


def rank_of_delta(text: str) -> int | str | None:
    """Read "none", "full" or a number."""
    return None if text == "none" else text if text == "full" else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apps.lorenz",
        description="Solve Lorenz's equations in parallel over time. Start it plainly for one "
        "process, or under mpiexec -n P for P.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    for name, value in (("sigma", 10.0), ("rho", 28.0), ("beta", 8 / 3)):
        add(f"--{name}", type=float, default=value, help="parameter of the equations")
    add("--method", choices=("euler", "rk4"), default="rk4", help="integrator")
    add("--time", type=float, default=8.0, help="last time")
    add("--steps", type=count, default=800, help="number of time steps")
    add("--levels", type=count, default=2, help="greatest number of time levels")
    add("--coarsening", type=per_level_list, default=4, help="factor, or one for each level")
    add("--relax", type=per_level_list, default=1, help="CF-sweeps per level, 0 is F, 1 is FCF")
    add("--max-iterations", type=count, default=30, help="greatest number of cycles")
    add("--tolerance", type=number_or_none, default=1e-8, help="of the residual, or none")
    add(
        "--skip-first-down",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="begin by stepping through the coarsest level",
    )
    add("--delta", type=rank_of_delta, help="rank of the Delta correction, full or none")
    add("--delta-level", type=count, default=1, help="finest level with corrected steps")
    add("--delta-iteration", type=int, default=0, help="first cycle with corrected steps")
    add("--settled", type=float, default=0.0, help="time from which on exponents are averaged")
    add(
        "--coarsest",
        choices=("gather", "in_turn", "relaxation"),
        default="gather",
        help="its solve",
    )
    add(
        "--driver",
        choices=("auto", "loop", "stack", "compiled"),
        default="auto",
        help="way to step",
    )
    add("--output", type=Path, default=Path("lorenz.h5"), help="HDF5 file of the results")
    add("--json", action="store_true", help="print one JSON object instead of a report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
