"""Source of the new tokens of one call on a session, for ``generate`` and ``TextStream``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.prompt_lookup import DraftStats
from gpt2_wgpu.models.session_generation import SessionGeneration

# The generation before, and the new tokens that are left → the generation that goes on.
Continue = Callable[[SessionGeneration | None, int | None], SessionGeneration]


class SessionSource(NotCopyable):
    """New tokens of one call, by one generation after another where the session slides.

    ``new_generation``: begins a generation of the session's tokens. ``end``: called once with the
    tokens of the session that are kept. ``kept``: the new tokens of the call that are kept; its
    owner extends it before the next :meth:`advance`.
    """

    def __init__(
        self,
        new_generation: Continue,
        slide: Callable[[Sequence[int]], None] | None,
        max_new_tokens: int | None,
        end: Callable[[list[int]], None],
    ) -> None:
        self.drafts = DraftStats()
        self.kept: list[int] = []
        self._new_generation, self._slide, self._end = new_generation, slide, end
        self._left = max_new_tokens
        self._earlier = 0  # new tokens of earlier generations
        self._closed = False
        self._generation = new_generation(None, max_new_tokens)

    @property
    def done(self) -> bool:
        """Return whether there are no more tokens."""
        return self._closed or (self._generation.done and not self._slides)

    @property
    def _slides(self) -> bool:
        """Return whether the text goes on although the context is full."""
        generation = self._generation
        if self._slide is None or self._closed or generation.stopped(0):
            return False
        return self._left is None or len(generation.ids) - generation.prompt_tokens < self._left

    def ended(self, row: int) -> bool:
        """Return whether there are no more tokens; ``row``: 0."""
        return self.done

    def end(self, row: int) -> None:
        """End the text on behalf of the caller: it gets no more tokens."""
        self._left = 0
        self._generation.end(row)

    async def advance(self) -> list[list[int]]:
        """Return some new tokens, in a list of one row; see ``Generation.advance``."""
        before = self._generation
        if before.done and self._slides and self._slide is not None:
            new = len(before.ids) - before.prompt_tokens
            before.stores = False
            before.close()
            self._slide(before.ids)
            self._earlier += new
            self._left = None if self._left is None else self._left - new
            self._generation = self._new_generation(before, self._left)
        return await self._generation.advance()

    def close(self) -> None:
        """End the call: the session takes the tokens that are kept. Idempotent."""
        if self._closed:
            return
        self._closed = True
        generation = self._generation
        new = self.kept[self._earlier :]
        ids = [*generation.ids[: generation.prompt_tokens], *new]
        generation.on_end = partial(self._end, ids)
        generation.close()

    def close_later(self) -> None:
        """Close at the next safe point: for finalisers."""
        self._generation.defer(self.close)
