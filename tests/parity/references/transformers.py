"""transformers' GPT2LMHeadModel with the embedded model's weights: texts, processors, logits."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import (
    AutoTokenizer,
    GPT2LMHeadModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.parity import cases


@torch.inference_mode()
def values() -> dict[str, Any]:
    """What transformers computes for each case."""
    model = GPT2LMHeadModel.from_pretrained(cases.MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(cases.MODEL)
    prompts = [tokenizer.bos_token + prompt for prompt in cases.PROMPTS]
    ids = [tokenizer(prompt).input_ids for prompt in prompts]
    logits = model(torch.tensor(cases.IDS)).logits
    return {
        "version": transformers.__version__,
        "prompts": ids,
        "greedy": [generate(model, row) for row in ids],
        "penalized": {
            str(penalty): [generate(model, row, repetition_penalty=penalty) for row in ids]
            for penalty in cases.PENALTIES
        },
        "logits": logits[..., :: cases.EVERY].numpy(),
        "distributions": {
            name: distribution(config)
            for name, config in cases.SAMPLERS.items()
            if not {"p", "k"} <= config["config"].keys()
        },
    }


def generate(model: Any, ids: list[int], **options: Any) -> list[int]:
    """The ids of a greedy text, prompt included, up to the end token."""
    prompt = torch.tensor([ids])
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_length=cases.LENGTH,
        do_sample=False,
        pad_token_id=model.config.eos_token_id,
        **options,
    )
    return [int(token) for token in found[0]]


def distribution(sampler: dict[str, Any]) -> list[float]:
    """The probabilities that remain after the warpers.

    Not of top-k with top-p: transformers renormalizes between the two, KerasHub does not.
    """
    options = sampler["config"]
    scores = torch.tensor([cases.LOGITS])
    if sampler["class_name"] == "GreedySampler":
        return [float(token == scores.argmax()) for token in range(scores.shape[1])]
    warpers: list[Any] = []
    if options.get("temperature", 1.0) != 1.0:
        warpers.append(TemperatureLogitsWarper(options["temperature"]))
    if "k" in options:
        warpers.append(TopKLogitsWarper(options["k"]))
    if "p" in options:
        warpers.append(TopPLogitsWarper(options["p"]))
    for warper in warpers:
        scores = warper(None, scores)
    return [float(value) for value in torch.softmax(scores, -1)[0]]
