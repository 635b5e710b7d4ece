"""A torch module as a recurrent cell: steps by its forward method, adjoints by autograd.

torch is imported when a cell is made, and not before: pint does not need it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from pint.propagator import Linearization, Propagator, State, Step

if TYPE_CHECKING:
    import torch

Tensor: TypeAlias = "torch.Tensor"


def from_torch(module: torch.nn.Module, hidden: int | tuple[int, ...] | None = None) -> TorchCell:
    """Return a torch module as a propagator, to be solved and trained in parallel over time.

    Parameters
    ----------
    module : torch.nn.Module
        Called as ``module(x, h)``, or as ``module(x, h, dt)`` where its forward method has a
        parameter called `dt`, see `TorchCell`; torch.nn.GRUCell and torch.nn.RNNCell fit as they
        are. All its parameters must be on the CPU and of one dtype, float32 or float64. From here
        on they are parts of one flat vector.
    hidden : int or tuple of int, optional
        Shape of the state of one sequence; ``module.hidden_size`` if left out.

    Returns
    -------
    TorchCell
        Shares its parameters with the module.

    Raises
    ------
    ImportError
        If torch is not installed.
    TypeError, ValueError
        If `module` is no module, if its parameters are not as said above, or if `hidden` is
        missing or not positive.
    """
    _torch()
    return TorchCell(module, hidden)


class TorchCell(Propagator):
    """A torch module as a propagator; `from_torch` makes it.

    A state holds all B sequences, shape (B, ...hidden). A stack of n steps is one call of
    the module, with the n B rows one below the other:

    - x, shape (n B, ...features): the element of the sequences in the middle of the finest steps
      that a step covers. On the finest level, step i takes ``x[:, i - 1]``.
    - h, shape (n B, ...hidden): the states at which the steps start.
    - dt, shape (n B, 1), with further axes of length 1 like the axes of h: the length of each step.

    It returns the states at the end, in the shape and dtype of h. Rows must not depend on each
    other, nor results on anything but parameters and arguments: no dropout and no batch
    normalisation in training mode. A module without `dt` does on a coarse level what it does on
    the finest one, which brings MGRIT forward only for cells that forget within few steps.

    States are tensors on the CPU. NumPy arrays are taken too, and then returned.

    Parameters
    ----------
    module : torch.nn.Module
        The cell.
    hidden : int or tuple of int, optional
        Shape of the state of one sequence; ``module.hidden_size`` if left out.

    Attributes
    ----------
    module : torch.nn.Module
        The cell. Changing its parameters in place (load_state_dict, torch.optim) changes
        `parameters`, and the other way round.
    parameters : ndarray, shape (num_parameters,), or None
        All parameters of the module that require a gradient, flat, in the order of
        ``module.parameters()``; None if there are none.
    """

    batched = True

    def __init__(
        self, module: torch.nn.Module, hidden: int | tuple[int, ...] | None = None
    ) -> None:
        torch = _torch()
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        self.module = module
        self.hidden = _hidden(module, hidden)
        self.torch_dtype = _dtype(module)
        self.dtype = np.dtype(str(self.torch_dtype).removeprefix("torch."))
        self.takes_dt = "dt" in inspect.signature(module.forward).parameters
        self.weights = [p for p in module.parameters() if p.requires_grad]
        self._flat = _joined(self.weights)
        self.parameters = None if self._flat is None else self._flat.numpy()
        self.inputs: Tensor | None = None

    @property
    def state_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(B, ...hidden), with the B of the last `set_inputs`."""
        return (0 if self.inputs is None else self.inputs.shape[1], *self.hidden)

    def set_inputs(self, x: NDArray[Any] | Tensor) -> None:
        """Bind sequences.

        Parameters
        ----------
        x : array or tensor, shape (B, T, ...features)
            Sequences; element ``x[:, i - 1]`` belongs to finest step i.

        Raises
        ------
        ValueError
            If there are fewer than 3 dimensions, or no sequence.
        """
        if x.ndim < 3 or x.shape[0] == 0:
            raise ValueError(
                "inputs must have shape (batch, time, ...features) with at least one sequence, "
                f"got {tuple(x.shape)}"
            )
        inputs = _torch().as_tensor(x, dtype=self.torch_dtype, device="cpu").detach()
        self.inputs = inputs.swapaxes(0, 1).contiguous()
        self.refresh()

    def refresh(self) -> None:
        """Check that the module still lives in `parameters`, and not in copies of them.

        Raises
        ------
        RuntimeError
            If parameters of the module were moved, for example by ``module.double()``.
        """
        start = 0 if self._flat is None else self._flat.data_ptr()
        for weight in self.weights:
            if weight.numel() and weight.data_ptr() != start:
                raise RuntimeError(
                    "parameters of the module were replaced or moved; change them in place, or "
                    "call from_torch after module.to(...)"
                )
            start += weight.numel() * weight.element_size()

    def step(self, u: State, step: Step) -> State:
        """Return the states at the end of a stack of steps, shape (n, B, ...hidden); new."""
        with _torch().no_grad():
            return _like(u, self._call(_tensor(u), step))

    def linearize(self, u: State, step: Step) -> TorchLinearization:
        """Return the derivative of Phi at a stack of states; it keeps autograd's graphs."""
        return TorchLinearization(self, u, step)

    def adjoint_step(self, w: State, u: State, step: Step) -> State:
        """Return the transposed derivative times a stack of adjoint states; new."""
        return self.linearize(u, step).adjoint(w, slice(0, len(u), 1))

    def adjoint_gradient(self, w: State, u: State, step: Step) -> NDArray[Any]:
        """Return the gradient with respect to all parameters, summed over the stack."""
        if self._flat is None:
            return np.zeros(0, dtype=self.dtype)
        new = self.taped(_tensor(u), step)
        parts = _transposed(new, self.weights, _tensor(w))
        flat: NDArray[Any] = _torch().cat([part.reshape(-1) for part in parts]).numpy()
        return flat

    def taped(self, u: Tensor, step: Step) -> Tensor:
        """Return what `step` does, with autograd's graph behind it."""
        with _torch().enable_grad():
            return self._call(u, step)

    def _call(self, u: Tensor, step: Step) -> Tensor:
        """Return the module's result for a stack of states; raise if it is wrong."""
        if self.inputs is None:
            raise ValueError("set_inputs was not called: bind sequences before stepping")
        if u.dtype != self.torch_dtype:
            raise TypeError(f"states are {u.dtype}, the module's parameters {self.torch_dtype}")
        h = u.reshape(-1, *self.hidden)
        new = self.module(self._input(step), h, *self._lengths(h, step))
        name = type(self.module).__name__
        if not isinstance(new, _torch().Tensor):
            raise TypeError(f"{name} returned {type(new).__name__}, expected one tensor")
        if new.shape != h.shape:
            raise ValueError(
                f"{name} returned shape {tuple(new.shape)} for states of shape {tuple(h.shape)}, "
                "expected the same"
            )
        if new.dtype != h.dtype:
            raise TypeError(f"{name} returned {new.dtype} for states of {h.dtype}")
        return new.reshape(u.shape)

    def _input(self, step: Step) -> Tensor:
        """Return the input of each row, shape (n B, ...features)."""
        assert self.inputs is not None
        if np.max(step.last) > len(self.inputs):
            raise ValueError(
                f"sequences have {len(self.inputs)} elements, too few for step {np.max(step.last)}"
            )
        rows = _torch().as_tensor(np.atleast_1d((step.first + step.last) // 2 - 1))
        return self.inputs[rows].flatten(0, 1)

    def _lengths(self, h: Tensor, step: Step) -> tuple[Tensor, ...]:
        """Return dt for each row, where the module takes it."""
        if not self.takes_dt:
            return ()
        dt = _torch().as_tensor(np.atleast_1d(step.dt), dtype=h.dtype)
        repeated = dt.repeat_interleave(len(h) // len(dt))
        return (repeated.reshape(-1, *(1 for _ in self.hidden)),)


class TorchLinearization(Linearization):
    """The derivative of a stack of steps: graphs of autograd, each made once and used often.

    Parameters
    ----------
    cell : TorchCell
        The model.
    u : array, shape (n, B, ...hidden)
        States at which the steps start.
    step : Step
        Stack of n steps.
    """

    def __init__(self, cell: TorchCell, u: State, step: Step) -> None:
        super().__init__(cell, u, step)
        self.cell = cell
        self._graphs: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def adjoint(self, w: State, rows: slice) -> State:
        """Apply (dPhi/du)^T of the steps `rows` to a stack of adjoint states; a new array."""
        key = rows.indices(len(self.u))  # solvers ask for the same few slices in every cycle
        if key not in self._graphs:
            h = _tensor(self.u[rows]).detach().requires_grad_()
            self._graphs[key] = h, self.cell.taped(h, self.step.at(rows))
        h, new = self._graphs[key]
        (d_h,) = _transposed(new, [h], _tensor(w), retain_graph=True)
        return _like(w, d_h)


def _transposed(
    new: Tensor, of: list[Any], w: Tensor, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """Return the gradients of <w, new> with respect to tensors; zeros where there is none."""
    torch = _torch()
    if not new.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in of)
    gradients: tuple[Tensor, ...] = torch.autograd.grad(
        new, of, w, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )
    return gradients


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"from_torch needs torch, which cannot be imported ({error}): "
            'pip install "pint-mgrit[torch]"'
        ) from error
    return torch


def _hidden(module: torch.nn.Module, hidden: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of the state of one sequence."""
    name = type(module).__name__
    if hidden is None:
        hidden = getattr(module, "hidden_size", None)
    if hidden is None:
        raise ValueError(f"{name} has no hidden_size: give from_torch the width of its state")
    shape = hidden if isinstance(hidden, tuple) else (hidden,)
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"hidden must be a positive int or a tuple of them, got {hidden!r}")
    return shape


def _dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype that all parameters of the module have; torch's default without any."""
    torch = _torch()
    weights = list(module.parameters())
    places = {weight.device.type for weight in weights} - {"cpu"}
    if places:
        raise ValueError(f"parameters of the module must be on the CPU, got {sorted(places)}")
    dtypes = {weight.dtype for weight in weights} or {torch.get_default_dtype()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        given = ", ".join(sorted(map(str, dtypes)))
        raise TypeError(f"parameters of the module must be all float32 or float64, got {given}")
    return dtypes.pop()


def _joined(weights: list[Any]) -> Tensor | None:
    """Move parameters into one flat vector, and return it; None if there are none."""
    if not weights:
        return None
    flat: Tensor = _torch().cat([weight.detach().reshape(-1) for weight in weights])
    start = 0
    for weight in weights:
        stop = start + weight.numel()
        weight.data = flat[start:stop].view(weight.shape)
        start = stop
    return flat


def _tensor(u: State) -> Tensor:
    """Return an array as a tensor, on the same memory where torch can take it."""
    if array_api_compat.is_torch_array(u):
        return u
    array = np.asarray(u)
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    tensor: Tensor = _torch().from_numpy(array)
    return tensor


def _like(u: State, new: Tensor) -> State:
    """Return a tensor as an array of the library of `u`."""
    return new if array_api_compat.is_torch_array(u) else new.numpy()
