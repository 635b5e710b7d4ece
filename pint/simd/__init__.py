"""Kernels in explicit vectors of the processor; independent of any model."""
