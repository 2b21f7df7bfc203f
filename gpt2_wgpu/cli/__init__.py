"""The command line: `gpt2-wgpu generate`, `convert`, `serve`, `info` and `bench`.

Text goes to stdout and everything else to stderr. Nothing heavy is imported before the arguments
have been checked, so that help and usage errors come at once.
"""
