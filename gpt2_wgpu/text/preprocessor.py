"""``GPT2Preprocessor``: texts → packed ids."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from gpt2_wgpu.errors import InvalidArgumentError
from gpt2_wgpu.shown import odd_item, shown
from gpt2_wgpu.text.gpt2_tokenizer import GPT2Tokenizer
from gpt2_wgpu.text.keras_preset import context_length
from gpt2_wgpu.text.preprocessing_layer import PreprocessingLayer, inner_config
from gpt2_wgpu.text.special_tokens import token_list
from gpt2_wgpu.text.start_end_packer import StartEndPacker, checked_length
from gpt2_wgpu.text.tokenizer_directory import find_directory
from gpt2_wgpu.text.tokenizer_files import checked_path
from gpt2_wgpu.text.tokenizer_saving import preprocessor_settings, write_preprocessor
from gpt2_wgpu.validation import made_from

AllowedSpecial = Collection[str] | Literal["all"]
"""Special tokens to recognise in a text, or "all"."""


class GPT2Preprocessor(PreprocessingLayer):
    """KerasHub's ``GPT2Preprocessor``: tokenization and packing; base of the one for generation.

    Arrays are NumPy arrays (int32, bool), or nested lists where NumPy is not installed; one str
    gives [T], a list of str [B, T].

    Args:
        tokenizer: a ``GPT2Tokenizer``; its own ``sequence_length`` is ignored.
        sequence_length: length of the packed rows.
        add_start_token: whether to prepend the tokenizer's start token, if it has one
            (``<|endoftext|>`` in GPT-2).
        add_end_token: whether to append the end token to training texts; prompts never get one.
        allowed_special: special tokens to recognise in a text, or "all" (tiktoken's convention).
            All others are plain text.
        name: a name, for ``get_config``.
        **kwargs: other arguments of a Keras layer (``dtype``, ``trainable``), without effect.

    Raises:
        InvalidArgumentError: ``sequence_length`` is not a positive integer, or
            ``allowed_special`` is neither "all" nor a list of tokens of the vocabulary.
    """

    def __init__(
        self,
        tokenizer: GPT2Tokenizer,
        sequence_length: int = 1024,
        add_start_token: bool = True,
        add_end_token: bool = True,
        allowed_special: AllowedSpecial = (),
        *,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.take_layer_arguments(name, kwargs)
        if not isinstance(tokenizer, GPT2Tokenizer):
            raise InvalidArgumentError(
                f"tokenizer must be a GPT2Tokenizer, not {shown(tokenizer)}: make one with "
                "GPT2Tokenizer.from_directory(...)"
            )
        self.tokenizer = tokenizer
        self.allowed_special = allowed_special
        self.add_start_token = add_start_token
        self.add_end_token = add_end_token
        self.sequence_length = sequence_length

    @property
    def sequence_length(self) -> int:
        """Default length of packed rows."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int) -> None:
        self._sequence_length = checked_length(value)

    @property
    def allowed_special(self) -> AllowedSpecial:
        """Default special tokens to recognise in a text."""
        return self._allowed_special

    @allowed_special.setter
    def allowed_special(self, value: AllowedSpecial) -> None:
        self.tokenizer.encode("", value)  # raises for an unknown token
        self._allowed_special = (
            "all" if isinstance(value, str) else tuple(token_list(value, "allowed_special"))
        )

    @property
    def packer(self) -> StartEndPacker:
        """A new packer of training rows with the current settings."""
        return StartEndPacker(
            sequence_length=self.sequence_length,
            start_value=self.tokenizer.start_token_id,
            end_value=self.tokenizer.end_token_id,
            pad_value=self.tokenizer.pad_token_id,
            return_padding_mask=True,
        )

    def __call__(
        self,
        x: str | Sequence[str],
        y: Any = None,
        sample_weight: Any = None,
        sequence_length: int | None = None,
    ) -> Any:
        """Same as ``call``."""
        return self.call(x, y, sample_weight, sequence_length)

    def call(
        self,
        x: str | Sequence[str],
        y: Any = None,
        sample_weight: Any = None,
        sequence_length: int | None = None,
    ) -> Any:
        """Encode and pack texts.

        Args:
            x: one text or several; longer ones are truncated.
            y: labels, returned unchanged.
            sample_weight: weights, returned unchanged.
            sequence_length: T; default: the object's own.

        Returns:
            {"token_ids": int32, "padding_mask": bool}, each [T] or [B, T]; with ``y``:
            (packed ids, y), with ``sample_weight``, too: (packed ids, y, sample_weight).

        Raises:
            InvalidArgumentError: ``x`` is neither a text nor a non-empty list of texts, or
                ``sequence_length`` is not a positive integer.
        """
        ids, mask = self.pack_texts(x, self.checked_or_own(sequence_length))
        packed = {"token_ids": ids, "padding_mask": mask}
        if sample_weight is not None:
            return packed, y, sample_weight
        return packed if y is None else (packed, y)

    def pack_texts(self, x: str | Sequence[str], length: int) -> tuple[Any, Any]:
        """Return ids and mask of texts, [length] or [B, length], with start and end tokens."""
        rows = [self.tokenizer.encode(text, self.allowed_special) for text in texts_of(x)]
        ids, mask = self.packer(
            batch_of(rows, x),
            sequence_length=length,
            add_start_value=self.add_start_token,
            add_end_value=self.add_end_token,
        )
        return ids, mask

    def checked_or_own(self, sequence_length: int | None) -> int:
        """Return a sequence length, by default the object's own."""
        return self.sequence_length if sequence_length is None else checked_length(sequence_length)

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Create a preprocessor with the tokenizer of a preset, directory or hub id.

        Settings are those of ``preprocessor.json``, if the directory has one of this class; else
        ``sequence_length`` is the model's context (KerasHub: always 1024).
        ``kwargs``: arguments of the class, which replace these.

        Raises:
            PresetError: no model of that name exists or can be fetched.
            TokenizerError: as in ``GPT2Tokenizer.from_directory``.
        """
        directory = find_directory(preset)
        arguments: dict[str, Any] = {}
        if (context := context_length(directory)) is not None:
            arguments["sequence_length"] = context
        if "tokenizer" not in kwargs:
            arguments["tokenizer"] = GPT2Tokenizer.from_directory(directory)
        return cls(**(arguments | preprocessor_settings(directory, cls.__name__) | kwargs))

    def save_to_preset(self, preset_dir: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files and ``preprocessor.json`` into a directory.

        Raises:
            TokenizerError: the directory cannot be written.
        """
        self.tokenizer.save_to_preset(preset_dir)
        write_preprocessor(Path(checked_path(preset_dir)), type(self).__name__, self.get_config())

    save_pretrained = save_to_preset

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON-serialisable values, with nested tokenizer."""
        return {
            "name": self.name,
            "tokenizer": self.tokenizer.get_config(),
            "sequence_length": self.sequence_length,
            "add_start_token": self.add_start_token,
            "add_end_token": self.add_end_token,
            "allowed_special": (
                self.allowed_special
                if isinstance(self.allowed_special, str)
                else list(self.allowed_special)
            ),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build a preprocessor from the result of ``get_config``, KerasHub's included."""
        if isinstance(config, Mapping) and "tokenizer" in config:
            given = config["tokenizer"]
            if isinstance(given, Mapping):
                given = GPT2Tokenizer.from_config(inner_config(given))
            config = {**config, "tokenizer": given}
        return made_from(cls, config)


def texts_of(x: Any) -> list[str]:
    """Return one text or several as a list; InvalidArgumentError for anything else."""
    texts = [x] if isinstance(x, str) else x.tolist() if hasattr(x, "tolist") else x
    if not isinstance(texts, (list, tuple)):
        raise InvalidArgumentError(f"expected a str or a list of str, not {shown(x)}")
    if odd := odd_item(texts, lambda text: isinstance(text, str)):
        raise InvalidArgumentError(f"expected a str or a list of str, but {odd}")
    return list(texts)


def batch_of(rows: list[list[int]], x: object) -> list[Any]:
    """Return the packer's input: a single row if ``x`` is a str, else all rows."""
    if not rows:
        raise InvalidArgumentError("expected at least one text, got an empty list")
    return rows[0] if isinstance(x, str) else rows
