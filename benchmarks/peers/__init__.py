"""gpt2-wgpu beside the engines that users would pick instead, on the same weights, in one run."""
