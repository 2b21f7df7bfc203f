"""Consistency of a tokenizer's ids with a model's embedding rows, for prompts and for sampling.

Embeddings may be padded beyond the tokenizer's ids, ids may have gaps, and an added token may have
no row.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2_wgpu.errors import ConfigError, InvalidArgumentError
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2Tokenizer

_MAX_MISMATCH = 0.1  # fraction of tokens without a row, or rows without a token


@dataclass(frozen=True)
class Candidates:
    """Ids that may be sampled: those below ``end`` that are not ``excluded``."""

    end: int
    excluded: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: GPT2Tokenizer, rows: int, stop_token_ids: Iterable[int]) -> Candidates:
        """Return the ids of ``rows`` that are tokens or stop tokens.

        Raises:
            InvalidArgumentError: there is none.
        """
        unused = sorted({*tokenizer.ids_without_text(rows)} - {*stop_token_ids})
        end = rows
        while unused and unused[-1] == end - 1:
            end = unused.pop()
        if not end:
            raise InvalidArgumentError(
                f"none of the tokenizer's {tokenizer.vocabulary_size()} tokens has a row in the "
                f"model, whose vocab_size is {rows}: they belong to different models"
            )
        return cls(end, tuple(unused))


def check_no_ids(prompts: Any) -> None:
    """Raise InvalidArgumentError if token ids are given to ``generate`` in place of texts."""
    plain = prompts.tolist() if hasattr(prompts, "tolist") else prompts
    first = plain
    while isinstance(first, list | tuple) and first:
        first = first[0]
    if first is not plain and hasattr(first, "__index__"):
        raise InvalidArgumentError(
            f"generate takes texts, not token ids {shown(plain)}: give them to lm.stream, or as a "
            "dict of token_ids and padding_mask, as a model with preprocessor=None takes them"
        )


def end_token_ids(tokenizer: GPT2Tokenizer, config: GPT2Config) -> list[int]:
    """Return the end tokens of configuration and tokenizer that have a row."""
    found = {*config.eos_token_ids, tokenizer.end_token_id}
    return sorted(i for i in found if i is not None and i < config.vocab_size)


def settle_start_token(tokenizer: GPT2Tokenizer, config: GPT2Config) -> None:
    """Replace a start token without a row by the configuration's, or by the end token."""
    special = {*tokenizer.special_token_ids}
    for token_id in (tokenizer.start_token_id, config.bos_token_id, tokenizer.end_token_id):
        if token_id is not None and token_id < config.vocab_size and token_id in special:
            tokenizer.start_token = tokenizer.id_to_token(token_id)
            return
    tokenizer.start_token = None


def check_vocabularies(tokenizer: GPT2Tokenizer, vocab_size: int) -> None:
    """Raise ConfigError if much of the tokenizer's vocabulary has no row in the model.

    Added tokens may have none, as prompts with them are rejected. Rows without a token are allowed
    (embeddings are padded to round sizes), but many cause a ``UserWarning``.
    """
    size = tokenizer.vocabulary_size()
    plain = tokenizer.plain_ids()
    lacking = sum(token_id >= vocab_size for token_id in plain)
    if lacking > _MAX_MISMATCH * len(plain):
        raise ConfigError(
            f"the tokenizer has {size} tokens, but the model's vocab_size is {vocab_size}: they "
            "belong to different models"
        )
    if size < (1 - _MAX_MISMATCH) * vocab_size:
        warnings.warn(
            f"the tokenizer has {size} tokens, the model a vocab_size of {vocab_size}: are they of "
            "the same model?",
            stacklevel=4,
        )


def check_rows(rows: Sequence[Sequence[int]], tokenizer: GPT2Tokenizer, vocab_size: int) -> None:
    """Raise InvalidArgumentError for a prompt with a token that has no row in the model."""
    for index, row in enumerate(rows):
        for token_id in row:
            if token_id >= vocab_size:
                token = shown(tokenizer.id_to_token(token_id))
                raise InvalidArgumentError(
                    f"prompt {index} holds the token {token}, id {token_id}, which has no row in "
                    f"this model: ids must be in [0, {vocab_size}); leave it out"
                )
