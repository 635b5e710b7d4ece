"""Videos as sequences of features: clips, frames, a convolutional network, and their file."""
