"""The only list of a checkpoint's files in Hugging Face's format, weights aside.

The Hub's download, ``convert``, ``serve`` and the browser read these; ``web/sources.js`` holds the
same names, which a test compares.
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
"""Optional files: tokens that end a text, added tokens, and how they are matched."""

TOKENIZER_PARTS = (VOCABULARIES, (MERGES,))
"""What is needed where there is no ``tokenizer.json``: one file of each group."""

BESIDE_WEIGHTS = (CONFIG, WHOLE_TOKENIZER, *VOCABULARIES, MERGES, *EXTRAS)
"""All files that are read of a checkpoint besides its weights."""
