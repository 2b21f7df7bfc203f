"""Completions: requests on one batch, and their answers as OpenAI's objects."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from gpt2_wgpu._version import __version__
from gpt2_wgpu.models import GPT2CausalLM
from gpt2_wgpu.models.continuous_batch import ContinuousBatch
from gpt2_wgpu.models.evaluation import token_logprobs
from gpt2_wgpu.server.api_errors import APIError
from gpt2_wgpu.server.completion_request import CompletionRequest
from gpt2_wgpu.server.completion_rows import CompletionRow, merged
from gpt2_wgpu.server.metrics import Metrics
from gpt2_wgpu.server.scored_choice import Echoed, ScoredChoice
from gpt2_wgpu.text import GPT2Tokenizer

# Index of a row, text, log-probabilities of its tokens, and the finish reason of the last piece.
Piece = tuple[int, str, dict[str, Any] | None, str | None]


class Completions:
    """Generator of answers; all requests share ``batch``.

    Args:
        lm: the model, with a preprocessor.
        batch: its batch.
        model: name of the model in answers.
        max_rows: rows that are admitted at once, running and waiting.
        metrics: counters to advance.
    """

    def __init__(
        self, lm: GPT2CausalLM, batch: ContinuousBatch, model: str, max_rows: int, metrics: Metrics
    ) -> None:
        assert lm.preprocessor is not None  # create_app rejects a model without one
        self._lm, self._batch, self.model = lm, batch, model
        self._tokenizer: GPT2Tokenizer = lm.preprocessor.tokenizer
        self.max_rows, self._admitted = max_rows, 0
        self._metrics = metrics
        self._scoring = asyncio.Lock()  # bounds the memory of the logits of prompts
        self._fingerprint = _fingerprint(lm, model)

    @contextmanager
    def admitted(self, request: CompletionRequest) -> Iterator[None]:
        """Count the rows of a request while it is answered.

        Raises:
            APIError: there are too many with those of other requests.
        """
        rows = request.rows
        if self._admitted + rows > self.max_rows:
            message = f"the server is busy with {self._admitted} rows: try again later"
            raise APIError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        self._admitted += rows
        try:
            yield
        finally:
            self._admitted -= rows

    async def start(self, request: CompletionRequest) -> list[CompletionRow]:
        """Submit the rows of a request, ``best_of`` for each prompt.

        Raises:
            GPT2WGPUError: the batch rejects one; then none is left in it.
        """
        rows: list[CompletionRow] = []
        top = request.logprobs
        if top is None and request.best_of > request.n:
            top = 0  # to compare the rows
        try:
            for prompt in request.prompts:
                for _ in range(request.best_of):
                    row = None
                    if request.max_tokens:
                        row = self._batch.submit(
                            prompt.ids,
                            max_new_tokens=request.max_tokens,
                            sampler=request.sampler,
                            seed=(request.seed + len(rows)) % 2**64,
                            stop_token_ids=request.stop_token_ids,
                            top_logprobs=top,
                        )
                    rows.append(CompletionRow(prompt.ids, row, self._tokenizer, request.stop))
                    await asyncio.sleep(0)  # a row with many biases takes 10 ms
        except BaseException:
            for each in rows:
                each.cancel()
            raise
        self._metrics.prompt_tokens += sum(len(prompt.ids) for prompt in request.prompts)
        return rows

    async def answer(self, request: CompletionRequest, rows: list[CompletionRow]) -> dict[str, Any]:
        """Return the whole answer."""
        begun = time.perf_counter()
        async with aclosing(merged(rows)) as pieces:
            first = True
            async for _, piece in pieces:
                first = self._note_first_token(begun, piece, first)
        choices = await self._choices(request, rows)
        return self._head() | {"choices": choices, "usage": self._usage(request, rows)}

    async def events(
        self, request: CompletionRequest, rows: list[CompletionRow]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the objects of a stream."""
        head = self._head() | ({"usage": None} if request.include_usage else {})
        kind = self._pieces if request.logprobs is None else self._scored_pieces
        async with aclosing(kind(request, rows)) as pieces:
            async for index, text, logprobs, reason in pieces:
                choice = {"text": text, "index": index, "logprobs": logprobs}
                yield head | {"choices": [choice | {"finish_reason": reason}]}
        if request.include_usage:
            yield head | {"choices": [], "usage": self._usage(request, rows)}

    async def _pieces(
        self, request: CompletionRequest, rows: Sequence[CompletionRow]
    ) -> AsyncGenerator[Piece]:
        """Yield the pieces of a request without log-probabilities."""
        begun, first = time.perf_counter(), True
        if request.echo:
            for index in range(len(rows)):
                yield index, self._prompt_text(request, index), None, None
        async with aclosing(merged(rows)) as pieces:
            async for index, piece in pieces:
                first = self._note_first_token(begun, piece, first)
                if piece is None:
                    yield index, "", None, rows[index].finish_reason
                elif piece:
                    yield index, piece, None, None

    async def _scored_pieces(
        self, request: CompletionRequest, rows: Sequence[CompletionRow]
    ) -> AsyncGenerator[Piece]:
        """Yield the pieces of a request with log-probabilities."""
        begun, first = time.perf_counter(), True
        echoed = await self._echoed(request)
        choices = [
            ScoredChoice(self._tokenizer, echoed[place // request.best_of], row)
            for place, row in enumerate(rows)
        ]
        async with aclosing(merged(rows)) as pieces:
            async for index, piece in pieces:
                first = self._note_first_token(begun, piece, first)
                text, logprobs = choices[index].piece(ended=piece is None)
                if piece is None:
                    yield index, text, logprobs, rows[index].finish_reason
                elif text or logprobs:
                    yield index, text, logprobs, None

    async def _choices(
        self, request: CompletionRequest, rows: list[CompletionRow]
    ) -> list[dict[str, Any]]:
        """Return the ``n`` choices of each prompt."""
        echoed = [] if request.logprobs is None else await self._echoed(request)
        choices: list[dict[str, Any]] = []
        for first in range(0, len(rows), request.best_of):
            places = [*range(first, first + request.best_of)]
            if request.best_of > request.n:
                places.sort(key=lambda place: _mean(rows[place]), reverse=True)
            for place in places[: request.n]:
                row, logprobs = rows[place], None
                if echoed:
                    choice = ScoredChoice(self._tokenizer, echoed[place // request.best_of], row)
                    text, logprobs = choice.piece(ended=True)
                else:
                    begin = self._prompt_text(request, place) if request.echo else ""
                    text = begin + row.text
                choices.append(
                    {
                        "text": text,
                        "index": len(choices),
                        "logprobs": logprobs,
                        "finish_reason": row.finish_reason,
                    }
                )
        return choices

    async def _echoed(self, request: CompletionRequest) -> list[Echoed]:
        """Return for each prompt the ids that its texts begin with, and their log-probabilities."""
        if not request.echo:
            return [([], ([], []))] * len(request.prompts)
        contexts = [prompt.ids[:1] for prompt in request.prompts]
        scored = [prompt.ids[1:] for prompt in request.prompts]
        async with self._scoring:
            found = await token_logprobs(self._lm, contexts, scored, request.logprobs or 0)
        echoed: list[Echoed] = []
        for prompt, each in zip(request.prompts, found, strict=True):
            # Without a start token nothing precedes the first token.
            nothing = [None] * (not prompt.hidden)
            logprobs = [*nothing, *each.logprobs], [*nothing, *each.top_logprobs]
            echoed.append((prompt.ids[prompt.hidden :], logprobs))
        return echoed

    def _prompt_text(self, request: CompletionRequest, place: int) -> str:
        prompt = request.prompts[place // request.best_of]
        return self._tokenizer.decode(prompt.ids[prompt.hidden :])

    def _note_first_token(self, begun: float, piece: str | None, first: bool) -> bool:
        """Measure the time to the first piece; return whether it is still to come."""
        if first and piece is not None:
            self._metrics.first_token.observe(time.perf_counter() - begun)
            return False
        return first

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": self._fingerprint,
        }

    def _usage(self, request: CompletionRequest, rows: Sequence[CompletionRow]) -> dict[str, int]:
        """Return the numbers of tokens: a prompt counts once, all its rows count."""
        prompts = sum(len(prompt.ids) for prompt in request.prompts)
        new = sum(len(row.ids) for row in rows)
        return {"prompt_tokens": prompts, "completion_tokens": new, "total_tokens": prompts + new}


def _mean(row: CompletionRow) -> float:
    """Return the mean log-probability of the new tokens."""
    if not row.ids:
        return -math.inf
    return math.fsum(value or 0.0 for value in row.logprobs()[0]) / len(row.ids)


def _fingerprint(lm: GPT2CausalLM, model: str) -> str:
    """Return OpenAI's ``system_fingerprint``: equal seeds give equal texts where it is equal."""
    parts = (__version__, model, lm.backbone.dtype, lm.device.info.name)
    return "fp_" + hashlib.blake2b("\0".join(parts).encode(), digest_size=5).hexdigest()
