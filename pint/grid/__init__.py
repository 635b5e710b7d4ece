"""The time grid, its levels, and which rank owns which points."""
