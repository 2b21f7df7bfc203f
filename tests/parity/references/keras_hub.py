"""KerasHub's GPT2CausalLM with the embedded model's weights: cache, texts, samplers, packing."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

os.environ["KERAS_BACKEND"] = "torch"

import keras
import keras_hub
import numpy as np

from tests.parity import cases


def values() -> dict[str, Any]:
    """What KerasHub computes for each case."""
    lm = keras_hub.models.GPT2CausalLM.from_preset(str(cases.MODEL))
    return {
        "version": keras_hub.__version__,
        "logits": cached_logits(lm),
        "score": scored(lm),
        "texts": texts(lm),
        "packed": packed(lm),
        "distributions": {name: distribution(config) for name, config in cases.SAMPLERS.items()},
        "preprocessor": preprocessed(lm.preprocessor),
    }


def cached_logits(lm: Any) -> dict[str, Any]:
    """Logits and hidden states from ``call_with_cache``: the prefill's last, then of each step."""
    ids = np.array(cases.IDS, "int32")
    backbone = lm.backbone
    shape = [len(ids), backbone.num_layers, 2, ids.shape[1], backbone.num_heads]
    cache = keras.ops.zeros([*shape, backbone.hidden_dim // backbone.num_heads])
    logits, hidden = [], []
    starts = [0, *range(cases.PREFILLED, ids.shape[1])]
    for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
        step, states, cache = lm.call_with_cache(ids[:, start:end], cache, start)
        logits.append(array(step)[:, -1])
        hidden.append(array(states)[:, -1])
    steps = np.stack(logits, 1)  # [B, steps, V]
    return {
        "some": steps[..., :: cases.EVERY],
        "argmax": steps.argmax(-1),
        "logsumexp": np.log(np.exp(steps.astype(np.float64)).sum(-1)),
        "hidden": np.stack(hidden, 1)[..., ::4],
    }


def scored(lm: Any) -> dict[str, Any]:
    """Logits and losses of ``score``, with a mask, and with a changed residual stream."""

    def halved(x: Any, index: int) -> Any:
        return x * 0.5 if index in (-1, 1) else x

    ids, targets = np.array(cases.IDS, "int32"), np.array(cases.TARGETS, "int32")
    loss = {"scoring_mode": "loss", "target_ids": targets}
    padded = np.array(cases.PADDED, "int32")
    return {
        "logits": array(lm.score(ids))[..., :: cases.EVERY],
        "loss": array(lm.score(ids, **loss)),
        "padded": array(lm.score(ids, padded, **loss)),
        "changed": array(lm.score(ids, layer_intercept_fn=halved, **loss)),
    }


def texts(lm: Any) -> dict[str, Any]:
    """Greedy texts: one by one, as a batch, without the prompt, with other stop tokens."""
    lm.compile(sampler="greedy")
    return {
        "single": [lm.generate(prompt, cases.LENGTH) for prompt in cases.PROMPTS],
        "batch": lm.generate(cases.PROMPTS, cases.LENGTH),
        "stripped": lm.generate(cases.PROMPTS, cases.LENGTH, strip_prompt=True),
        "no stop": lm.generate(cases.PROMPTS, cases.LENGTH, stop_token_ids=None),
    }


def packed(lm: Any) -> dict[str, Any]:
    """Greedy ids and masks of packed rows of different lengths, stopped by a common token."""
    lm.compile(sampler="greedy")
    inputs = lm.preprocessor.generate_preprocess(cases.PROMPTS, sequence_length=cases.LENGTH)
    free = generated(lm, inputs, None)
    length = int(arrays(inputs)[1][1].sum())
    stops = sorted({int(free["token_ids"][0][-5]), int(free["token_ids"][1][length])})
    return {"free": free, "stops": stops, "stopped": generated(lm, inputs, stops)}


def generated(lm: Any, inputs: Any, stops: list[int] | None) -> dict[str, Any]:
    preprocessor, lm.preprocessor = lm.preprocessor, None
    lm.compile(sampler="greedy")
    try:
        found = lm.generate(inputs, stop_token_ids=stops)
    finally:
        lm.preprocessor = preprocessor
    return {name: array(value).astype(int) for name, value in found.items()}


def arrays(inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    return array(inputs["token_ids"]), array(inputs["padding_mask"])


def distribution(config: dict[str, Any]) -> list[float]:
    """The probabilities that a sampler draws from, by token: what it hands to its random draw."""
    sampler = getattr(keras_hub.samplers, config["class_name"])(**config["config"])
    logits = keras.ops.convert_to_tensor([cases.LOGITS], "float32")
    probabilities = sampler.compute_probabilities(logits)
    seen: list[np.ndarray] = []
    tokens: list[int] = []
    # The draw is made once for each place: which token is it, and with what probability?
    for place in range(len(cases.LOGITS)):

        def categorical(drawn_from: Any, *_: Any, place: int = place, **__: Any) -> Any:
            weights = array(keras.ops.softmax(drawn_from))[0]
            seen.append(weights)
            return keras.ops.convert_to_tensor([[min(place, len(weights) - 1)]], "int32")

        with mock.patch("keras.random.categorical", categorical):
            tokens.append(int(array(sampler.get_next_token(probabilities))[0]))
    result = [0.0] * len(cases.LOGITS)
    if not seen:  # greedy search draws nothing
        result[tokens[0]] = 1.0
        return result
    for token, probability in zip(tokens, seen[0], strict=False):
        result[token] = float(probability)
    return result


def preprocessed(preprocessor: Any) -> dict[str, Any]:
    """Packed rows for training and for generation, and texts of packed rows."""
    preprocessor.sequence_length = cases.PACKED_LENGTH
    training = {}
    for start in (True, False):
        for end in (True, False):
            preprocessor.add_start_token, preprocessor.add_end_token = start, end
            x, y, weights = preprocessor(cases.TEXTS)
            ids, mask = arrays(x)
            training[f"{start} {end}"] = {
                "token_ids": ids,
                "padding_mask": mask.astype(int),
                "y": array(y),
                "weights": array(weights).astype(int),
            }
    preprocessor.add_start_token = preprocessor.add_end_token = True
    prompts = preprocessor.generate_preprocess(cases.SHORT_TEXTS)
    ids, mask = arrays(prompts)
    return {
        "training": training,
        "prompts": {"token_ids": ids, "padding_mask": mask.astype(int)},
        "texts": preprocessor.generate_postprocess({"token_ids": ids, "padding_mask": mask}),
    }


def array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))
