"""Recurrent networks: kernels, cells, and networks that are trained in parallel over time."""

from pint.rnn.torch_cell import from_torch

__all__ = ["from_torch"]
