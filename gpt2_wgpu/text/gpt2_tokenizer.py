"""GPT-2's tokenizer: byte-pair encoding plus the end-of-text token."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text.byte_pair_tokenizer import BytePairTokenizer, MergesSource, VocabularySource
from gpt2_wgpu.text.keras_preset import directory_arguments
from gpt2_wgpu.text.special_tokens import token_list
from gpt2_wgpu.text.tokenizer_directory import END_OF_TEXT
from gpt2_wgpu.text.tokenizer_files import (
    checked_path,
    gpt2_merges,
    vocabulary_of_merges,
)
from gpt2_wgpu.text.tokenizer_saving import made_directory, write_tokenizer


class GPT2Tokenizer(BytePairTokenizer):
    """Byte-pair tokenizer with a start token and an end token.

    In GPT-2's own vocabulary both are ``<|endoftext|>``, its only special token. A special token
    in a text is encoded as plain text (here seven tokens) unless ``encode(...,
    allowed_special=...)`` allows it or ``unsplittable_tokens`` contains it; KerasHub and TF.js
    always recognise it, so that user input can end a prompt.

    Args:
        vocabulary: as in ``BytePairTokenizer``. Default, if merges are omitted, too: OpenAI's
            GPT-2 vocabulary, which is part of the package.
        merges: as in ``BytePairTokenizer``.
        start_token: the token at the start of a text; None for none.
        end_token: the token at the end of a text; None for none.
        special_tokens: as in ``BytePairTokenizer``; start and end token are always included.
        **kwargs: further arguments of ``BytePairTokenizer``.

    Raises:
        TokenizerError: only one of vocabulary and merges is given, the start or end token is not
            in the vocabulary, or as in ``BytePairTokenizer``.
    """

    def __init__(
        self,
        vocabulary: VocabularySource | None = None,
        merges: MergesSource | None = None,
        *,
        start_token: str | None = END_OF_TEXT,
        end_token: str | None = END_OF_TEXT,
        special_tokens: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        if vocabulary is None and merges is None:
            own_merges = gpt2_merges()
            vocabulary, merges = vocabulary_of_merges(own_merges, END_OF_TEXT), own_merges
        if vocabulary is None or merges is None:
            missing = "vocabulary" if vocabulary is None else "merges"
            raise TokenizerError(
                f"{missing} is missing: pass vocabulary and merges, or neither for GPT-2's own"
            )
        self.start_token = start_token
        self.end_token = end_token
        own = [token for token in (end_token, start_token) if token is not None]
        special = [*own, *token_list(special_tokens, "special_tokens")]
        super().__init__(vocabulary, merges, special_tokens=special, **kwargs)

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Load the tokenizer of a checkpoint directory in Hugging Face's or KerasHub's format.

        See `gpt2_wgpu.text.tokenizer_directory` for the files that are read.
        ``kwargs``: arguments that replace those of the files.

        Raises:
            TokenizerError: files are missing or malformed, or the tokenizer is not GPT-2's
                byte-level BPE; the message names the file and what is wrong.
        """
        return cls(**(directory_arguments(path) | kwargs))

    def save_to_preset(self, preset_dir: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files in Hugging Face's format into a directory.

        They are read back by :meth:`from_preset` and by transformers; a ``start_token`` of None
        becomes ``<|endoftext|>`` if the vocabulary has it.

        Raises:
            TokenizerError: the directory cannot be written.
        """
        directory = made_directory(Path(checked_path(preset_dir)))
        config, by_text = self.get_config(), self._vocabulary.by_text()
        vocabulary = {token: i for token, i in config["vocabulary"].items() if token in by_text}
        write_tokenizer(directory, vocabulary, self._merges.pairs, config, self._vocabulary.ids)

    save_pretrained = save_to_preset

    @property
    def end_token_id(self) -> int | None:
        """Id of the end token; None if there is none."""
        return None if self.end_token is None else self.token_to_id(self.end_token)

    @property
    def start_token_id(self) -> int | None:
        """Id of the start token; None if there is none."""
        return None if self.start_token is None else self.token_to_id(self.start_token)

    @property
    def special_token_ids(self) -> list[int]:
        """Ids of all special tokens; the pad id, 0, is an ordinary token and not included."""
        return [self.token_to_id(token) for token in self.special_tokens]

    def decode_shown(self, ids: Iterable[int]) -> str:
        """Decode one row, skipping special tokens and ids outside the vocabulary."""
        hidden = set(self.special_token_ids)
        return self.decode([i for i in ids if i not in hidden and self.has_id(i)])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON-serialisable values."""
        return {
            **super().get_config(),
            "start_token": self.start_token,
            "end_token": self.end_token,
        }
