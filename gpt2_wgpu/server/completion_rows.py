"""Rows of a request while they are generated: text, stop texts, and all rows as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from gpt2_wgpu.models.batch_row import BatchRow
from gpt2_wgpu.server.api_errors import shutting_down
from gpt2_wgpu.server.choice_tokens import Logprobs
from gpt2_wgpu.text import GPT2Tokenizer, TokenReader

_REASONS = {"stop": "stop", "length": "length", "context": "length"}  # ours → OpenAI's


class CompletionRow:
    """One row: its prompt, new ids and text so far.

    Args:
        prompt: ids of the prompt.
        row: a row of the batch, or None for a request without new tokens.
        tokenizer: the model's.
        stop: texts before which the text ends.
    """

    def __init__(
        self,
        prompt: list[int],
        row: BatchRow | None,
        tokenizer: GPT2Tokenizer,
        stop: Sequence[str],
    ) -> None:
        self.prompt, self._row = prompt, row
        self._reader = TokenReader(tokenizer, stop)
        self.ids: list[int] = []
        self.text = ""
        self.finish_reason = "length"  # OpenAI's

    async def pieces(self) -> AsyncGenerator[str]:
        """Yield the text in pieces, which may be empty.

        Raises:
            APIError: the server ended the row, since it stops.
            GPT2WGPUError: the generation failed.
        """
        if self._row is None:
            return
        async for ids in self._row:
            piece = self._read(ids)
            self.text += piece
            yield piece
            if self._reader.matched:
                self._row.cancel()
                self.finish_reason = "stop"
                return
        piece = self._reader.flush()
        self.text += piece
        reason = self._row.finish_reason
        if reason not in _REASONS:
            raise shutting_down()
        self.finish_reason = "stop" if self._reader.matched else _REASONS[reason]
        yield piece

    def _read(self, ids: Sequence[int]) -> str:
        """Add new ids up to the one that completes a stop text; return their text."""
        piece = ""
        for token_id in ids:
            self.ids.append(token_id)
            piece += self._reader.push(token_id)
            if self._reader.matched:
                break
        return piece

    def logprobs(self, first: int = 0) -> Logprobs:
        """Return log-probabilities and most likely ids of ``ids[first:]``."""
        if self._row is None:
            return [], []
        found, count = self._row.logprobs(first), len(self.ids) - first
        return found.logprobs[:count], found.top_logprobs[:count]

    def cancel(self) -> None:
        """Free the place of the row; without effect on one that has ended."""
        if self._row is not None:
            self._row.cancel()


async def merged(rows: Sequence[CompletionRow]) -> AsyncGenerator[tuple[int, str | None]]:
    """Yield (index of a row, piece of its text) as they come, and None for the end of a row.

    The error of any row is raised. At the end, however it comes, all rows are cancelled.
    """
    queue: asyncio.Queue[tuple[int, str | Exception | None]] = asyncio.Queue()

    async def feed(index: int, row: CompletionRow) -> None:
        try:
            async for piece in row.pieces():
                queue.put_nowait((index, piece))
            queue.put_nowait((index, None))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(feed(index, row)) for index, row in enumerate(rows)]
    try:
        missing = len(rows)
        while missing:
            index, found = await queue.get()
            if isinstance(found, Exception):
                raise found
            missing -= found is None
            yield index, found
    finally:
        for row in rows:
            row.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
