"""Texts of a page's worker: generated piece by piece, and their details, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.integrations.web_settings import Settings, javascript_names
from gpt2_wgpu.models.generation_details import GenerationDetails
from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer


class Text:
    """A text being generated, or several.

    Args:
        stream: the text or texts.
        settings: settings of the call.
        tokenizer: tokenizer of the model.
        on_step: called after each step.
    """

    def __init__(
        self,
        stream: gw.TextStream | gw.BatchStream,
        settings: Settings,
        tokenizer: GPT2Tokenizer,
        on_step: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._settings = settings
        self._tokenizer = tokenizer
        self._on_step = on_step

    async def next(self) -> Any:
        """Return the next piece; of several texts its row and the piece. None at the end."""
        try:
            with javascript_names():
                return await self._stream.__anext__()
        except StopAsyncIteration:
            return None
        finally:
            self._on_step()

    def stats(self, row: int = 0) -> dict[str, Any]:
        """Return the current figures of a text."""
        stats = self._all_stats()[row]
        return {
            "promptTokens": stats.prompt_tokens,
            "tokens": stats.new_tokens,
            "tokensPerSecond": stats.tokens_per_second,
            "secondsToFirstToken": stats.seconds_to_first_token,
            "seed": self._settings.seed_of(row),
            "finishReason": stats.finish_reason,
        }

    def _all_stats(self) -> Sequence[gw.StreamStats]:
        stats = self._stream.stats
        return stats if isinstance(stats, list) else [stats]

    def final_stats(self) -> Any:
        """Return the figures of the text, or a list of those of several."""
        if isinstance(self._stream.stats, list):
            return [self.stats(row) for row in range(len(self._stream.stats))]
        return self.stats()

    async def details(self) -> Any:
        """Return the details of the text or texts, which have ended; None without any."""
        top = self._settings.top_logprobs
        if top is None:
            return None
        try:
            with javascript_names():
                found = await self._stream.details_async(top)
        finally:
            self._on_step()
        if isinstance(found, list):
            return [
                details_of(each, self._settings.seed_of(row), self._tokenizer)
                for row, each in enumerate(found)
            ]
        return details_of(found, self._settings.seed_of(0), self._tokenizer)

    def close(self) -> None:
        """Stop generation; the submit in flight completes. Idempotent."""
        self._stream.close()

    async def __aenter__(self) -> Text:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def details_of(
    found: GenerationDetails, seed: int | None, tokenizer: GPT2Tokenizer
) -> dict[str, Any]:
    """Return details with JavaScript's names, with the text of each token."""
    return {
        "text": found.text,
        "tokenIds": found.token_ids,
        "pieces": pieces(tokenizer, found.token_ids),
        "logprobs": found.logprobs,
        "ranks": found.ranks,
        "entropies": found.entropies,
        "top": [alternatives(tokenizer, likely) for likely in found.top_logprobs],
        "finishReason": found.finish_reason,
        "promptTokens": found.prompt_tokens,
        "seed": seed,
        "timings": {
            "secondsToFirstToken": found.seconds_to_first_token,
            "seconds": found.seconds,
        },
        "score": found.score,
    }


def alternatives(tokenizer: GPT2Tokenizer, likely: Mapping[int, float]) -> list[dict[str, Any]]:
    """Return the most likely ids with their texts."""
    return [
        {"id": token, "piece": tokenizer.decode([token]), "logprob": logprob}
        for token, logprob in likely.items()
        if tokenizer.has_id(token)
    ]


def pieces(tokenizer: GPT2Tokenizer, token_ids: Sequence[int]) -> list[str]:
    """Return the text of each id: together they are the decoded text.

    A character of several tokens is with the last of them.
    """
    detokenizer = StreamingDetokenizer(tokenizer)
    found = [detokenizer.push(token) if tokenizer.has_id(token) else "" for token in token_ids]
    if found:
        found[-1] += detokenizer.flush()
    return found
