"""Recurrent layers as torch modules: `torch.nn.GRU`'s call, pint's solver inside of autograd."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from pint.mgrit.result import Result
from pint.mgrit.status import Status
from pint.options import MGRITOptions, PerLevel, instance_of
from pint.parallel.comm import Communicator, as_communicator
from pint.rnn.cells import CELLS, CellName
from pint.rnn.coarse_step import CoarseStep
from pint.rnn.layer_solver import SequenceSolver
from pint.rnn.recurrence_options import RecurrenceOptions

try:
    import torch
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
except ImportError as error:
    raise ImportError('pint.torch needs torch: pip install "pint-mgrit[torch]"') from error

__all__ = ["GRU", "LSTM", "ImplicitGRU"]

_SPARE_SOLVERS = 4
"""Solvers that a module keeps for its next calls; each holds the memory of one call."""


class _Solvers:
    """The solvers of a module: each call takes one, and returns it when nothing waits for it."""

    def __init__(
        self,
        cell: CellName,
        forward: MGRITOptions,
        backward: MGRITOptions,
        coarse_step: CoarseStep,
        substep: PerLevel,
        comm: Communicator,
    ) -> None:
        self.arguments = cell, forward, backward, coarse_step, substep, comm
        self._spares: list[tuple[Any, SequenceSolver]] = []
        self.residuals: list[float] = []

    def __reduce__(self) -> Any:
        """Let copies of a module begin without solvers of their own."""
        return _Solvers, self.arguments

    def __deepcopy__(self, memo: Any) -> _Solvers:
        """Do the same on the same ranks: a communicator cannot be copied."""
        return _Solvers(*self.arguments)

    def solve(
        self,
        x: torch.Tensor,
        start: torch.Tensor,
        weights: Sequence[torch.Tensor],
        mask: Any,
        *,
        record: bool,
    ) -> tuple[SequenceSolver, Result]:
        """Take a solver, bind it to sequences of shape (T, B, F), and solve."""
        solver = self._take(x, weights)
        solver.bind_sequences([_array(weight) for weight in weights], _array(x), mask)
        result = solver.solve(_array(start), record=record)
        self.residuals = result.residuals.tolist()
        return solver, result

    def _take(self, x: torch.Tensor, weights: Sequence[torch.Tensor]) -> SequenceSolver:
        cell, forward, backward, coarse_step, substep, comm = self.arguments
        options = RecurrenceOptions(
            num_features=x.shape[2],
            hidden=weights[1].shape[1],
            layers=len(weights) // 4,
            cell=cell,
            coarse_step=coarse_step,
            substep=substep,
            dtype=_array(weights[0]).dtype,
        )
        key = options, x.shape[0]
        matching = [spare for spare in self._spares if spare[0] == key]
        if not matching:
            return SequenceSolver(options, x.shape[0], forward, backward, comm)
        self._spares.remove(matching[-1])
        return matching[-1][1]

    def give(self, solver: SequenceSolver) -> None:
        """Take back a solver; those that were not needed for longest are dropped."""
        key = solver.model.options, solver.num_steps
        self._spares = [*self._spares, (key, solver)][-_SPARE_SOLVERS:]


class _Solve(torch.autograd.Function):
    """A stack of layers over sequences: outputs (T, B, H) and final states (layers, B, W)."""

    @staticmethod
    def forward(
        ctx: Any, solvers: _Solvers, mask: Any, x: Any, start: Any, *weights: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.solvers, ctx.mask = solvers, mask
        ctx.solved = solvers.solve(x, start, weights, mask, record=True)
        output, final = _outcome(*ctx.solved)
        ctx.save_for_backward(output, x, start, *weights)  # torch detects a change in place
        return output, final

    @staticmethod
    def backward(ctx: Any, d_output: Any, d_final: Any) -> Any:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "pint.torch has no second derivatives: leave out create_graph=True"
            )
        _, x, start, *weights = ctx.saved_tensors
        # The first backward pass gives the solver away; another one solves again.
        solved = ctx.solved or ctx.solvers.solve(x, start, weights, ctx.mask, record=True)
        (solver, result), ctx.solved = solved, None
        gradient = solver.gradient(
            result, _optional(d_output), _optional(d_final), of_x=ctx.needs_input_grad[2]
        )
        ctx.solvers.give(solver)
        _check(gradient.status, "the gradient")
        d_weights = (torch.from_numpy(d) for d in gradient.parameters.values())
        d_x = None if gradient.x is None else torch.from_numpy(gradient.x)
        return None, None, d_x, torch.from_numpy(gradient.start), *d_weights


class _Layers(torch.nn.RNNBase):
    """What the modules share; each also inherits from its torch counterpart."""

    cell: ClassVar[CellName]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        forward_options: MGRITOptions | None = None,
        backward_options: MGRITOptions | None = None,
        coarse_step: CoarseStep = "averaged",
        substep: PerLevel = 4,
        comm: Any = None,
    ) -> None:
        if not bias:
            raise ValueError("bias must be True: layers without biases are not available")
        if dropout != 0:
            raise ValueError(f"dropout must be 0, got {dropout}: put torch.nn.Dropout between")
        set_up: Any = super().__init__  # of the torch counterpart, which names its mode by itself
        set_up(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip
        exact = MGRITOptions(levels=1)
        forward_options = exact if forward_options is None else forward_options
        backward_options = forward_options if backward_options is None else backward_options
        instance_of("forward_options", forward_options, MGRITOptions)
        instance_of("backward_options", backward_options, MGRITOptions)
        self._solvers = _Solvers(
            self.cell, forward_options, backward_options, coarse_step, substep,
            as_communicator(comm),
        )  # fmt: skip

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return outputs and final states, as the torch module of the same parameters does.

        Parameters
        ----------
        input : Tensor or PackedSequence
            Shape (T, B, input_size), (B, T, input_size) with `batch_first`, or (T, input_size).
        hx : Tensor, or pair of Tensor for LSTM, optional
            Initial states, shape (num_layers, B, hidden_size); twice the rows if bidirectional, and
            no B for an input without B. Zero by default.

        Returns
        -------
        output : Tensor or PackedSequence
            States of the top layer, in the layout of `input`; of both directions side by side.
        hn : Tensor, or pair of Tensor for LSTM
            Final states, in the layout of `hx`.

        Raises
        ------
        FloatingPointError
            If a state is NaN or infinite, or the solve diverged; on every rank.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(
                f"input must have 2 or 3 axes, the last of {self.input_size}: {tuple(input.shape)}"
            )
        has_batch = input.dim() == 3
        if not has_batch:
            input = input.unsqueeze(1)
        elif self.batch_first:
            input = input.transpose(0, 1)
        output, final = self._run(input, self._start(hx, input, has_batch), None)
        if not has_batch:
            return output.squeeze(1), self._states(final.squeeze(1))
        return output.transpose(0, 1) if self.batch_first else output, self._states(final)

    def _forward_packed(self, packed: PackedSequence, hx: Any) -> Any:
        """Evaluate padded sequences, in the order of `packed`: longest first."""
        in_order = PackedSequence(packed.data, packed.batch_sizes)
        x, lengths = pad_packed_sequence(in_order)
        start = self._start(self.permute_hidden(hx, packed.sorted_indices), x, True)
        mask = torch.arange(x.shape[0]) < lengths[:, None]
        output, final = self._run(x, start, None if mask.all() else mask.numpy())
        data = pack_padded_sequence(output, lengths).data
        indices = packed.sorted_indices, packed.unsorted_indices
        outputs = PackedSequence(data, packed.batch_sizes, *indices)
        return outputs, self.permute_hidden(self._states(final), packed.unsorted_indices)

    def permute_hidden(self, hx: Any, permutation: torch.Tensor | None) -> Any:
        """Return states with the sequences in another order; new tensors, or `hx` itself."""
        if hx is None or permutation is None:
            return hx
        if isinstance(hx, tuple):
            return tuple(state.index_select(1, permutation) for state in hx)
        return hx.index_select(1, permutation)

    def _start(self, hx: Any, x: torch.Tensor, has_batch: bool) -> torch.Tensor:
        """Return initial states as pint has them, shape (layers, B, W)."""
        weight = self.all_weights[0][0]
        _check_input(x, self.input_size, weight)
        count = self.num_layers * (2 if self.bidirectional else 1)
        blocks = CELLS[self.cell].num_states
        if hx is None:
            shape = (count, x.shape[1], blocks * self.hidden_size)
            return x.new_zeros(shape)
        states = hx if isinstance(hx, tuple) else (hx,)
        batch = (x.shape[1],) if has_batch else ()
        expected = (count, *batch, self.hidden_size)
        if len(states) != blocks or any(tuple(state.shape) != expected for state in states):
            shapes = [tuple(state.shape) for state in states]
            what = "a tensor" if blocks == 1 else "a pair of tensors"
            raise ValueError(f"hx must be {what} of shape {expected}, got {shapes}")
        for state in states:
            _check_kind("hx", state, weight)
        start = torch.cat(states, dim=-1) if blocks > 1 else states[0]
        return start if has_batch else start.unsqueeze(1)

    def _states(self, final: torch.Tensor) -> Any:
        """Return final states as torch has them: a pair for LSTM."""
        if CELLS[self.cell].num_states == 1:
            return final
        hidden = self.hidden_size
        return final[..., :hidden].contiguous(), final[..., hidden:].contiguous()

    def _run(
        self, x: torch.Tensor, start: torch.Tensor, mask: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate all layers at once, or one after another where they run in both directions."""
        if not self.bidirectional:
            weights = [weight for layer in self.all_weights for weight in layer]
            return self._solve(x, start, mask, weights)
        finals = []
        backwards = _backwards(x, mask)
        for layer in range(self.num_layers):
            outputs = []
            for row, index in ((2 * layer, None), (2 * layer + 1, backwards)):
                weights, own = self.all_weights[row], start[row : row + 1]
                output, final = self._solve(_reordered(x, index), own, mask, weights)
                outputs.append(_reordered(output, index))
                finals.append(final)
            x = torch.cat(outputs, dim=-1)
        return x, torch.cat(finals)

    @property
    def residuals(self) -> list[float]:
        """Residual norm of each cycle of the last forward solve, before its correction.

        NaN where none was measured: the first cycle of `skip_first_down`, and exact stepping.
        """
        return list(self._solvers.residuals)

    def _solve(
        self, x: torch.Tensor, start: torch.Tensor, mask: Any, weights: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, start, *weights)):
            apply: Any = _Solve.apply
            outcome: tuple[torch.Tensor, torch.Tensor]
            outcome = apply(self._solvers, mask, x, start, *weights)
            return outcome
        solver, result = self._solvers.solve(x, start, weights, mask, record=False)
        outcome = _outcome(solver, result)
        self._solvers.give(solver)
        return outcome


