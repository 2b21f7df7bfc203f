"""Tokens of a choice: OpenAI's ``logprobs`` object."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer

Logprobs = tuple[Sequence[float | None], Sequence[dict[int, float] | None]]


def logprobs_object(
    tokenizer: GPT2Tokenizer,
    ids: Sequence[int],
    offsets: Sequence[int],
    logprobs: Logprobs,
    length: int,
) -> dict[str, Any]:
    """Return OpenAI's object for tokens of a text of ``length`` characters.

    Args:
        tokenizer: the model's.
        ids: ids of the tokens.
        offsets: where each begins.
        logprobs: of each token its log-probability and the most likely ids; to these the token
            itself is added, as OpenAI does.
        length: of the text; offsets of later tokens, which belong to a stop text, are this.
    """
    chosen = zip(*logprobs, strict=True)
    alternatives = [
        None if logprob is None or top is None else {**top, token_id: logprob}
        for token_id, (logprob, top) in zip(ids, chosen, strict=True)
    ]
    return {
        "tokens": [token_text(tokenizer, token_id) for token_id in ids],
        "token_logprobs": list(logprobs[0]),
        "top_logprobs": [
            top and {token_text(tokenizer, each): value for each, value in top.items()}
            for top in alternatives
        ],
        "text_offset": [min(offset, length) for offset in offsets],
    }


class TokenOffsets:
    """Where each token of a text begins: ``values``, of prompt and new tokens.

    Special tokens of the prompt have a text, new ones none.
    """

    def __init__(self, tokenizer: GPT2Tokenizer, prompt: Sequence[int]) -> None:
        self.values: list[int] = []
        self._tokenizer, self._length = tokenizer, 0
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._add(prompt, ())
        self._length += len(self._detokenizer.flush())
        self._detokenizer = StreamingDetokenizer(tokenizer)

    def append(self, new: Sequence[int]) -> None:
        """Append new tokens."""
        self._add(new, self._tokenizer.special_token_ids)

    def _add(self, ids: Sequence[int], hidden: Collection[int]) -> None:
        for token_id in ids:
            self.values.append(self._length)
            if self._tokenizer.has_id(token_id) and token_id not in hidden:
                self._length += len(self._detokenizer.push(token_id))


def token_text(tokenizer: GPT2Tokenizer, token_id: int) -> str:
    r"""Return the text of one token; as OpenAI "bytes:\xe2" for a part of a character."""
    if not tokenizer.has_id(token_id):
        return f"<|{token_id}|>"
    if token_id in tokenizer.special_token_ids:
        return tokenizer.id_to_token(token_id)
    data = tokenizer.token_bytes(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
