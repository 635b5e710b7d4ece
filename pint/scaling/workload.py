"""What can be calibrated and predicted by name: the training of a GRU, and the heat equation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from pint.grid.timegrid import TimeGrid
from pint.mgrit.solver import MGRIT
from pint.models.heat import Heat
from pint.options import MGRITOptions, at_least, coarsest_of
from pint.rnn.cells import CELLS, CellName
from pint.rnn.coarse_step import CoarseStep
from pint.rnn.inputs import is_read_in_place
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.solver import NetworkSolver
from pint.scaling.calibrate import SolveCalibration, TrainingCalibration
from pint.scaling.costs import Costs
from pint.scaling.samples import median_seconds
from pint.scaling.schedule import PredictedRun
from pint.train.optimizers import Adam

EXACT = MGRITOptions(levels=1)


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """A problem, and how MGRIT solves it.

    Parameters
    ----------
    steps : int
        Length N of the time grid, or T of the sequences.
    levels, min_coarse : int
        See `MGRITOptions`.
    coarsening, relax : int or tuple of int
        See `MGRITOptions`.
    coarsest : str
        See `MGRITOptions`.
    truncation : int, default 0
        See `MGRITOptions`; 0 is none.
    forward_iterations : int
        Cycles of the solve.
    """

    kind: ClassVar[str]

    steps: int = 1024
    levels: int = 3
    coarsening: int | tuple[int, ...] = 4
    relax: int | tuple[int, ...] = 1
    min_coarse: int = 2
    coarsest: str = "gather"
    truncation: int = 0
    forward_iterations: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "levels", "forward_iterations"):
            at_least(name, getattr(self, name), 1)
        _ = self.options  # which are checked where they are made

    @property
    def options(self) -> MGRITOptions:
        """Options of the forward solve."""
        return MGRITOptions(
            levels=self.levels,
            coarsening=self.coarsening,
            relax=self.relax,
            min_coarse=self.min_coarse,
            coarsest=coarsest_of(self.coarsest, self.truncation or None),
            max_iterations=self.forward_iterations,
        )

    @property
    def first_factor(self) -> int:
        """Coarsening factor of the finest level."""
        return self.coarsening if isinstance(self.coarsening, int) else self.coarsening[0]

    @abstractmethod
    def run(self, groups: int = 1) -> PredictedRun:
        """Return what is walked."""

    @abstractmethod
    def measure(self, lengths: Sequence[int], repeats: int = 5) -> Costs:
        """Return the costs of work on this machine, on one process."""

    @abstractmethod
    def baselines(self, steps: int) -> dict[str, float]:
        """Return seconds for each step of the baselines, timed over `steps` steps."""

    def described(self) -> dict[str, Any]:
        """Return names and values of which `workload_of` makes the same again."""
        return {"kind": self.kind, **asdict(self)}

    def changed(self, **changes: Any) -> Self:
        """Return the same with other values; those that are None stay."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})


@dataclass(frozen=True, kw_only=True)
class HeatWorkload(Workload):
    """The heat equation in one dimension, implicit Euler.

    Parameters
    ----------
    nodes : int, default 129
        Nodes in space.
    """

    kind = "heat"

    nodes: int = 129

    def _model(self) -> Heat:
        return Heat(num_nodes=self.nodes)

    def _grid(self) -> TimeGrid:
        return TimeGrid.uniform(0.0, 1e-3 * self.steps, self.steps)

    def run(self, groups: int = 1) -> PredictedRun:  # noqa: D102
        if groups != 1:
            raise ValueError("the heat equation has no batch to split: groups must be 1")
        size = int(np.prod(self._model().state_shape)) * 8
        return PredictedRun(
            num_steps=self.steps, forward=self.options, state_bytes=(size,), replays=True
        )

    def measure(self, lengths: Sequence[int], repeats: int = 5) -> Costs:  # noqa: D102
        model = self._model()
        start = np.sin(np.linspace(0.0, np.pi, model.state_shape[0]))
        grid = TimeGrid.uniform(0.0, 1e-3 * max(lengths), max(lengths))
        return SolveCalibration(model, grid, start, self.options).measure(lengths, repeats)

    def baselines(self, steps: int) -> dict[str, float]:  # noqa: D102
        model = self._model()
        start = np.zeros(model.state_shape)
        solver = MGRIT(model, TimeGrid.uniform(0.0, 1e-3 * steps, steps), EXACT)
        return {"serial stepping": median_seconds(lambda: solver.solve(start)) / steps}


