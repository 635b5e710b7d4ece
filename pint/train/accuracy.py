"""Accuracy control: how exact the gradient of each batch is, and how many iterations that takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.options import MGRITOptions, at_least, one_of, positive
from pint.parallel.comm import Communicator
from pint.rnn.losses import Loss
from pint.rnn.network import Network
from pint.rnn.solver import LossAndGradient, NetworkSolver

BATCHES_BETWEEN_CHECKS = 25
CALM_BATCHES = 10
"""So many batches far below the bound, and fewer iterations are tried."""
FAR_BELOW = 0.2
"""That is, below this part of the bound."""
COMPARISONS = 8
"""So many of the last ones are remembered."""
BEYOND = 3.0
"""Residuals that are so many times greater than all that are remembered tell nothing for sure."""


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions:
    """How the accuracy of gradients is controlled.

    Parameters
    ----------
    mode : {"fixed", "adaptive"}, default "fixed"
        "fixed": the solver's iterations, always. "adaptive": iterations are chosen so that the
        estimated relative error of the gradient stays below `bound`, the solver's being the first
        ones; where that takes longer than exact stepping, batches are stepped exactly, their
        sequences split over the ranks. A gradient whose estimate is not below the bound is not
        returned without a comparison with the exact one, which is returned where it is too far away
        or where a solve diverged.
    bound : float, default 0.05
        Greatest relative error of a gradient, in the 2-norm.
    check_every : int, default 0
        Compare the gradient of every so many batches with the exact one; 0 is never if "fixed", and
        every 25 batches if "adaptive", which calibrates its estimate by them.
    most_iterations : int, default 6
        Greatest number of cycles of a solve that "adaptive" tries, unless the solver's are more.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    mode: Literal["fixed", "adaptive"] = "fixed"
    bound: float = 0.05
    check_every: int = 0
    most_iterations: int = 6

    def __post_init__(self) -> None:
        one_of("mode", self.mode, ("fixed", "adaptive"))
        positive("bound", self.bound)
        at_least("check_every", self.check_every, 0)
        at_least("most_iterations", self.most_iterations, 2)

    @property
    def batches_between_checks(self) -> int:
        """Number of batches from one comparison to the next; 0 is never."""
        return self.check_every or (BATCHES_BETWEEN_CHECKS if self.mode == "adaptive" else 0)


class Iterations(NamedTuple):
    """Cycles of both solves; zero of either means exact stepping."""

    forward: int
    backward: int

    @property
    def are_exact(self) -> bool:
        """Tell whether no cycle is done at all."""
        return self.forward == 0


EXACT = Iterations(0, 0)


