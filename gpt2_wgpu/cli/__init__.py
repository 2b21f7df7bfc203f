"""The command line: `gpt2-wgpu generate`, `gpt2-wgpu info` and `gpt2-wgpu bench`.

Text goes to stdout and everything else to stderr. Nothing heavy is imported before the arguments
have been checked, so that help and usage errors come at once.
"""
