"""Text as it is generated: one object for ``for`` and ``async for``."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import BusyError
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.text import GPT2Tokenizer, StopTextMatcher, StreamingDetokenizer
from gpt2_wgpu.webgpu import sync


@dataclass
class StreamStats:
    """What a stream has done so far. Times count from the call of ``stream``."""

    prompt_tokens: int
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None  # "stop", "stop_text", "length", "closed"; None: running
    seconds_to_first_token: float | None = None
    seconds: float = 0.0

    @property
    def new_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed after the first token; None before the third: two come together at first."""
        if self.seconds_to_first_token is None or self.new_tokens < 3:
            return None
        return (self.new_tokens - 1) / max(self.seconds - self.seconds_to_first_token, 1e-9)


@dataclass
class WholeText:
    """A text that is generated at once, by ``generate``: its new ids and the text."""

    prompt_tokens: int
    stop_token_ids: Sequence[int]
    generate: Callable[[], Awaitable[tuple[list[int], str]]]

    def close(self) -> None:
        """Nothing is held between two calls."""

    close_later = close


TokenSource = Generation | WholeText


class TextStream(NotCopyable):
    """Pieces of generated text: iterate it, with ``for`` or ``async for``.

    Pieces are whole characters. :meth:`close` (``aclose``), leaving a ``with`` block, dropping the
    object or an error frees its GPU memory; what was generated stays in :attr:`stats`. It serves
    one caller at a time (``BusyError``), but any task or thread may close it.
    """

    def __init__(
        self,
        given: Any,
        open_source: Callable[[Any], TokenSource],
        tokenizer: GPT2Tokenizer,
        matcher: StopTextMatcher,
        begun: float,
    ) -> None:
        self.stats = StreamStats(0)
        self.last_token_ids: list[int] = []  # those that completed the piece just given
        self._open_source = open_source
        self._given = given  # packed ids of the prompt; where they have to be awaited, not yet
        self._source: TokenSource | None = None
        self._tokenizer = tokenizer
        self._hidden = set(tokenizer.special_token_ids)
        self._detokenizer = StreamingDetokenizer(tokenizer)
        self._matcher = matcher
        self._begun = begun
        self._pending: list[int] = []
        self._ended = False
        self._in_use = Lock()
        if not inspect.isawaitable(given):
            self._open(given)

    def _open(self, given: Any) -> None:
        self._given = None
        self._source = self._open_source(given)
        self.stats.prompt_tokens = self._source.prompt_tokens

    def __str__(self) -> str:
        state = self.stats.finish_reason or "running"
        return f"TextStream, {self.stats.new_tokens} new tokens, {state}"

    async def __anext__(self) -> str:
        if not self._in_use.acquire(blocking=False):
            raise BusyError("this stream is being read already: one task or thread at a time")
        try:
            self.last_token_ids = []
            while not self._ended:
                piece = await self._next_piece()
                if piece:
                    return piece
        except BaseException:
            self.close()
            raise
        finally:
            self._in_use.release()
        raise StopAsyncIteration

    async def _next_piece(self) -> str:
        """The text of one more token, perhaps empty; at the end, what was held back."""
        if self._source is None:
            self._open(await self._given)
        source = self._source
        assert source is not None
        if isinstance(source, WholeText):
            return await self._whole_text(source)
        if not self._pending:
            if source.done:
                return self._finish("stop" if source.stopped(0) else "length")
            (self._pending,) = await source.advance()
            self._note_time()
            if not self._pending or self._ended:
                return ""  # closed meanwhile, by another task or thread
        token = self._pending.pop(0)
        self.stats.token_ids.append(token)
        self.last_token_ids.append(token)
        if token in self._hidden or not self._tokenizer.has_id(token):
            return self._pass_over(token)
        piece, matched = self._matcher.push(self._detokenizer.push(token))
        if matched:
            self._end("stop_text")
        return piece

    async def _whole_text(self, source: WholeText) -> str:
        ids, text = await source.generate()
        self._note_time()
        self.stats.token_ids, self.last_token_ids = ids, list(ids)
        stopped = bool(ids) and ids[-1] in source.stop_token_ids
        piece, matched = self._matcher.push(text)
        if matched:
            self._end("stop_text")
            return piece
        return piece + self._finish("stop" if stopped else "length")

    def _pass_over(self, token: int) -> str:
        """A token that is not shown; text that was held back if a stop text is this token."""
        if not self._tokenizer.has_id(token):
            return ""
        if self._tokenizer.id_to_token(token) not in self._matcher.stops:
            return ""
        return self._finish("stop_text")

    def _note_time(self) -> None:
        self.stats.seconds = time.perf_counter() - self._begun
        if self.stats.seconds_to_first_token is None:
            self.stats.seconds_to_first_token = self.stats.seconds

    def _finish(self, reason: str) -> str:
        text, matched = self._matcher.push(self._detokenizer.flush())
        self._end("stop_text" if matched else reason)
        return text + self._matcher.flush()

    def _end(self, reason: str) -> None:
        self._ended = True
        self.stats.finish_reason = self.stats.finish_reason or reason
        if self._source is not None:
            self._source.close()
        elif inspect.iscoroutine(self._given):
            self._given.close()

    def close(self) -> None:
        """Stop and free the GPU memory. Idempotent."""
        self._end("closed")

    async def aclose(self) -> None:
        self.close()

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        try:
            return sync(self.__anext__(), "stream.__anext__()")
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> TextStream:
        return self

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector may come at any moment: free at the next safe one.
        source = getattr(self, "_source", None)
        if source is not None and not self._ended and not sys.is_finalizing():
            source.close_later()