@dataclass(eq=False)
class AccuracyLog:
    """What was done for each batch, and how exact it was; lists of one entry for each batch.

    Attributes
    ----------
    forward_iterations, backward_iterations : list of float
        Cycles of both solves; 0 where the batch was stepped exactly.
    forward_relative, backward_relative : list of float
        Residual of the last cycle before its correction, divided by the norm of the solution; NaN
        where none was measured.
    estimated_error : list of float
        Estimated relative error of the gradient; NaN before the first comparison.
    measured_error, cosine : list of float
        Relative error of the gradient that the cycles give, and cosine of its angle with the exact
        one; NaN where they were not compared. The error is infinite where a solve diverged.
    """

    forward_iterations: list[float] = field(default_factory=list)
    backward_iterations: list[float] = field(default_factory=list)
    forward_relative: list[float] = field(default_factory=list)
    backward_relative: list[float] = field(default_factory=list)
    estimated_error: list[float] = field(default_factory=list)
    measured_error: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Return all lists as arrays, by name."""
        return {name: np.array(values, dtype=np.float64) for name, values in vars(self).items()}


class AccuracyControl:
    """Evaluates batches, with as many iterations as the wanted accuracy takes.

    The error of a gradient is estimated as a factor times the sum of the relative residuals of both
    solves. The factor is the greatest that the last comparisons with exact gradients gave, one for
    each pair of iteration counts; a pair without any is compared at its first batch. An adjoint
    solution that has grown beyond the one that was compared last is not what residuals are divided
    by: it may have grown with its error. Mode "adaptive" compares at once where the estimate is
    not below the bound, where residuals are far greater than those that were compared, and where
    they grew from one cycle to the next, unless the estimate is far below the bound.

    Parameters
    ----------
    solver : NetworkSolver
        The parallel solver; in mode "adaptive" its numbers of iterations are changed.
    options : AccuracyOptions
        What is wanted.

    Attributes
    ----------
    log : AccuracyLog
        What was done so far.
    exact : NetworkSolver
        Steps exactly; the ranks share the sequences of a batch.
    """

    def __init__(self, solver: NetworkSolver, options: AccuracyOptions) -> None:
        self.solver, self.options, self.log = solver, options, AccuracyLog()
        self.comm: Communicator = solver.comm
        threads = solver.layer_solvers[0].forward.options.threads
        self.exact = exact_solver(
            solver.network, solver.num_steps, solver.loss, solver.comm, threads
        )
        sweep = solver.layer_solvers[0]
        self.is_serial = len(sweep.forward.hierarchy.levels) == 1
        forward = sweep.forward.options.max_iterations
        backward = sweep.backward.solver.options.max_iterations
        self.ladder = self._ladder(forward, backward)
        self.rung = next(
            (
                i
                for i, r in enumerate(self.ladder)
                if r.forward >= forward and r.backward >= backward
            ),
            max(len(self.ladder) - 2, 0),
        )
        self._before_exact = self.rung
        self._calm, self._since_check = 0, 0
        self._compared: dict[Iterations, Comparisons] = {}
        self._seconds: dict[Iterations, float] = {}
        self._cold = {self.solver, self.exact}

    def _ladder(self, forward: int, backward: int) -> list[Iterations]:
        """Return the pairs of iteration counts that are tried, cheapest first."""
        if self.options.mode == "fixed" or self.is_serial:
            return [Iterations(forward, backward)]
        rungs, most = [Iterations(2, 1)], self.options.most_iterations
        while rungs[-1].backward < most:
            last = rungs[-1]
            grows_forward = last.forward == last.backward
            rungs.append(
                Iterations(last.forward + grows_forward, last.backward + (not grows_forward))
            )
        if max(forward, backward) > most:
            rungs.append(Iterations(max(forward, most), max(backward, most)))
        return [*rungs, EXACT]

    @property
    def iterations(self) -> Iterations:
        """What the next batch will be solved with."""
        return self.ladder[self.rung]

    def loss_and_gradient(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        mask: NDArray[np.bool_] | None = None,
        start: NDArray[Any] | None = None,
        *,
        inputs: bool = False,
        sequence_ids: NDArray[np.int64] | None = None,
    ) -> LossAndGradient:
        """Return the loss of a batch and its gradient, see `NetworkSolver`; collective."""

        def evaluate(used: Iterations) -> LossAndGradient:
            """Evaluate the batch, and keep the time per sequence that it took."""
            solver, known = (self.exact, None) if used.are_exact else (self.solver, sequence_ids)
            begin = time.perf_counter()
            got = solver.loss_and_gradient(x, y, mask, start, inputs=inputs, sequence_ids=known)
            seconds = (time.perf_counter() - begin) / len(x)
            if solver in self._cold:  # kernels may have been compiled
                self._cold.discard(solver)
            else:
                self._keep_time(used, seconds)
            return got

        return self._controlled(evaluate)

    def _keep_time(self, used: Iterations, seconds: float) -> None:
        """Keep the shortest."""
        self._seconds[used] = min(seconds, self._seconds.get(used, np.inf))

    def _controlled(self, evaluate: Callable[[Iterations], LossAndGradient]) -> LossAndGradient:
        """Return what a batch gives, as accurate as wanted, and choose for the next one."""
        used, is_adaptive = self.iterations, self.options.mode == "adaptive"
        if used.are_exact:
            got = evaluate(EXACT)
            self._note(used, got, 0.0)
            return got
        if is_adaptive:
            self.solver.iterate(*used)
        try:
            got = evaluate(used)
        except FloatingPointError:
            if not is_adaptive:
                raise
            got = evaluate(EXACT)
            self._note(used, got, np.inf)
            self.log.measured_error[-1] = np.inf
        else:
            self._note(used, got, self._estimate(used, got))
            if self._is_due(used, got):
                got = self._check(used, got, evaluate(EXACT))
        if is_adaptive:
            self._choose(used)
        return got

    def warm_up(
        self, x: NDArray[Any], y: NDArray[Any], mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Have both solvers' kernels compiled, lest the first batches' times count; collective."""
        try:
            self.solver.loss_and_gradient(x, y, mask)
        except FloatingPointError:
            if self.options.mode == "fixed":
                raise
        self.exact.loss_and_gradient(x, y, mask)
        self._cold.clear()

    def _note(self, used: Iterations, got: LossAndGradient, estimate: float) -> None:
        log = self.log
        log.forward_iterations.append(used.forward)
        log.backward_iterations.append(used.backward)
        log.forward_relative.append(got.forward_relative)
        log.backward_relative.append(got.backward_relative)
        log.estimated_error.append(0.0 if self.is_serial else estimate)
        log.measured_error.append(np.nan)
        log.cosine.append(np.nan)

    def _estimate(self, used: Iterations, got: LossAndGradient) -> float:
        if got.forward_relative == got.backward_relative == 0:
            return 0.0  # both are solved
        known = self._compared.get(used)
        return np.nan if known is None else known.factor * known.residual(got)

    def _is_due(self, used: Iterations, got: LossAndGradient) -> bool:
        """Tell whether this batch is compared with its exact gradient."""
        every = self.options.batches_between_checks
        self._since_check += 1
        if every == 0 or self.is_serial:
            return False
        if used not in self._compared or self._since_check >= every:
            return True
        return self.options.mode == "adaptive" and self._is_doubtful(used, got)

    def _is_doubtful(self, used: Iterations, got: LossAndGradient) -> bool:
        """Tell whether a gradient may be further away than wanted, for all that is known."""
        estimate, bound = self.log.estimated_error[-1], self.options.bound
        if not estimate <= bound or self._compared[used].is_exceeded_by(got):
            return True
        grew = _grew(got.forward_residuals) or _grew(got.backward_residuals)
        return grew and estimate > FAR_BELOW * bound

    def _check(
        self, used: Iterations, got: LossAndGradient, exact: LossAndGradient
    ) -> LossAndGradient:
        """Compare with the exact gradient; in mode "adaptive", return it if the bound is broken."""
        self._since_check = 0
        a, b = got.gradient.astype(np.float64), exact.gradient.astype(np.float64)
        error = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-300)
        lengths = max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)
        self.log.measured_error[-1], self.log.cosine[-1] = error, float(a @ b) / lengths
        known = self._compared.setdefault(used, Comparisons())
        known.add(got, error, is_near=error <= self.options.bound)
        self.log.estimated_error[-1] = self._estimate(used, got)
        exceeds = self.options.mode == "adaptive" and not error <= self.options.bound
        return exact if exceeds else got

    def _choose(self, used: Iterations) -> None:
        """Choose the iterations of the next batch; the same on every rank."""
        measured, estimate = self.log.measured_error[-1], self.log.estimated_error[-1]
        error = estimate if np.isnan(measured) else measured
        top = len(self.ladder) - 1
        if np.isnan(estimate) or not error <= self.options.bound:
            self.rung, self._calm = min(self.rung + 1, top), 0
        elif error < FAR_BELOW * self.options.bound:
            self._calm += 1
        else:
            self._calm = 0
        if self._calm >= CALM_BATCHES and self.rung > 0:
            self.rung, self._calm = self.rung - 1, 0
        if self.rung < top:
            self._before_exact = self.rung
        if self._takes_longer_than_stepping(used):
            self.rung = top

    def _takes_longer_than_stepping(self, used: Iterations) -> bool:
        """Tell whether the iterations took longer than exact stepping did, on the slowest rank."""
        if not {used, EXACT} <= self._seconds.keys() or self.iterations.are_exact:
            return False
        own = np.array([[self._seconds[used], self._seconds[EXACT]]])
        slowest = self.comm.allgather_blocks(own).max(axis=0)
        return bool(slowest[0] > slowest[1])

    def start_epoch(self) -> None:
        """Try iterations again where batches were stepped exactly.

        They are timed anew. The time of exact stepping stays, so that one batch tells whether they
        still take longer.
        """
        if self.options.mode == "adaptive" and self.iterations.are_exact and self.rung > 0:
            self.rung = self._before_exact
            for tried in self.ladder[:-1]:
                self._seconds.pop(tried, None)


