"""Checkpoints: sources, downloads, safetensors files, and tensor names."""
