"""Tokens of a choice: OpenAI's ``logprobs`` object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer

Logprobs = tuple[Sequence[float | None], Sequence[dict[int, float] | None]]


def logprobs_object(
    tokenizer: GPT2Tokenizer,
    prompt: Sequence[int],
    new: Sequence[int],
    logprobs: Logprobs,
    length: int,
) -> dict[str, Any]:
    """Return OpenAI's object for the tokens of a text of ``length`` characters.

    Args:
        tokenizer: the model's.
        prompt: ids of the prompt, if the text begins with it.
        new: ids of the new tokens.
        logprobs: of each token its log-probability and the most likely ids; to these the token
            itself is added, as OpenAI does.
        length: of the text; offsets of later tokens, which belong to a stop text, are this.
    """
    ids, chosen = [*prompt, *new], zip(*logprobs, strict=True)
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
        "text_offset": [min(offset, length) for offset in _offsets(tokenizer, prompt, new)],
    }


def _offsets(tokenizer: GPT2Tokenizer, prompt: Sequence[int], new: Sequence[int]) -> list[int]:
    """Return where each token begins. Special tokens of the prompt have a text, new ones none."""
    offsets, length = [], 0
    for ids, hidden in ((prompt, ()), (new, tokenizer.special_token_ids)):
        detokenizer = StreamingDetokenizer(tokenizer)
        for token_id in ids:
            offsets.append(length)
            if tokenizer.has_id(token_id) and token_id not in hidden:
                length += len(detokenizer.push(token_id))
        length += len(detokenizer.flush())
    return offsets


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
