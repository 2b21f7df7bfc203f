"""Choices of a stream with log-probabilities, which are computed piece by piece."""

from __future__ import annotations

from typing import Any

from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.growing_logprobs import GrowingLogprobs
from gpt2_wgpu.server.choice_tokens import TokenOffsets, logprobs_object
from gpt2_wgpu.server.completion_request import CompletionRequest, Prompt
from gpt2_wgpu.server.completion_rows import CompletionRow
from gpt2_wgpu.text import GPT2Tokenizer


class ScoredChoice:
    """Text and log-probabilities of a row as it grows.

    A token is sent when the text before it is: not while it may belong to a stop text.

    Args:
        lm: the model.
        tokenizer: its tokenizer.
        request: the request.
        prompt: prompt of the row.
        row: the row.
    """

    def __init__(
        self,
        lm: GPT2CausalLM,
        tokenizer: GPT2Tokenizer,
        request: CompletionRequest,
        prompt: Prompt,
        row: CompletionRow,
    ) -> None:
        self._tokenizer, self._row = tokenizer, row
        self._ids = prompt.ids[prompt.hidden :] if request.echo else []
        self._echoed = tokenizer.decode(self._ids)
        self._offsets = TokenOffsets(tokenizer, self._ids)
        # Without a start token nothing precedes the first token of an echoed prompt.
        bare = int(request.echo and not prompt.hidden)
        self._logprobs: list[float | None] = [None] * bare
        self._tops: list[dict[int, float] | None] = [None] * bare
        self._new = self._tokens = self._characters = 0  # taken from the row, and sent
        context = prompt.ids[:1] if request.echo else prompt.ids
        length = min(len(prompt.ids) + request.max_tokens, lm.backbone.config.n_positions)
        self._scores = GrowingLogprobs(lm.backbone, context, length, request.logprobs or 0)

    async def piece(self, ended: bool) -> tuple[str, dict[str, Any] | None]:
        """Return text and log-probabilities since the last piece; None for no token.

        Without memory for their computation tokens are sent later, at the latest when the row has
        ``ended``: then OutOfGPUMemoryError, after which the call can be repeated.
        """
        row = self._row
        text, new = self._echoed + row.text, row.ids[self._new :]
        self._new += len(new)
        self._ids += new
        self._offsets.append(new)
        try:
            scored = await self._scores.append(self._ids[len(self._logprobs) :])
        except OutOfGPUMemoryError:
            if ended:
                raise
            return "", None
        self._logprobs += scored.logprobs
        self._tops += scored.top_logprobs
        first, end = self._tokens, len(self._ids)
        if not ended:
            end = next((i for i in range(first, end) if self._offsets.values[i] >= len(text)), end)
        piece = text[self._characters :]
        self._tokens, self._characters = end, len(text)
        if first == end:
            return piece, None
        part = slice(first, end)
        logprobs = self._logprobs[part], self._tops[part]
        offsets = self._offsets.values[part]
        found = logprobs_object(self._tokenizer, self._ids[part], offsets, logprobs, len(text))
        return piece, found

    def close(self) -> None:
        """Free the GPU memory; a later :meth:`piece` computes again what it held. Idempotent."""
        self._scores.close()
