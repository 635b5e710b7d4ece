"""Accuracy of training: gradients against exact ones, and the test part."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.data.sequences import Samples
from pint.options import MGRITOptions, at_least, one_of, positive
from pint.parallel.comm import Communicator
from pint.rnn.losses import Loss
from pint.rnn.network import Network
from pint.rnn.solver import LossAndGradient, NetworkSolver
from pint.train.log import AccuracyLog

Array = NDArray[Any]

BATCHES_BETWEEN_CHECKS = 25
BATCHES_FAR_BELOW = 10
"""Batches in a row far below the bound after which fewer iterations are tried."""
FAR_BELOW = 0.2
"""Part of the bound below which an error is far below it."""
COMPARISONS = 8
"""Number of comparisons that are kept."""
BEYOND = 3.0
"""Residuals this many times greater than all compared residuals make an estimate doubtful."""


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions:
    """Control of the accuracy of gradients.

    Parameters
    ----------
    mode : {"fixed", "adaptive"}, default "fixed"
        "fixed": always the solver's iterations. "adaptive": the fewest iterations for which the
        estimated relative error of the gradient stays below `bound`, beginning with the solver's;
        where they take longer than exact stepping, batches are stepped exactly, and the ranks share
        their sequences. A gradient whose estimate is not below the bound is compared with the exact
        one, which is returned if the error is above the bound or a solve diverged.
    bound : float, default 0.05
        Greatest relative error of a gradient, in the 2-norm.
    check_every : int, default 0
        Number of batches from one comparison with an exact gradient to the next. 0 is never if
        "fixed", and 25 if "adaptive", which calibrates its estimate by these comparisons.
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
        """Whether there is no cycle."""
        return self.forward == 0


EXACT = Iterations(0, 0)


