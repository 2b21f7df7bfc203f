"""Text and statistics of one row of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt2_wgpu.text import TokenReader


@dataclass
class StreamStats:
    """Statistics of one text. Times are relative to the call of ``stream``."""

    prompt_tokens: int
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None  # as in GenerationDetails; "aborted" if closed; None: running
    seconds_to_first_token: float | None = None
    seconds: float = 0.0
    drafted_tokens: int = 0  # by prompt lookup or a draft model, for all rows
    accepted_tokens: int = 0  # of those drafted

    @property
    def new_tokens(self) -> int:
        """Number of generated tokens."""
        return len(self.token_ids)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed after the first token; None before the third, as the first two arrive together.

        Also None where all tokens arrive together, as in beam search.
        """
        if self.seconds_to_first_token is None or self.new_tokens < 3:
            return None
        since = self.seconds - self.seconds_to_first_token
        return (self.new_tokens - 1) / since if since > 0 else None


class RowText:
    """One row of a stream: its tokens become text by a ``TokenReader`` of its own."""

    def __init__(self, reader: TokenReader) -> None:
        self.stats = StreamStats(0)
        self.text = ""
        self.prompt: list[int] = []
        self.limit = 0  # total length at which it is full
        self.newest: list[int] = []  # ids since its last piece
        self._reader = reader

    @property
    def ended(self) -> bool:
        """Return whether it has a finish reason."""
        return self.stats.finish_reason is not None

    @property
    def tokens(self) -> int:
        """Number of tokens, prompt included."""
        return len(self.prompt) + self.stats.new_tokens

    def push(self, token: int) -> str:
        """Append a token; return the text that it completes. A stop text ends the row."""
        self.stats.token_ids.append(token)
        self.newest.append(token)
        return self._shown(self._reader.push(token))

    def push_text(self, ids: list[int], text: str) -> str:
        """Append the whole text; return it without a stop text, which ends the row."""
        self.stats.token_ids, self.newest = ids, list(ids)
        return self._shown(self._reader.push_text(text))

    def finish(self, reason: str) -> str:
        """End the row, if it has not ended; return the text held back."""
        if self.ended:
            return ""
        piece = self._shown(self._reader.flush())
        self.end(reason)
        return piece

    def end(self, reason: str) -> None:
        """End the row without the text held back, if it has not ended."""
        self.stats.finish_reason = self.stats.finish_reason or reason

    def _shown(self, piece: str) -> str:
        self.text += piece
        if self._reader.matched:
            self.end("stop_text")
        return piece

    def note_time(self, seconds: float) -> None:
        """Note that new tokens have arrived."""
        self.stats.seconds = seconds
        if self.stats.seconds_to_first_token is None:
            self.stats.seconds_to_first_token = seconds
