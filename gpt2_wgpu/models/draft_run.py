"""DraftRun: drafts of a smaller model, which draws with the random numbers of the large one.

Its KV cache has the text up to some token, and drafts after it. After a rejection the rejected
tokens are computed over: a row writes a position before it reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import OutOfGPUMemoryError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_run import filled_cache
from gpt2_wgpu.models.decode_step import dispose_unkept
from gpt2_wgpu.models.kept_runs import DecodeInputs
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.verify_step import VerifyStep
from gpt2_wgpu.nn import FULL, LIVE, RECENT, KVCache, move_rows
from gpt2_wgpu.tensors import dispose, keep, tidy
from gpt2_wgpu.webgpu import Readback


class DraftRun(NotCopyable):
    """KV cache and step of a draft model; see ``Drafter`` in lookup_run.py."""

    def __init__(self, model: CachedModel, cache: KVCache, inputs: DecodeInputs) -> None:
        self._model, self._inputs = model, inputs
        self._weights_version = model.backbone.weights_version
        self._open = ExitStack()
        self._open.callback(dispose_unkept if cache.kept else dispose, cache)
        keep(cache)
        self._whole = self._cache = cache
        self._views: list[KVCache] = []
        self._known = [row.before - 1 for row in inputs.rows]  # tokens of the text in the cache
        self._after: list[list[int]] = [[] for _ in inputs.rows]  # and drafted ones after them
        self._of_rows = ExitStack()
        self._step: VerifyStep | None = None
        self._readback: Readback | None = None

    @classmethod
    async def start(cls, model: CachedModel, inputs: DecodeInputs) -> DraftRun:
        """Compute the prompts, except the last token of each."""
        backbone = model.backbone
        if not backbone.device.is_open:
            await recover(backbone, backbone.device)
        prefill = await filled_cache(model, inputs, None)
        prefill.close()
        return cls(model, prefill.cache, inputs)

    async def drafts(
        self, live: Sequence[int], texts: Sequence[list[int]], rooms: Sequence[int]
    ) -> list[list[int]]:
        """Return a draft of up to ``rooms`` tokens after each of ``texts``."""
        self._model.backbone.check_weights(self._weights_version)
        step, readback = await self._recorded(live)
        with tidy("draft"):
            ends = [len(text) - 1 for text in texts]
            rows = zip(live, texts, rooms, ends, strict=True)
            places = [self._place(which, text) if room else end for which, text, room, end in rows]
            missing = max(end - place for place, end in zip(places, ends, strict=True))
            for offset in range(missing):  # tokens of the text: what is drawn is overwritten
                now = [min(place + offset, end) for place, end in zip(places, ends, strict=True)]
                step.write([[text[at]] for text, at in zip(texts, now, strict=True)], now)
                await step.run()
            step.write_texts(texts, [[] for _ in texts])
            finished = [LIVE if room else FULL for room in rooms]
            step.write([[text[-1]] for text in texts], ends, finished)
            for _ in range(max(rooms)):
                await step.run()
            readback.begin()
            position, recent = (part.cast("I") for part in await readback.finish())
        result = []
        for row, (which, text, room) in enumerate(zip(live, texts, rooms, strict=True)):
            places_drawn = range(len(text), position[row] + 1)
            drawn = [recent[row * RECENT + at % RECENT] for at in places_drawn] if room else []
            self._known[which], self._after[which] = len(text), drawn[:-1]
            result.append(drawn[:room])
        return result

    def _place(self, which: int, text: Sequence[int]) -> int:
        """Return the first position of ``text`` that the cache lacks: the newest at the latest."""
        place, last = self._known[which], len(text) - 1
        for token in self._after[which]:
            if place >= last or text[place] != token:
                break
            place += 1
        self._known[which], self._after[which] = min(place, last), []
        return min(place, last)

    async def _recorded(self, live: Sequence[int]) -> tuple[VerifyStep, Readback]:
        """Return the step of the rows ``live``, recorded at its first use, and its readback."""
        if self._step is None or self._readback is None:
            self._step = VerifyStep(self._model, self._cache, self._inputs, 1, live)
            self._of_rows.callback(self._step.close)
            await self._step.record()
            state = self._step.state
            reported = (state.position, state.recent)
            ranges = [(each.storage, 0, each.nbytes) for each in reported]
            self._readback = Readback(self._cache.device, ranges)
            self._of_rows.callback(self._readback.close)
        return self._step, self._readback

    def compact(self, live: Sequence[int], moves: Sequence[tuple[int, int]]) -> None:
        """Take the ``live`` rows that remain, after ``moves`` of places."""
        try:
            move_rows(self._whole, moves)
        except OutOfGPUMemoryError:
            for _, place in moves:  # the row is computed anew
                self._known[live[place]], self._after[live[place]] = 0, []
        self._close_step()
        dispose(self._views)
        self._views = [keep(self._whole.first_rows(len(live)))]
        self._cache = self._views[0]

    def _close_step(self) -> None:
        self._step = self._readback = None
        self._of_rows.close()

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._close_step()
        dispose(self._views)
        self._open.close()
