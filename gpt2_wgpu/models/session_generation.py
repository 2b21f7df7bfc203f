"""Decoding loop of a call on a session, and the source of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.decode_run import DecodeRun
from gpt2_wgpu.models.decoding import Generation
from gpt2_wgpu.models.kept_runs import DecodeInputs
from gpt2_wgpu.models.lookup_run import LookupRun
from gpt2_wgpu.models.prefill import Prefill
from gpt2_wgpu.models.session_cache import Segment, SessionCache, compute_chunk
from gpt2_wgpu.models.step_logprobs import StepLogprobs
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import History, SamplingOptions

_MULTIPLIER = 0x9E3779B97F4A7C15  # spreads a count over 64 bits (Knuth; 2^64 / golden ratio)


class SessionGeneration(Generation):
    """Decoding loop of one row, whose first tokens are in a session's cache.

    ``prompt``: number of tokens that penalties and rules take for the prompt. ``length``: positions
    of the KV cache. ``dropped``: tokens that the session has dropped, so that a position that comes
    again has other random numbers. ``options``, ``choice``: those of an earlier generation of the
    same call. Other arguments as of ``Generation``.
    """

    def __init__(
        self,
        model: CachedModel,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        options: SamplingOptions,
        stop_token_ids: Sequence[int],
        candidates: Candidates | None = None,
        seeds: Sequence[int] | None = None,
        *,
        session_cache: SessionCache,
        prompt: int,
        length: int,
        dropped: int,
        before: SessionGeneration | None = None,
        choice: TokenChoice | None = None,
        check: bool = False,
        prompt_lookup: int = 0,  # the text is the same without
        control: Control | None = None,
        draft_model: CachedModel | None = None,  # likewise
        logprobs: StepLogprobs | None = None,
    ) -> None:
        if before is not None:
            options, choice = before._options, before._choice
        if dropped and seeds is None:
            seeds = [(options.seed + dropped * _MULTIPLIER) % 2**64]
        super().__init__(
            model, prompts, limits, options, stop_token_ids, candidates, seeds, choice, check,
            control=control, logprobs=logprobs,
        )  # fmt: skip
        self._cache, self._prompt, self._length = session_cache, prompt, length
        self._chunks: list[Segment] = []  # of this call's prefill
        self.on_end: Callable[[], None] = lambda: None
        self.stores = True  # whether the session takes keys and values at the end

    @property
    def ids(self) -> list[int]:
        """The tokens so far."""
        return self._rows[0]

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens at the beginning."""
        return self._prompts[0]

    def _histories(self) -> list[History]:
        return [History(self._rows[0], self._prompt, self._prompts[0])]

    async def _new_run(self, inputs: DecodeInputs) -> DecodeRun | LookupRun:
        return await super()._new_run(replace(inputs, length=self._length, prefix=self))

    async def fill(self, prefill: Prefill) -> None:
        """Write all tokens but the last to the cache of ``prefill``."""
        ids = self._rows[0][: self._prompts[0]]
        await self._cache.load(self._model, prefill, ids)
        self._chunks, end = [], len(ids) - 1
        for start in range(self._cache.computed, end, prefill.chunk_rows):
            chunk = ids[start : min(start + prefill.chunk_rows, end)]
            await compute_chunk(self._model, prefill, chunk, start)
            self._chunks.append(Segment(start, start + len(chunk), len(chunk)))

    def _free(self, keep: bool = False) -> None:
        run = self._run
        usable = self.stores and not self._failed and not self._backbone.disposed
        if keep and usable and isinstance(run, DecodeRun) and run.device.is_open:
            steps = Segment(self._prompts[0] - 1, len(self._rows[0]) - 1, 0)
            self._cache.store(run.cache, [*self._chunks, steps])
        if keep:
            self.stores = False
        super()._free(keep)
        if keep:
            ended, self.on_end = self.on_end, lambda: None
            ended()
