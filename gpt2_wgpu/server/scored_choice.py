"""Choices of a stream with log-probabilities, piece by piece."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.server.choice_tokens import Logprobs, TokenOffsets, logprobs_object
from gpt2_wgpu.server.completion_rows import CompletionRow
from gpt2_wgpu.text import GPT2Tokenizer

Echoed = tuple[list[int], Logprobs]


class ScoredChoice:
    """Text and log-probabilities of a row as it grows.

    A token is sent when the text before it is: not while it may belong to a stop text.

    Args:
        tokenizer: tokenizer of the model.
        echoed: ids of the prompt that the text begins with, and their log-probabilities.
        row: the row.
    """

    def __init__(self, tokenizer: GPT2Tokenizer, echoed: Echoed, row: CompletionRow) -> None:
        self._tokenizer, self._row = tokenizer, row
        self._ids = list(echoed[0])
        self._echoed = tokenizer.decode(self._ids)
        self._offsets = TokenOffsets(tokenizer, self._ids)
        logprobs, tops = echoed[1]
        self._logprobs, self._tops = list(logprobs), list(tops)
        self._new = self._tokens = self._characters = 0  # taken from the row, and sent

    def piece(self, ended: bool) -> tuple[str, dict[str, Any] | None]:
        """Return text and log-probabilities since the last piece; None for no token.

        ``ended``: whether the row has ended, so that all tokens are sent.
        """
        row = self._row
        text, new = self._echoed + row.text, row.ids[self._new :]
        logprobs, tops = row.logprobs(self._new)
        self._new += len(new)
        self._ids += new
        self._offsets.append(new)
        self._logprobs += logprobs
        self._tops += tops
        first, end = self._tokens, len(self._ids)
        if not ended:
            end = next((i for i in range(first, end) if self._offsets.values[i] >= len(text)), end)
        piece = text[self._characters :]
        self._tokens, self._characters = end, len(text)
        if first == end:
            return piece, None
        part = slice(first, end)
        offsets = self._offsets.values[part]
        found = self._logprobs[part], self._tops[part]
        return piece, logprobs_object(self._tokenizer, self._ids[part], offsets, found, len(text))
