"""What GPT-2 is: configuration, presets, backbone and language model."""
