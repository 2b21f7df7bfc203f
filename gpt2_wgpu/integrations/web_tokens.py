"""Streams of tokens of a page's worker: each with how the model predicted it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.integrations.web_settings import Settings
from gpt2_wgpu.integrations.web_texts import Text, alternatives
from gpt2_wgpu.models.causal_lm import CausalLM
from gpt2_wgpu.models.growing_logprobs import GrowingLogprobs
from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer


def without_tokens(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stream without ``tokens``, with which ``topLogprobs`` is allowed."""
    rest = {key: value for key, value in given.items() if key != "tokens"}
    return rest | {"details": True} if given.get("tokens") else rest


class TokenText(Text):
    """A text being generated, token by token. A token is given when its text is certain.

    Arguments as of `Text`, and the model and the settings as given by JavaScript.
    """

    def __init__(
        self,
        lm: CausalLM,
        given: Mapping[str, Any],
        stream: gw.TextStream,
        settings: Settings,
        tokenizer: GPT2Tokenizer,
        on_step: Any,
    ) -> None:
        self._lm, self._one, self._top = lm, stream, settings.top_logprobs or 0
        if not given.get("details"):
            settings = replace(settings, top_logprobs=None)
        super().__init__(stream, settings, tokenizer, on_step)
        self._scores: GrowingLogprobs | None = None
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._taken = 0  # ids of the stream
        self._held: list[dict[str, Any]] = []  # tokens that are not given yet
        self._left = 0  # characters of the stream that no given token has
        self._offset = 0  # of the next token, in units of JavaScript's strings

    async def next(self) -> list[dict[str, Any]] | None:
        """Return tokens; None at the end."""
        piece = await super().next()
        self._left += len(piece or "")
        await self._take()
        if piece is None and self._held:
            self._held[-1]["text"] += self._detokenizer.flush()
        found = self._certain(piece is None)
        del self._held[: len(found)]
        for token in found:
            token["text"] = token["text"][: self._left]  # a stop text or token is not part of it
            self._left -= len(token["text"])
            token["offset"] = self._offset
            self._offset += len(token["text"].encode("utf-16-le", "surrogatepass")) // 2
        return None if piece is None and not found else found

    async def _take(self) -> None:
        """Hold the new ids of the stream, with their log-probabilities."""
        new = self._one.stats.token_ids[self._taken :]
        if not new:
            return
        self._taken += len(new)
        if self._scores is None:
            prompt, limit = self._one.prompt_token_ids, self._lm.backbone.config.n_positions
            most = self._settings.arguments["max_new_tokens"]
            length = limit if most is None else min(len(prompt) + most, limit)
            self._scores = GrowingLogprobs(self._lm.backbone, prompt, length, self._top)
        found = await self._scores.append(new)
        for token, nats, top, rank, entropy in zip(new, *found, strict=True):
            known = self._tokenizer.has_id(token)
            self._held.append(
                {
                    "id": token,
                    "text": self._detokenizer.push(token) if known else "",
                    "logprob": nats,
                    "rank": rank,
                    "entropy": entropy,
                    "top": alternatives(self._tokenizer, top),
                }
            )

    def _certain(self, ended: bool) -> list[dict[str, Any]]:
        """Return the held tokens to give: up to the last that completes text of the stream."""
        if ended:
            return self._held[:]
        length = count = 0
        for index, token in enumerate(self._held):
            length += len(token["text"])
            if length > self._left:
                break
            if token["text"]:
                count = index + 1
        return self._held[:count]

    def close(self) -> None:
        """Stop generation and free the memory of the log-probabilities. Idempotent."""
        super().close()
        if self._scores is not None:
            self._scores.close()
