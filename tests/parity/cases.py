"""Inputs that the references and this package are given alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "fairytales"
RECORDED = Path(__file__).parent / "recorded"

PROMPTS = ["Once upon a time", "The king had three sons,", '"Who is there?" asked the wolf. "', ""]
LENGTH = 40  # tokens of a generated text, prompt and start token included

# Two rows of ids: PREFILLED at once, the others one by one, with a KV cache.
IDS = [
    [4095, 2, 1077, 51, 904, 13, 3377, 250, 1999, 800, 64, 31, 7, 4000, 2048, 512],
    [4095, 390, 391, 11, 2777, 45, 99, 1234, 3, 3, 3, 840, 1501, 77, 20, 4094],
]
PREFILLED = 11
PADDED = [[1] * 16, [1] * 11 + [0] * 5]  # mask of IDS for `score`
TARGETS = [[*row[1:], 7] for row in IDS]
EVERY = 16  # logits are recorded of each EVERY-th id of the vocabulary

# Logits of 12 tokens with a clear order, and samplers by their KerasHub configurations.
LOGITS = [2.0, -1.0, 0.5, 3.25, 1.25, -2.5, 0.0, 2.75, -0.25, 1.75, -4.0, 0.9]
SAMPLERS: dict[str, dict[str, Any]] = {
    "greedy": {"class_name": "GreedySampler", "config": {}},
    "random": {"class_name": "RandomSampler", "config": {"temperature": 1.0}},
    "random, hot": {"class_name": "RandomSampler", "config": {"temperature": 1.7}},
    "top_k 5": {"class_name": "TopKSampler", "config": {"k": 5}},
    "top_k 3, cold": {"class_name": "TopKSampler", "config": {"k": 3, "temperature": 0.6}},
    "top_p 0.1": {"class_name": "TopPSampler", "config": {"p": 0.1}},
    "top_p 0.8": {"class_name": "TopPSampler", "config": {"p": 0.8}},
    "top_p 0.9 of 4": {"class_name": "TopPSampler", "config": {"p": 0.9, "k": 4}},
}
PENALTIES = [1.3, 2.0]  # repetition penalties of greedy search

LONG = "There was once a king who had a daughter. " * 3
TEXTS = ["Once upon a time", "", LONG, "Ünïcode  \n 日本"]
PACKED_LENGTH = 12
# Where KerasHub's pattern splits words as GPT-2's does: not at two line ends before a word.
TOKENIZED = [
    "",
    " ",
    "The king's daughter, and I'll 12345 go!!",
    "  two  spaces   and\ttabs\n",
    "ends\n\n",
    "\xa0 \xa0 s",
    "Ünïcode 日本 🙂 é",
    "WOLF wolf's WE'RE",
]
SHORT_TEXTS = ["Once upon a time", "", "日本"]

# A context and a continuation, and a text whose every token is scored.
CONTINUATIONS = [("Once upon a time", " there was a king"), ("The wolf", " said: good day")]
SCORED = "Once upon a time there was a king who had three sons. The youngest was called Hans."

# Rows of a Ray dataset; one in eleven has no prompt.
OPENINGS = ["Once upon a time", "The king", "A wolf", "In the forest there", ""]
ROWS = [
    {"id": i, "prompt": f"{OPENINGS[i % 5]} {i}" if i % 11 else None, "seed": i // 2}
    for i in range(23)
]
BATCH = 5


def sampled(values: Any) -> list[float]:
    """Six of the elements of an array; 0 for a hidden attention score."""
    flat = values.reshape(-1)
    places = [place * (len(flat) - 1) // 5 for place in range(6)]
    return [float(flat[place]) if flat[place] > -1e30 else 0.0 for place in places]


def recorded(name: str) -> dict[str, Any]:
    """The values of the reference ``name``."""
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
    return found
