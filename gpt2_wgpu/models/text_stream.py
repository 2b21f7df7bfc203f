"""Text streams: generated text for ``for`` and ``async for``, of one prompt or of several."""

from __future__ import annotations

from gpt2_wgpu.models.generation_details import GenerationDetails
from gpt2_wgpu.models.piece_stream import PieceStream
from gpt2_wgpu.models.row_text import StreamStats
from gpt2_wgpu.webgpu import sync


class TextStream(PieceStream[str]):
    """Iterator of pieces of the text of one prompt, for ``for`` and ``async for``.

    Pieces consist of complete characters. The GPU memory is freed by ``close`` (``aclose``), at
    the end of a ``with`` block, on an error, or with the last reference; :attr:`stats` stay valid.
    Serves one caller at a time (``BusyError``); any task or thread may ``close`` or ``cancel`` it.
    """

    def __str__(self) -> str:
        state = self.stats.finish_reason or "running"
        return f"TextStream, {self.stats.new_tokens} new tokens, {state}"

    def _yielded(self, row: int, piece: str) -> str:
        return piece

    @property
    def stats(self) -> StreamStats:
        """Statistics, up to the last piece."""
        return self._rows[0].stats

    @property
    def prompt_token_ids(self) -> list[int]:
        """Ids of the prompt, once a piece has come."""
        return self._rows[0].prompt

    def details(self, top_logprobs: int = 0) -> GenerationDetails:
        """Details of the text, with log-probabilities, after its end or ``close``; blocks.

        Args:
            top_logprobs: number of the most likely ids for each new id, at most 20.

        Raises:
            InvalidArgumentError: the text has not ended, or ``top_logprobs`` is out of range.
        """
        return sync(self.details_async(top_logprobs), "details_async(...)")

    async def details_async(self, top_logprobs: int = 0) -> GenerationDetails:
        """Async counterpart of :meth:`details`."""
        return (await self._details(top_logprobs))[0]


class BatchStream(PieceStream[tuple[int, str]]):
    """Iterator of ``(row, piece)`` of the texts of several prompts, computed as one batch.

    Rows end alone. Otherwise as :class:`TextStream`.
    """

    def __str__(self) -> str:
        tokens = sum(stats.new_tokens for stats in self.stats)
        running = sum(not row.ended for row in self._rows)
        return f"BatchStream of {len(self._rows)} rows, {tokens} new tokens, {running} rows running"

    def _yielded(self, row: int, piece: str) -> tuple[int, str]:
        return row, piece

    @property
    def stats(self) -> list[StreamStats]:
        """Statistics of each row, up to its last piece."""
        return [row.stats for row in self._rows]

    def details(self, top_logprobs: int = 0) -> list[GenerationDetails]:
        """Details of each text after the end of all; blocks. See :meth:`TextStream.details`."""
        return sync(self.details_async(top_logprobs), "details_async(...)")

    async def details_async(self, top_logprobs: int = 0) -> list[GenerationDetails]:
        """Async counterpart of :meth:`details`."""
        return await self._details(top_logprobs)
