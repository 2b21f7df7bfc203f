"""Files of a tokenizer in Hugging Face's format, and settings of a preprocessor beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_wgpu.checkpoint_files import MERGES, VOCABULARIES
from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text.keras_preset import keras_config
from gpt2_wgpu.text.special_tokens import RULES
from gpt2_wgpu.text.tokenizer_files import write_whole

PREPROCESSOR = "preprocessor.json"  # KerasHub's name
TOKENIZER_FILES = (VOCABULARIES[0], MERGES, "tokenizer_config.json")
#: Arguments of a preprocessor that its file holds.
_SETTINGS = ("sequence_length", "add_start_token", "add_end_token", "allowed_special")


def made_directory(path: Path) -> Path:
    """Return a directory, created if it is missing; TokenizerError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be created: {error.strerror}") from None
    return path


def write_tokenizer(
    directory: Path,
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    config: Mapping[str, Any],
    ids: Mapping[str, int],
) -> None:
    """Write ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.

    Args:
        directory: an existing directory.
        vocabulary: token → id, without added tokens.
        merges: pairs in order of precedence.
        config: ``GPT2Tokenizer.get_config()``.
        ids: token → id of all tokens.
    """
    special = config["special_tokens"]
    own = {*special, *config["unsplittable_tokens"], *config["added_tokens"]}
    always = config["add_prefix_space"] == "always"  # only the slow class has this
    values = {
        "tokenizer_class": "GPT2Tokenizer" if always else "GPT2TokenizerFast",
        "add_prefix_space": bool(config["add_prefix_space"]),
        "bos_token": config["start_token"],
        "eos_token": config["end_token"],
        "added_tokens_decoder": {
            str(ids[token]): {
                "content": token,
                "special": token in special,
                "normalized": False,
                **{rule: rule in config["token_rules"].get(token, ()) for rule in RULES},
            }
            for token in sorted(own, key=lambda token: ids[token])
        },
    }
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    write_whole(directory / VOCABULARIES[0], json.dumps(vocabulary, ensure_ascii=False))
    write_whole(directory / MERGES, "\n".join(lines) + "\n")
    write_whole(directory / "tokenizer_config.json", json.dumps(values, indent=2))


def write_preprocessor(directory: Path, class_name: str, config: Mapping[str, Any]) -> None:
    """Write ``preprocessor.json``, in the form of KerasHub's."""
    settings = {name: config[name] for name in _SETTINGS}
    values = {"class_name": class_name, "config": settings}
    write_whole(directory / PREPROCESSOR, json.dumps(values, indent=2))


def preprocessor_settings(directory: Path, class_name: str) -> dict[str, Any]:
    """Return the arguments in ``preprocessor.json``; empty if it is missing, or another class's.

    Raises:
        TokenizerError: the file is malformed.
    """
    path = directory / PREPROCESSOR
    if not path.is_file():
        return {}
    config = keras_config(path, class_name, others=True)
    return {name: config[name] for name in _SETTINGS if name in config}
