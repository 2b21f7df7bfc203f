"""Measurement of a real GPU in eight minutes: correctness first, then speed, then a verdict."""
