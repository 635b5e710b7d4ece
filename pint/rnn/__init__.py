"""Recurrent networks: kernels, cells, and networks that are trained in parallel over time."""
