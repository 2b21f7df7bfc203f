"""Details of given tokens: ``lm.logprobs(..., return_details=True)``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gpt2_wgpu.models.evaluation import TokenLogprobs
from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer


@dataclass(frozen=True)
class TokenDetails:
    """How a model predicts one token of a text, from those before it.

    Attributes:
        token_id: the token.
        text: what it adds to the text: whole characters, so that the texts of all tokens are the
            text; None for a model without a preprocessor.
        logprob: its log-probability in nats.
        rank: number of tokens that are more likely.
        entropy: of the predicted distribution, in nats.
        top_logprobs: the most likely ids in descending order, with their log-probabilities.
    """

    token_id: int
    text: str | None
    logprob: float
    rank: int
    entropy: float
    top_logprobs: dict[int, float]


def token_details(
    tokenizer: GPT2Tokenizer | None, ids: Sequence[int], found: TokenLogprobs
) -> list[TokenDetails]:
    """Return the details of ``ids``, the predicted tokens of a row."""
    columns = (found.logprobs, found.ranks, found.entropies, found.top_logprobs)
    texts = [None] * len(ids) if tokenizer is None else list(_texts(tokenizer, ids))
    return [TokenDetails(*each) for each in zip(ids, texts, *columns, strict=True)]


def _texts(tokenizer: GPT2Tokenizer, ids: Sequence[int]) -> Iterator[str]:
    """Yield the text that each token completes; the last one also what is left incomplete."""
    detokenizer = StreamingDetokenizer(tokenizer)
    for place, token_id in enumerate(ids):
        text = detokenizer.push(token_id) if tokenizer.has_id(token_id) else ""
        yield text + detokenizer.flush() if place == len(ids) - 1 else text