def exact_solver(
    network: Network,
    num_steps: int,
    loss: Loss | None = None,
    comm: Any = None,
    threads: int | None = None,
) -> NetworkSolver:
    """Return a solver that steps serially, and backpropagates through time.

    Of several ranks, each takes its part of a batch, and of several threads of a rank each takes
    some of that part's sequences.
    """
    stepping = MGRITOptions(levels=1, threads=threads)
    return NetworkSolver(network, num_steps, stepping, stepping, comm, loss, time_ranks=1)


@dataclass(eq=False)
class Comparisons:
    """The last comparisons with exact gradients, of one pair of iteration counts.

    Attributes
    ----------
    residuals, ratios : deque of float
        Relative residuals, and errors divided by them.
    norm : float
        Of the adjoint solution that was near the exact one last.
    """

    residuals: deque[float] = field(default_factory=lambda: deque(maxlen=COMPARISONS))
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=COMPARISONS))
    norm: float = np.inf

    @property
    def factor(self) -> float:
        """The greatest error for one unit of residual; NaN if no residual was measured."""
        return max(self.ratios, default=np.nan)

    def residual(self, got: LossAndGradient) -> float:
        """Return the sum of the relative residuals that were measured."""
        grown = max(1.0, _adjoint_norm(got) / self.norm)
        return float(np.nansum([got.forward_relative, grown * got.backward_relative]))

    def is_exceeded_by(self, got: LossAndGradient) -> bool:
        """Tell whether residuals are far greater than those that were compared."""
        return self.residual(got) > BEYOND * max(self.residuals, default=0.0)

    def add(self, got: LossAndGradient, error: float, *, is_near: bool) -> None:
        """Take in a comparison."""
        norm = _adjoint_norm(got)
        if is_near and norm > 0:
            self.norm = norm
        residual = self.residual(got)
        if residual > 0:
            self.residuals.append(residual)
            self.ratios.append(error / residual)


def _adjoint_norm(got: LossAndGradient) -> float:
    """Return the norm of the adjoint solution; 0 where no residual was measured."""
    relative = got.backward_relative
    return float(got.backward_residuals[-1] / relative) if relative > 0 else 0.0


def _grew(residuals: NDArray[np.float64]) -> bool:
    """Tell whether the last residual is greater than the one before it."""
    measured = residuals[~np.isnan(residuals)]
    return bool(measured.size > 1 and measured[-1] > measured[-2])
