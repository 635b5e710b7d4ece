"""Convert videos to sequences of features: clips, frames, a network, and their file."""
