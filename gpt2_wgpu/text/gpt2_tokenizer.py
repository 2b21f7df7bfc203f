"""GPT-2's tokenizer: byte-pair encoding plus the end-of-text token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from gpt2_wgpu.errors import TokenizerError
from gpt2_wgpu.text.byte_pair_tokenizer import (
    BytePairTokenizer,
    MergesSource,
    VocabularySource,
)
from gpt2_wgpu.text.tokenizer_files import (
    StoredVocabulary,
    gpt2_merges,
    read_json,
    read_merges,
    read_vocabulary,
    vocabulary_of_merges,
)
from gpt2_wgpu.text.tokenizer_json import TokenizerDescription, read_tokenizer_json

END_OF_TEXT = "<|endoftext|>"

# Hugging Face's name first, then KerasHub's.
VOCABULARY_FILES = ("vocab.json", "vocabulary.json")


class GPT2Tokenizer(BytePairTokenizer):
    """Byte-pair encoding whose vocabulary holds ``<|endoftext|>``, GPT-2's one special token.

    It ends a text and also starts one. Spelled out in a text it is plain text (seven tokens)
    unless ``encode(..., allowed_special=...)`` allows it or ``unsplittable_tokens`` names it;
    KerasHub and TF.js always take it as the token, so that user input can end a prompt.

    Args:
        vocabulary: as in ``BytePairTokenizer``; without vocabulary and merges they are those of
            OpenAI's GPT-2, which ship with the package.
        merges: as in ``BytePairTokenizer``.
        **kwargs: further arguments of ``BytePairTokenizer``.

    Raises:
        TokenizerError: only one of vocabulary and merges is given, ``<|endoftext|>`` is missing,
            or as in ``BytePairTokenizer``.
    """

    end_token = END_OF_TEXT
    start_token = END_OF_TEXT

    def __init__(
        self,
        vocabulary: VocabularySource | None = None,
        merges: MergesSource | None = None,
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
        kwargs["special_tokens"] = [END_OF_TEXT, *kwargs.get("special_tokens", ())]
        super().__init__(vocabulary, merges, **kwargs)

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Self:
        """Read the tokenizer of a checkpoint directory in Hugging Face's format.

        ``tokenizer.json`` is read where there is one, as it alone says everything; else
        ``vocab.json`` (or KerasHub's ``vocabulary.json``) and ``merges.txt``, with
        ``added_tokens.json`` and the ``add_prefix_space`` of ``tokenizer_config.json`` if present.

        Raises:
            TokenizerError: files are missing or malformed, or the tokenizer is not GPT-2's
                byte-level BPE; the message names the file and what is wrong.
        """
        directory = Path(path)
        if (directory / "tokenizer.json").is_file():
            found = read_tokenizer_json(directory / "tokenizer.json")
        else:
            found = _read_vocabulary_and_merges(directory)
        return cls(
            found.vocabulary,
            found.merges,
            add_prefix_space=found.add_prefix_space,
            unsplittable_tokens=found.unsplittable_tokens,
            special_tokens=found.special_tokens,
        )

    @property
    def end_token_id(self) -> int:
        """The id of ``<|endoftext|>``."""
        return self.token_to_id(self.end_token)

    @property
    def start_token_id(self) -> int:
        """The id of ``<|endoftext|>``, which also starts a text."""
        return self.token_to_id(self.start_token)

    @property
    def special_token_ids(self) -> list[int]:
        """The ids of all special tokens; id 0, the pad id, is an ordinary token and not in it."""
        return [self.token_to_id(token) for token in self.special_tokens]


def _read_vocabulary_and_merges(directory: Path) -> TokenizerDescription:
    vocabulary_path = next(
        (directory / name for name in VOCABULARY_FILES if (directory / name).is_file()), None
    )
    if vocabulary_path is None or not (directory / "merges.txt").is_file():
        raise TokenizerError(
            f"{directory} holds no tokenizer: expected tokenizer.json, or vocab.json with "
            "merges.txt"
        )
    added = _read_optional(directory / "added_tokens.json")
    where = f"{vocabulary_path} with added_tokens.json" if added else str(vocabulary_path)
    return TokenizerDescription(
        vocabulary=StoredVocabulary({**read_vocabulary(vocabulary_path), **added}, where),
        merges=read_merges(directory / "merges.txt"),
        add_prefix_space=_read_optional(directory / "tokenizer_config.json").get(
            "add_prefix_space", False
        ),
        special_tokens=tuple(added),
    )


def _read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, an empty one where there is no such file."""
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content
