"""MGRIT: multigrid reduction in time."""
