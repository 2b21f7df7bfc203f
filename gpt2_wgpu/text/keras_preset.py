"""Tokenizer of a preset directory that KerasHub's ``save_to_preset`` wrote."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpt2_wgpu.checkpoint_files import CONFIG, MERGES, WHOLE_TOKENIZER
from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text.tokenizer_directory import END_OF_TEXT, read_directory
from gpt2_wgpu.text.tokenizer_files import checked_path, read_json

_ASSETS = Path("assets", "tokenizer")
# Arguments in the config of KerasHub's tokenizer, and those that its files replace.
_ARGUMENTS = {
    "name", "trainable", "dtype", "config_file", "sequence_length", "add_prefix_space",
    "unsplittable_tokens", "vocabulary", "merges",
}  # fmt: skip


def is_keras_preset(directory: Path) -> bool:
    """Return whether a directory holds a tokenizer in KerasHub's format."""
    return (directory / _ASSETS / MERGES).is_file()


def directory_arguments(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arguments of ``GPT2Tokenizer`` from a directory in either format.

    Raises:
        TokenizerError: files are missing or malformed, or the tokenizer is not GPT-2's.
    """
    directory = Path(checked_path(path))
    if is_keras_preset(directory):
        return tokenizer_arguments(directory)
    found = read_directory(directory)
    return {each.name: getattr(found, each.name) for each in fields(found)}


def tokenizer_arguments(directory: Path) -> dict[str, Any]:
    """Return the arguments of ``GPT2Tokenizer`` from ``tokenizer.json`` and ``assets/tokenizer``.

    Start and end token are left out of ``unsplittable_tokens``: in a text they are plain text
    unless they are allowed, as for every other checkpoint.

    Raises:
        TokenizerError: a file is missing or malformed, or the tokenizer is another model's.
    """
    path = directory / WHOLE_TOKENIZER
    arguments = keras_config(path, "GPT2Tokenizer")
    if unknown := sorted(arguments.keys() - _ARGUMENTS):
        raise TokenizerError(
            f"{path}: KerasHub's GPT2Tokenizer has no argument {shown(unknown[0])}"
        )
    unsplittable = arguments.get("unsplittable_tokens") or []
    if not isinstance(unsplittable, list):
        raise TokenizerError(
            f"{path}: unsplittable_tokens must be a list, not {shown(unsplittable)}"
        )
    return {
        **arguments,
        "unsplittable_tokens": [token for token in unsplittable if token != END_OF_TEXT],
        "vocabulary": directory / _ASSETS / "vocabulary.json",
        "merges": directory / _ASSETS / MERGES,
    }


def context_length(directory: Path) -> int | None:
    """Return the number of positions in ``config.json``, of either format; None without one."""
    if not (directory / CONFIG).is_file():
        return None
    values = read_json(directory / CONFIG)
    if not isinstance(values, dict):
        return None
    inner = values.get("config")
    context = inner.get("max_sequence_length") if isinstance(inner, dict) else None
    context = values.get("n_positions", values.get("n_ctx")) if context is None else context
    return context if type(context) is int and context > 0 else None


def keras_config(path: Path, class_name: str, *, others: bool = False) -> dict[str, Any]:
    """Return the config of a serialised Keras object; with ``others``, empty for another class.

    Raises:
        TokenizerError: the file is malformed, or the object is of another class.
    """
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
        raise TokenizerError(f"{path}: this is not a serialised Keras object")
    if values.get("class_name") != class_name:
        if others:
            return {}
        raise TokenizerError(
            f"{path} describes a {shown(values.get('class_name'))}; only {class_name} is supported"
        )
    return dict(values["config"])
