"""KerasHub's packer, preprocessor and tokenizer over random inputs."""

from __future__ import annotations

import os
import random
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras_hub

from tests.parity import cases

CASES = 60


def values() -> dict[str, Any]:
    """What KerasHub makes of each case."""
    source = random.Random(11)
    tokenizer = keras_hub.models.GPT2Tokenizer.from_preset(str(cases.MODEL))
    return {
        "version": keras_hub.__version__,
        "packed": [packed(source) for _ in range(CASES)],
        "preprocessed": preprocessed(tokenizer),
        "ids": {text: tokenizer(text) for text in cases.TOKENIZED},
    }


def packed(source: random.Random) -> dict[str, Any]:
    """One packer's arguments, those of its call, and the rows and mask that it returns."""

    def special() -> int | list[int] | None:
        return source.choice([None, source.randrange(50), [source.randrange(50) for _ in range(2)]])

    arguments = {
        "sequence_length": source.randrange(5, 12),  # room for both: see the documented difference
        "start_value": special(),
        "end_value": special(),
        "pad_value": source.choice([None, source.randrange(50)]),
        "return_padding_mask": True,
        "padding_side": source.choice(["left", "right"]),
    }
    call = {
        "sequence_length": source.choice([None, source.randrange(5, 12)]),
        "add_start_value": source.random() < 0.7,
        "add_end_value": source.random() < 0.7,
    }
    rows = [
        [source.randrange(50) for _ in range(source.randrange(1, 14))]
        for _ in range(source.randrange(1, 4))
    ]
    inputs = rows[0] if source.random() < 0.3 else rows
    ids, mask = keras_hub.layers.StartEndPacker(**arguments)(inputs, **call)
    return {"arguments": arguments, "call": call, "inputs": inputs, "ids": ids, "mask": mask}


def preprocessed(tokenizer: Any) -> dict[str, Any]:
    """Packed texts of GPT2Preprocessor, with and without start and end tokens."""
    found = {}
    for start in (True, False):
        for end in (True, False):
            preprocessor = keras_hub.models.GPT2Preprocessor(
                tokenizer, cases.PACKED_LENGTH, add_start_token=start, add_end_token=end
            )
            found[f"{start} {end}"] = preprocessor(cases.TEXTS)
    return found