@dataclass(frozen=True, kw_only=True)
class GRUWorkload(Workload):
    """A step of training a network of recurrent layers: both passes and Adam's update.

    Parameters
    ----------
    batch : int, default 100
        Sequences of a step.
    features, hidden, layers, outputs : int
        Shape of the network.
    cell, coarse_step, substep
        See `RecurrenceOptions`.
    backward_iterations : int, default 2
        Cycles of the adjoint solve.
    """

    kind = "gru"

    batch: int = 100
    features: int = 9
    hidden: int = 100
    layers: int = 1
    outputs: int = 6
    cell: CellName = "implicit"
    coarse_step: CoarseStep = "averaged"
    substep: int | tuple[int, ...] = 4
    backward_iterations: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("backward_iterations", self.backward_iterations, 1)
        at_least("batch", self.batch, 1)
        self.network()

    def network(self, cell: CellName | None = None) -> Network:
        """Return such a network, its parameters drawn."""
        kind = cell or self.cell
        unfit = kind != "implicit" and self.coarse_step == "implicit"
        coarse_step: CoarseStep = "averaged" if unfit else self.coarse_step
        options = RecurrenceOptions(
            num_features=self.features, hidden=self.hidden, layers=self.layers, cell=kind,
            coarse_step=coarse_step, substep=self.substep,
        )  # fmt: skip
        return Network(options, self.outputs)

    @property
    def backward(self) -> MGRITOptions:
        """Options of the adjoint solve."""
        return replace(self.options, max_iterations=self.backward_iterations)

    def run(self, groups: int = 1) -> PredictedRun:  # noqa: D102
        return training_run(
            self.network(), self.steps, self.batch, self.options, self.backward, groups
        )

    def evaluations(self) -> list[int]:
        """Return, level by level, the gate evaluations of a step."""
        return _evaluations(self.network().options, self.options, self.steps)

    def measure(self, lengths: Sequence[int], repeats: int = 5) -> Costs:  # noqa: D102
        return self._calibration().measure(lengths, repeats)

    def _calibration(self) -> TrainingCalibration:
        network = self.network()
        adam = Adam(learning_rate=1e-3)
        state = adam.init(network.parameters)
        return TrainingCalibration(
            network, self.options, self.backward, self.batch,
            lambda gradient: adam.update(gradient, state, network.parameters),
        )  # fmt: skip

    def baselines(self, steps: int) -> dict[str, float]:
        """Return the seconds for each step of exact stepping, and of torch.nn.GRU if there is one.

        Without torch, "classic GRU" is pint's own, stepped exactly.
        """
        found = {"serial stepping": self._exact(self.cell, steps)}
        try:
            found["classic GRU (torch)"] = self._torch(steps)
        except ImportError:
            found["classic GRU (pint)"] = self._exact("classic", steps)
        return found

    def _data(self, steps: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, steps, self.features), dtype=np.float32)
        return x, rng.integers(self.outputs, size=self.batch)

    def _exact(self, cell: CellName, steps: int) -> float:
        network, (x, y) = self.network(cell), self._data(steps)
        solver = NetworkSolver(network, steps, EXACT, EXACT)
        adam = Adam(learning_rate=1e-3)
        state = adam.init(network.parameters)

        def step() -> None:
            adam.update(solver.loss_and_gradient(x, y).gradient, state, network.parameters)

        return median_seconds(step) / steps

    def _torch(self, steps: int) -> float:
        import torch

        torch.set_num_threads(1)
        recurrent = torch.nn.GRU(self.features, self.hidden, self.layers, batch_first=True)
        head = torch.nn.Linear(self.hidden, self.outputs)
        x, y = (torch.from_numpy(array) for array in self._data(steps))
        parameters = [*recurrent.parameters(), *head.parameters()]
        adam = torch.optim.Adam(parameters, lr=1e-3)

        def step() -> None:
            adam.zero_grad()
            torch.nn.functional.cross_entropy(head(recurrent(x)[0][:, -1]), y).backward()
            adam.step()

        return median_seconds(step) / steps


def training_run(
    network: Network,
    steps: int,
    batch: int,
    forward: MGRITOptions,
    backward: MGRITOptions,
    groups: int = 1,
) -> PredictedRun:
    """Return a step of training as it is walked.

    Parameters
    ----------
    network : Network
        What is trained: one stack in one direction.
    steps : int
        Length T of the sequences.
    batch : int
        Number of sequences; the groups share them.
    forward, backward : MGRITOptions
        How both problems are solved.
    groups : int, default 1
        Groups of ranks; each shares time.

    Raises
    ------
    ValueError
        If the groups do not divide the batch.
    """
    if batch % groups:
        raise ValueError(f"groups must divide the batch, {batch}, got {groups}")
    a, item = network.architecture, network.parameters.itemsize
    size = a.num_states * (batch // groups) * a.state_width * item
    kept = a.num_features + CELLS[a.cell].num_gates * a.hidden  # an input, and products
    own = batch // groups
    if not forward.factors(steps) and is_read_in_place(own, a.num_features, is_flat=own == 1):
        kept -= a.num_features
    numbers = (CELLS[a.cell].num_coefficients + 1) * a.hidden  # and the new h
    noted = a.num_states * own * numbers * item
    tapes = [noted * count for count in _evaluations(network.options, forward, steps)]
    return PredictedRun(
        num_steps=steps,
        forward=forward,
        backward=backward,
        state_bytes=(size,),
        num_parameters=network.parameters.size,
        parameter_bytes=item,
        layers=network.options,
        input_bytes=(batch // groups) * item * kept,
        tape_bytes=tuple(tapes),
        fixed_bytes=item * (4 * network.parameters.size + batch * steps * a.num_features),
        groups=groups,
    )


def _evaluations(layers: RecurrenceOptions, options: MGRITOptions, steps: int) -> list[int]:
    """Return, level by level, the gate evaluations of a step."""
    num_fine, found = 1, [1]
    for level, m in enumerate(options.factors(steps), start=1):
        num_fine *= int(np.max(m))
        found.append(len(layers.evaluations_of(level, num_fine)))
    return found


WORKLOADS: dict[str, type[Workload]] = {one.kind: one for one in (GRUWorkload, HeatWorkload)}


def workload_of(described: dict[str, Any]) -> Workload:
    """Return the workload of a description by `Workload.described`.

    Raises
    ------
    ValueError
        If it is not of that form.
    """
    kind = described.get("kind")
    if kind not in WORKLOADS:
        raise ValueError(f"kind must be one of {sorted(WORKLOADS)}, got {kind!r}")
    known = {one.name for one in fields(WORKLOADS[kind])}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in described.items()
        if name in known
    }
    return WORKLOADS[kind](**values)