class GRU(_Layers, torch.nn.GRU):
    """`torch.nn.GRU`, evaluated and differentiated by pint; on the CPU.

    Names, shapes and initial values of the parameters are torch's, and so is the call. By default
    it steps through the sequence, and gives torch's numbers up to rounding.

    Parameters
    ----------
    input_size, hidden_size : int
        Widths of the input and of a state.
    num_layers : int, default 1
        Number of layers.
    bias, dropout
        Only True and 0.
    batch_first : bool, default False
        Whether input and output have shape (B, T, ...) in place of (T, B, ...).
    bidirectional : bool, default False
        Whether each layer also runs from the end; then layers are solved one after another.
    device, dtype
        Of the parameters: the CPU; float32 or float64.
    forward_options, backward_options : MGRITOptions, optional
        How the states and their adjoints are solved for. Exact stepping, and as forwards, if left
        out.
    coarse_step, substep
        What a coarse step does, see `pint.rnn.recurrence.RecurrenceOptions`.
    comm : mpi4py communicator or Communicator, optional
        Ranks that share the time axis. Every rank calls with the same input, gets the whole output,
        and must compute the same loss; gradients are whole on every rank.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Examples
    --------
    >>> gru = GRU(3, 4)
    >>> theirs = torch.nn.GRU(3, 4)
    >>> theirs.load_state_dict(gru.state_dict())
    <All keys matched successfully>
    >>> x = torch.randn(10, 2, 3)
    >>> torch.allclose(gru(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    True
    """

    cell = "classic"


