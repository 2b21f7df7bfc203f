"""Streams of tokens of a page's worker: each with how the model predicted it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.integrations.web_settings import Settings
from gpt2_wgpu.integrations.web_texts import Text, alternatives
from gpt2_wgpu.text import GPT2Tokenizer, StreamingDetokenizer


def without_tokens(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stream without ``tokens``, with which ``topLogprobs`` is allowed."""
    rest = {key: value for key, value in given.items() if key != "tokens"}
    return rest | {"details": True} if given.get("tokens") else rest


class TokenText(Text):
    """A text being generated, token by token. A token is given when its text is certain.

    Arguments as of `Text`, and the settings as given by JavaScript.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        stream: gw.TextStream,
        settings: Settings,
        tokenizer: GPT2Tokenizer,
        on_step: Any,
    ) -> None:
        self._one = stream
        if not given.get("details"):
            settings = replace(settings, top_logprobs=None)
        super().__init__(stream, settings, tokenizer, on_step)
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._held: list[dict[str, Any]] = []  # tokens that are not given yet
        self._left = 0  # characters of the stream that no given token has
        self._offset = 0  # of the next token, in units of JavaScript's strings

    async def next(self) -> list[dict[str, Any]] | None:
        """Return tokens; None at the end."""
        piece = await super().next()
        self._left += len(piece or "")
        self._take()
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

    def _take(self) -> None:
        """Hold the tokens of the last piece."""
        for token in self._one.last_details:
            known = self._tokenizer.has_id(token.token_id)
            self._held.append(
                {
                    "id": token.token_id,
                    "text": self._detokenizer.push(token.token_id) if known else "",
                    "logprob": token.logprob,
                    "rank": token.rank,
                    "entropy": token.entropy,
                    "top": alternatives(self._tokenizer, token.top_logprobs),
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