class AccuracyControl:
    """Evaluate batches with the number of iterations that the wanted accuracy takes.

    The error of a gradient is estimated as a factor times the sum of the relative residuals of both
    solves. The factor is the greatest of the last comparisons with exact gradients, one for each
    pair of iteration counts; a pair without a comparison is compared at its first batch. Residuals
    are not divided by an adjoint solution that has grown since the last comparison: it may have
    grown with its error. Mode "adaptive" compares at once if the estimate is not below the bound,
    if residuals are far greater than the compared ones, or if residuals grew from one cycle to the
    next, unless the estimate is far below the bound.

    Parameters
    ----------
    solver : NetworkSolver
        The parallel solver; mode "adaptive" changes its numbers of iterations.
    options : AccuracyOptions
        The wanted accuracy.

    Attributes
    ----------
    log : AccuracyLog
        Iterations and accuracy of each batch so far.
    exact : NetworkSolver
        Steps exactly; the ranks share the sequences of a batch.
    settings : list of Iterations
        Pairs of iteration counts that are tried, cheapest first.
    current : int
        Index of the next batch's pair in `settings`.
    """

    def __init__(self, solver: NetworkSolver, options: AccuracyOptions) -> None:
        self.solver, self.options, self.log = solver, options, AccuracyLog()
        self.comm: Communicator = solver.comm
        layers = solver.layer_solvers[0]
        threads = layers.forward.options.threads
        self.exact = exact_solver(
            solver.network, solver.num_steps, solver.loss, solver.comm, threads
        )
        self.is_serial, self.is_adaptive = not layers.has_cycles, options.mode == "adaptive"
        forward = layers.forward.options.max_iterations
        backward = layers.backward.solver.options.max_iterations
        self.settings = self._settings(forward, backward)
        enough = (
            index
            for index, one in enumerate(self.settings)
            if one.forward >= forward and one.backward >= backward
        )
        self.current = next(enough, max(len(self.settings) - 2, 0))
        self._before_exact = self.current
        self._batches_below_bound, self._since_check = 0, 0
        self._compared: dict[Iterations, Comparisons] = {}
        self._seconds: dict[Iterations, float] = {}
        self._uncompiled = {self.solver, self.exact}

    def _settings(self, forward: int, backward: int) -> list[Iterations]:
        """Return the pairs of iteration counts that are tried, cheapest first."""
        if not self.is_adaptive or self.is_serial:
            return [Iterations(forward, backward)]
        most = self.options.most_iterations
        pairs = [(n, n - 1 + again) for n in range(2, most + 1) for again in (0, 1)]
        settings = [Iterations(*pair) for pair in pairs]
        if max(forward, backward) > most:
            settings.append(Iterations(max(forward, most), max(backward, most)))
        return [*settings, EXACT]

    @property
    def iterations(self) -> Iterations:
        """The iterations of the next batch."""
        return self.settings[self.current]

    def loss_and_gradient(
        self,
        x: Array,
        y: Array,
        mask: NDArray[np.bool_] | None = None,
        start: Array | None = None,
        *,
        inputs: bool = False,
        sequence_ids: NDArray[np.int64] | None = None,
        error: Exception | None = None,
    ) -> LossAndGradient:
        """Return the loss of a batch and its gradient, as accurate as wanted; collective.

        It takes the arguments of `NetworkSolver.loss_and_gradient`. The result also determines the
        iterations of the next batch.
        """
        used = self.iterations
        got: LossAndGradient | None = None
        if not used.are_exact:
            with self._cycles(used, len(x)):
                got = self.solver.loss_and_gradient(
                    x, y, mask, start, inputs=inputs, sequence_ids=sequence_ids, error=error
                )
        if got is not None:
            self._note(used, got, self._estimate(used, got))
            if not self._is_due(used, got):
                self._choose(used)
                return got
        with self._timed(EXACT, self.exact, len(x)):
            exact = self.exact.loss_and_gradient(x, y, mask, start, inputs=inputs, error=error)
        if used.are_exact:
            self._note(used, exact, 0.0)
            return exact
        if got is None:  # a solve diverged
            self._note(used, exact, np.inf)
            self.log.measured_error[-1] = np.inf
        else:
            exact = self._check(used, got, exact)
        self._choose(used)
        return exact

    @contextmanager
    def _cycles(self, used: Iterations, count: int) -> Iterator[None]:
        """Set the iterations of a solve, and time it; divergence is no error in mode "adaptive"."""
        if self.is_adaptive:
            self.solver.iterate(*used)
        try:
            with self._timed(used, self.solver, count):
                yield
        except FloatingPointError:
            if not self.is_adaptive:
                raise

    @contextmanager
    def _timed(self, used: Iterations, solver: NetworkSolver, count: int) -> Iterator[None]:
        """Keep the least time per sequence, but for a first call, which may compile kernels."""
        begin = time.perf_counter()
        yield
        seconds = (time.perf_counter() - begin) / count
        if solver in self._uncompiled:
            self._uncompiled.discard(solver)
        else:
            self._keep_time(used, seconds)

    def _keep_time(self, used: Iterations, seconds: float) -> None:
        self._seconds[used] = min(seconds, self._seconds.get(used, np.inf))

    def warm_up(
        self, x: NDArray[Any], y: NDArray[Any], mask: NDArray[np.bool_] | None = None
    ) -> None:
        """Compile the kernels of both solvers by a first call; collective."""
        try:
            self.solver.loss_and_gradient(x, y, mask)
        except FloatingPointError:
            if not self.is_adaptive:
                raise
        self.exact.loss_and_gradient(x, y, mask)
        self._uncompiled.clear()

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
        """Return whether to compare this batch with its exact gradient."""
        every = self.options.batches_between_checks
        self._since_check += 1
        if every == 0 or self.is_serial:
            return False
        if used not in self._compared or self._since_check >= every:
            return True
        return self.is_adaptive and self._is_doubtful(used, got)

    def _is_doubtful(self, used: Iterations, got: LossAndGradient) -> bool:
        """Return whether a gradient may be less accurate than wanted."""
        estimate, bound = self.log.estimated_error[-1], self.options.bound
        if not estimate <= bound or self._compared[used].is_exceeded_by(got):
            return True
        grew = _grew(got.forward_residuals) or _grew(got.backward_residuals)
        return grew and estimate > FAR_BELOW * bound

    def _check(
        self, used: Iterations, got: LossAndGradient, exact: LossAndGradient
    ) -> LossAndGradient:
        """Compare gradients; return the exact one if the other is not accurate enough."""
        self._since_check = 0
        a, b = got.gradient.astype(np.float64), exact.gradient.astype(np.float64)
        error = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-300)
        lengths = max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)
        self.log.measured_error[-1], self.log.cosine[-1] = error, float(a @ b) / lengths
        known = self._compared.setdefault(used, Comparisons())
        known.add(got, error, is_near=error <= self.options.bound)
        self.log.estimated_error[-1] = self._estimate(used, got)
        exceeds = self.is_adaptive and not error <= self.options.bound
        return exact if exceeds else got

    def _choose(self, used: Iterations) -> None:
        """Choose the iterations of the next batch, in mode "adaptive"; the same on every rank."""
        if not self.is_adaptive:
            return
        measured, estimate = self.log.measured_error[-1], self.log.estimated_error[-1]
        error = estimate if np.isnan(measured) else measured
        top = len(self.settings) - 1
        if np.isnan(estimate) or not error <= self.options.bound:
            self.current, self._batches_below_bound = min(self.current + 1, top), 0
        elif error < FAR_BELOW * self.options.bound:
            self._batches_below_bound += 1
        else:
            self._batches_below_bound = 0
        if self._batches_below_bound >= BATCHES_FAR_BELOW and self.current > 0:
            self.current, self._batches_below_bound = self.current - 1, 0
        if self.current < top:
            self._before_exact = self.current
        if self._takes_longer_than_stepping(used):
            self.current = top

    def _takes_longer_than_stepping(self, used: Iterations) -> bool:
        """Return whether iterations took longer than exact stepping, on the slowest rank."""
        if not {used, EXACT} <= self._seconds.keys() or self.iterations.are_exact:
            return False
        own = np.array([[self._seconds[used], self._seconds[EXACT]]])
        slowest = self.comm.allgather_blocks(own).max(axis=0)
        return bool(slowest[0] > slowest[1])

    def start_epoch(self) -> None:
        """Try iterations again where batches were stepped exactly.

        Iterations are timed again. The time of exact stepping is kept, so that one batch shows
        which is slower.
        """
        if self.is_adaptive and self.iterations.are_exact and self.current > 0:
            self.current = self._before_exact
            for tried in self.settings[:-1]:
                self._seconds.pop(tried, None)


