"""The cell of own_cell_numpy as a torch module: autograd writes its adjoint.

python -m apps.own_cell_torch, or mpiexec -n 2 python -m apps.own_cell_torch; --help lists options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pint.rnn import from_torch
from pint.rnn.torch_cell import TorchCell

from .own_cell import main_of

try:
    import torch
except ImportError as error:
    raise ImportError('this example needs torch: pip install "pint-mgrit[torch]"') from error


class Leaky(torch.nn.Module):
    """dh/dt = s (n - h) by exponential Euler: h' = q h + (1 - q) n with q = exp(-s dt)."""

    def __init__(self, num_features: int, hidden: int) -> None:
        super().__init__()
        self.hidden_size = hidden
        self.of_input = torch.nn.Linear(num_features, 2 * hidden)
        self.of_state = torch.nn.Linear(hidden, 2 * hidden, bias=False)

    def forward(self, x: torch.Tensor, h: torch.Tensor, dt: torch.Tensor) -> torch.Tensor:
        a_s, a_n = (self.of_input(x) + self.of_state(h)).chunk(2, dim=-1)
        q = torch.exp(-torch.sigmoid(a_s) * dt)
        return q * h + (1 - q) * torch.tanh(a_n)


def make_cell(num_features: int, hidden: int, seed: int) -> TorchCell:
    """Return the module as a propagator, with equal parameters on every rank."""
    torch.manual_seed(seed)
    return from_torch(Leaky(num_features, hidden).double())


def zeros(shape: tuple[int, ...]) -> torch.Tensor:
    """Return the initial state, a tensor: then all states are tensors."""
    return torch.zeros(shape, dtype=torch.float64)


def main(argv: Sequence[str] | None = None) -> int:
    """Train by the command line; return the exit status."""
    return main_of("own_cell_torch", make_cell, argv, zeros)


if __name__ == "__main__":
    sys.exit(main())
