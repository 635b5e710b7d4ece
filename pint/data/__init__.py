"""Data sets: generated ones, and readers of public ones."""
