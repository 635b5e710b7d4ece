"""Ready-made propagators."""
