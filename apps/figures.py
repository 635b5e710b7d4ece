"""Figures of the apps: the solution, its error in time, and the residuals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pint import Result
from pint.models.problem import Problem

Draw = Callable[[Any, Problem, Any, Any], None]
"""Draws states at all times into axes: axes, problem, times (N + 1,), states (N + 1, ...)."""

NUM_MARKS = 25
"""Points of the exact solution beside a curve."""


def draw_figure(path: Path, draw: Draw, problem: Problem, result: Result, u: Any) -> None:
    """Save a figure of a solve, with the states at all points; for one rank."""
    from matplotlib.figure import Figure

    refined = result.grid_steps[0] != result.grid_steps[-1]
    figure = Figure(figsize=(17 if refined else 13, 4), layout="constrained")
    figure.suptitle(problem.name)
    solution, error, residual, *steps = figure.subplots(1, 3 + refined)
    draw(solution, problem, result.times, u)
    _draw_error(error, problem, result.times, u)
    _draw_residuals(residual, result)
    for axes in steps:
        _draw_steps(axes, result.times)
    figure.savefig(path, dpi=120)


def _draw_error(axes: Any, problem: Problem, times: Any, u: Any) -> None:
    errors = [np.abs(v - problem.exact(t)).max() for v, t in zip(u, times.tolist(), strict=True)]
    axes.semilogy(times[1:], errors[1:])
    axes.set(xlabel="t", title="greatest error of a state")


def _draw_residuals(axes: Any, result: Result) -> None:
    cycles = np.arange(1, result.num_iterations + 1)
    shown = np.isfinite(result.residuals) & (result.residuals > 0)
    axes.set(xlabel="iteration", title="norm of the residual")
    if shown.any():
        axes.semilogy(cycles[shown], result.residuals[shown], "o-")
        axes.set_xticks(cycles if cycles.size <= 12 else cycles[:: cycles.size // 10])
    else:
        axes.text(0.5, 0.5, "time stepping has none", ha="center", transform=axes.transAxes)


def _draw_steps(axes: Any, times: Any) -> None:
    axes.stairs(np.diff(times), times, baseline=None)
    axes.set(xlabel="t", yscale="log", title=f"lengths of {times.size - 1} steps")


def curves(*names: str) -> Draw:
    """Return what draws components against time, with dots for the exact ones."""

    def draw(axes: Any, problem: Problem, times: Any, u: Any) -> None:
        marks = np.linspace(0, times.size - 1, NUM_MARKS).astype(int)
        exact = np.array([problem.exact(t) for t in times[marks].tolist()])
        components = exact.reshape(NUM_MARKS, -1).T
        for name, own, known in zip(names, u.reshape(times.size, -1).T, components, strict=True):
            (line,) = axes.plot(times, own, label=name)
            axes.plot(times[marks], known, ".", color=line.get_color())
        axes.set(xlabel="t", title="solution, exact where dotted")
        axes.legend()

    return draw


def orbit(axes: Any, problem: Problem, times: Any, u: Any) -> None:
    """Draw the first two components against each other, with dots for the exact ones."""
    axes.plot(u[:, 0], u[:, 1], linewidth=1)
    marks = np.linspace(0, times.size - 1, 8 * NUM_MARKS).astype(int)
    exact = np.array([problem.exact(t) for t in times[marks].tolist()])
    axes.plot(exact[:, 0], exact[:, 1], ".", markersize=3)
    axes.set(xlabel="x", ylabel="y", title="orbit, exact where dotted", aspect="equal")


def profiles(places: Callable[[Problem], Any]) -> Draw:
    """Return what draws states of one dimension at five times, with dots for the exact ones."""

    def draw(axes: Any, problem: Problem, times: Any, u: Any) -> None:
        x = places(problem)
        every = max(x.size // NUM_MARKS, 1)
        for i in np.linspace(0, times.size - 1, 5).astype(int):
            # Of a pair of BDF2, the first one.
            own, exact = (v.reshape(-1, x.size)[0] for v in (u[i], problem.exact(float(times[i]))))
            (line,) = axes.plot(x, own, label=f"t = {times[i]:.3g}")
            axes.plot(x[::every], exact[::every], ".", color=line.get_color())
        axes.set(xlabel="x", title="solution, exact where dotted")
        axes.legend(fontsize="small")

    return draw


def image(axes: Any, problem: Problem, times: Any, u: Any) -> None:
    """Draw the last state of two dimensions, with dashed contours for the exact one."""
    drawn = axes.imshow(u[-1], origin="lower")
    axes.figure.colorbar(drawn, ax=axes)
    exact = problem.exact(float(times[-1]))
    levels = np.linspace(exact.min(), exact.max(), 7)[1:-1]
    axes.contour(u[-1], levels=levels, colors="black", linewidths=1)
    axes.contour(exact, levels=levels, colors="white", linestyles="dashed", linewidths=1)
    axes.set(title=f"t = {times[-1]:.3g}, exact contours dashed", xlabel="node", ylabel="node")
