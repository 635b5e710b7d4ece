"""Ranks and threads: messages, agreement on errors, exact sums."""
