"""Byte-level BPE, trained with Hugging Face `tokenizers` and saved in GPT-2's format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from data import END_OF_TEXT


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a tokenizer on the training part; <|endoftext|> has the last id, as in GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Paragraph by paragraph, which bounds the trainer's memory.
    tokenizer.train_from_iterator((p for t in texts for p in t.splitlines(True)), trainer)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
    assert end_of_text_id(tokenizer) == tokenizer.get_vocab_size() - 1
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """Id of <|endoftext|>."""
    found = tokenizer.token_to_id(END_OF_TEXT)
    if found is None:
        raise SystemExit(f"the tokenizer has no {END_OF_TEXT}")
    return found


def save_gpt2_files(tokenizer: Tokenizer, directory: Path, context: int) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json."""
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    vocabulary[END_OF_TEXT] = end_of_text_id(tokenizer)
    text = json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":"))
    (directory / "vocab.json").write_text(text + "\n", encoding="utf-8")
    pairs = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    text = "\n".join(["#version: 0.2", *pairs])
    (directory / "merges.txt").write_text(text + "\n", encoding="utf-8")
    settings = {
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "model_max_length": context,
        "tokenizer_class": "GPT2Tokenizer",
    }
    text = json.dumps(settings, indent=2)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
