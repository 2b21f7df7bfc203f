"""File names of a checkpoint in Hugging Face's format, except weights.

Used by Hub downloads, ``convert``, ``serve`` and the browser. ``web/sources.js`` has the same
names; a test compares the two.
"""

from __future__ import annotations

CONFIG = "config.json"
WHOLE_TOKENIZER = "tokenizer.json"
VOCABULARIES = ("vocab.json", "vocabulary.json")  # Hugging Face's name first, then KerasHub's
MERGES = "merges.txt"

EXTRAS = (
    "generation_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""Optional files: stop tokens, added tokens and their matching rules."""

TOKENIZER_PARTS = (VOCABULARIES, (MERGES,))
"""Files required without ``tokenizer.json``: one of each group."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of a LoRA adapter, as PEFT writes them."""

BESIDE_WEIGHTS = (CONFIG, WHOLE_TOKENIZER, *VOCABULARIES, MERGES, *EXTRAS)
"""All files of a checkpoint that are read, except weights."""