class ImplicitGRU(_Layers, torch.nn.GRU):
    """The implicit unit of Moon & Cyr, h' = (h + (1 - z) n) / (2 - z), as a torch module.

    It has the parameters, their names and the call of `GRU`. Its published coarse step is
    ``coarse_step="implicit"``.

    References
    ----------
    Moon & Cyr, "Parallel training of GRU networks with a multi-grid solver for long sequences",
    ICLR 2022.
    """

    cell = "implicit"


class LSTM(_Layers, torch.nn.LSTM):
    """`torch.nn.LSTM`, evaluated and differentiated by pint; parameters as in `GRU`."""

    cell = "lstm"


def _outcome(solver: SequenceSolver, result: Result) -> tuple[torch.Tensor, torch.Tensor]:
    _check(result.status, "the output", result.detail)
    return torch.from_numpy(solver.whole_outputs(result)), torch.from_numpy(result.final_state())


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().numpy()


def _optional(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else _array(tensor)


def _check(status: Status, what: str, detail: str = "") -> None:
    """Raise after a solve that diverged, and warn after one that did not converge."""
    if status is Status.DIVERGED:
        described = "; ".join(filter(None, (status.value, detail)))
        raise FloatingPointError(f"{what} cannot be trusted ({described})")
    if status is Status.MAX_ITERATIONS:
        warnings.warn(f"{what}: {status.value}", RuntimeWarning, stacklevel=2)


def _check_input(x: torch.Tensor, width: int, weight: torch.Tensor) -> None:
    """Raise unless x, (T, B, F), is what layers with these weights can take."""
    if x.shape[2] != width:
        raise ValueError(f"input must have {width} features, got {x.shape[2]}")
    if 0 in x.shape:
        raise ValueError(f"input must have at least one step and sequence: {tuple(x.shape)}")
    _check_kind("input", x, weight)


def _check_kind(name: str, tensor: torch.Tensor, weight: torch.Tensor) -> None:
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "pint.torch computes in float32 or float64 on the CPU, the parameters are "
            f"{weight.dtype} on {weight.device}: use module.cpu().float()"
        )
    if (tensor.device, tensor.dtype) != (weight.device, weight.dtype):
        raise ValueError(
            f"{name} must be {weight.dtype} on {weight.device} as the parameters are, got "
            f"{tensor.dtype} on {tensor.device}"
        )


def _backwards(x: torch.Tensor, mask: Any) -> torch.Tensor:
    """Return, for each step and sequence, the step that takes its place from the end: (T, B)."""
    steps = torch.arange(x.shape[0])[:, None]
    lengths = torch.tensor([x.shape[0]]) if mask is None else torch.from_numpy(mask.sum(axis=1))
    return torch.where(steps < lengths, lengths - 1 - steps, steps).expand(x.shape[:2])


def _reordered(x: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
    """Return x with other steps in place, each sequence for itself; `x` itself without index."""
    return x if index is None else x[index, torch.arange(x.shape[1])]