def exact_solver(
    network: Network,
    num_steps: int,
    loss: Loss | None = None,
    comm: Any = None,
    threads: int | None = None,
) -> NetworkSolver:
    """Return a solver that steps serially, and backpropagates through time.

    The ranks share the sequences of a batch, and the threads of a rank share its sequences.
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
        Norm of the latest adjoint solution that was near the exact one.
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
        """Return whether residuals are far greater than the compared ones."""
        return self.residual(got) > BEYOND * max(self.residuals, default=0.0)

    def add(self, got: LossAndGradient, error: float, *, is_near: bool) -> None:
        """Add a comparison."""
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
    """Return whether the last residual is greater than the previous one."""
    measured = residuals[~np.isnan(residuals)]
    return bool(measured.size > 1 and measured[-1] > measured[-2])


def measure(solver: NetworkSolver, loss: Loss, batches: Iterable[Samples]) -> float:
    """Return the accuracy over all elements, or the mean of a loss that does not classify.

    Collective. Elements are sequences, or with pooling "every" their times that are not missing.

    Parameters
    ----------
    solver : NetworkSolver
        Computes the scores.
    loss : Loss
        The loss of the training.
    batches : iterable of Samples
        The test part, the same on every rank.
    """
    total = np.zeros(2)
    for x, y, mask in batches:
        scores, _ = solver.predict(x, mask)
        total += tally(loss, scores, y, mask)
    return float(total[0] / total[1])


def tally(
    loss: Loss, scores: Array, y: Array, mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return a sum over elements and the sum of their weights; new.

    Parameters
    ----------
    loss : Loss
        A loss that classifies counts right classes, another one adds up its terms.
    scores : ndarray, shape (B, num_outputs) or (B, T, num_outputs)
        Scores of each element.
    y : ndarray, shape (B, ...) or (B, T, ...)
        Targets.
    mask : ndarray of bool, shape (B, T), or None
        False where a sequence has no element; None: all True.
    """
    counts = np.ones(scores.shape[:-1], dtype=np.bool_)
    if mask is not None and scores.ndim == 3:
        counts = mask
    if loss.classifies:
        return np.array([loss.num_correct(scores, y, counts), counts.sum()], dtype=np.float64)
    y = np.where(counts[..., None], y, 0)  # a missing element may have NaN
    terms, _ = loss.terms(scores, y)
    weights = loss.weights(y) * counts
    return np.array([(weights * terms).sum(), weights.sum()])
