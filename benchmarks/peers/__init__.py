"""Comparison of gpt2-wgpu with alternative engines, on the same weights, in one run."""
