"""Training: optimizers, data sets, the trainer and its checkpoints."""
