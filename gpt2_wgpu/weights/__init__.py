"""Checkpoints: where they come from, what is in them, and how their tensors are named."""
