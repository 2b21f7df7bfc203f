"""A preset directory that KerasHub's save_to_preset writes, with what KerasHub computes with it.

Run as a program, ``python -m tests.parity.references.keras_preset DIRECTORY``: TensorFlow, which
KerasHub imports, cannot be in one process with Mesa's software drivers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import keras_hub
import numpy as np

from tests.parity import cases


def main(directory: Path) -> None:
    """Write the preset, and ``expected.json`` with logits and a greedy text."""
    keras.utils.set_random_seed(3)
    # KerasHub reads the embedded model, for its tokenizer; the small backbone's weights are random.
    tokenizer = keras_hub.models.GPT2Tokenizer.from_preset(str(cases.MODEL))
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=24)
    size = tokenizer.vocabulary_size()
    backbone = keras_hub.models.GPT2Backbone(size, 2, 3, 24, 40, max_sequence_length=32)
    for weight in backbone.weights:  # Keras' own deviation, 0.02, repeats one token
        weight.assign(np.random.default_rng(5).normal(0, 0.3, weight.shape))
    lm = keras_hub.models.GPT2CausalLM(backbone, preprocessor)
    lm.save_to_preset(str(directory))
    ids = np.array([[1, 7, 300, 12]])
    logits = lm({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    lm.compile(sampler="greedy")
    expected = {
        "ids": ids.tolist(),
        "logits": keras.ops.convert_to_numpy(logits).tolist(),
        "text": lm.generate("The king", max_length=12),
    }
    (directory / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
