"""Files that KerasHub writes, with what it computes with them; and files that it reads.

``python -m tests.parity.references.keras_preset DIRECTORY`` writes a preset, the same model as
``model.keras`` and ``backbone.keras``, and ``expected.json``. With ``--read`` it loads both files
and writes ``read.json`` instead. It is a program: TensorFlow, which KerasHub imports, cannot be in
one process with Mesa's software drivers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

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
    lm.save(str(directory / "model.keras"))
    backbone.save(str(directory / "backbone.keras"))
    (directory / "expected.json").write_text(json.dumps(results(lm, backbone)))


def read(directory: Path) -> None:
    """Load both files, and write ``read.json`` with the same values."""
    lm = keras.models.load_model(str(directory / "model.keras"))
    backbone = keras.models.load_model(str(directory / "backbone.keras"))
    names = [lm.name, lm.backbone.name, type(lm).__name__, type(backbone).__name__]
    (directory / "read.json").write_text(json.dumps(results(lm, backbone) | {"names": names}))


def results(lm: Any, backbone: Any) -> dict[str, Any]:
    """Logits, hidden states and a greedy text."""
    ids = np.array([[1, 7, 300, 12]])
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    lm.compile(sampler="greedy")
    return {
        "ids": ids.tolist(),
        "logits": keras.ops.convert_to_numpy(lm(inputs)).tolist(),
        "hidden": keras.ops.convert_to_numpy(backbone(inputs)).tolist(),
        "text": lm.generate("The king", max_length=12),
    }


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        read(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
