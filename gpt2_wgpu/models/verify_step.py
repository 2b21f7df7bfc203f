"""VerifyStep: a step of several tokens per row, with a token sampled after each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import repeat

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.decode_step import DecodeStep
from gpt2_wgpu.models.kept_runs import DecodeInputs
from gpt2_wgpu.models.row_texts import RowTexts
from gpt2_wgpu.models.token_choice import TokenChoice
from gpt2_wgpu.nn import History, KVCache, SamplingState
from gpt2_wgpu.tensors import dispose, keep, tidy
from gpt2_wgpu.webgpu import Readback, Recording


class VerifyStep(NotCopyable):
    """Step of ``tokens`` tokens per row of ``live``, with a sampled token after each."""

    def __init__(
        self,
        model: CachedModel,
        cache: KVCache,
        inputs: DecodeInputs,
        tokens: int,
        live: Sequence[int],
    ) -> None:
        device, rows = cache.device, len(live)
        self.tokens, self._live = tokens, live
        limits = [inputs.limits[which] for which in live for _ in range(tokens)]
        self._queue = device.queue
        self._open = ExitStack()
        with tidy("verify step"):
            self.state = SamplingState.create(
                device,
                [History([0], 1)] * (rows * tokens),
                limits,
                inputs.options,
                inputs.stop_token_ids,
                inputs.candidates.end,
                None,
                inputs.candidates.excluded,
                length=cache.length,  # padding after a draft writes there, too
            )
            self._start = model.backbone.as_uint32([0] * rows)
            self._open.callback(dispose, keep([self.state, self._start]))
        never = inputs.options.rules.always_excluded(inputs.stop_token_ids)
        self._prompts = [row.ids[: row.prompt] for row in inputs.rows]
        self._texts = RowTexts(
            self.state, inputs.options, self._prompts, {*inputs.candidates.excluded, *never}
        )
        keys: list[int] = []
        for which in live:
            seeds, limit = inputs.seeds, inputs.limits[which]
            stream, seed = (which, inputs.options.seed) if seeds is None else (0, seeds[which])
            keys += [limit, stream, seed & 0xFFFFFFFF, seed >> 32] * tokens
        self._queue.upload(self.state.row_params.storage, 0, array("I", keys))
        # A single token's step begins where the state is, so that it can run several times.
        start = self._start if tokens > 1 else None
        self._step = DecodeStep(
            model, cache, self.state, TokenChoice(), lambda: [], tokens=tokens, start=start
        )
        self._recording: Recording | None = None
        reported = (self.state.token, self.state.finished)
        self._readback = Readback(device, [(each.storage, 0, each.nbytes) for each in reported])
        self._open.callback(self._readback.close)

    async def record(self) -> None:
        """Record the step, unless a replaced method reads values."""
        self._recording = await self._step.recorded()
        if self._recording is not None:
            self._open.callback(self._recording.close)

    def write_texts(self, texts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]) -> None:
        """Write the text before each sampled token, for rules and penalties: up to its draft's."""
        rows = zip(self._live, texts, drafts, strict=True)
        self._texts.write(
            (which, [*text[len(self._prompts[which]) :], *draft[:length]])
            for which, text, draft in rows
            for length in range(self.tokens)
        )

    async def submit(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> None:
        """Submit the step for ``rows`` of up to ``tokens`` ids, which begin at ``starts``."""
        self.write(rows, starts)
        await self.run()
        self._readback.begin()

    def write(
        self,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int],
        finished: Sequence[int] | None = None,
    ) -> None:
        """Write ids and positions of the next step, and rows that it leaves alone."""
        ids, positions = array("I"), array("I")
        for row, start in zip(rows, starts, strict=True):
            ids.extend([*row, *repeat(0, self.tokens - len(row))])  # padding: results are unused
            positions.extend(range(start, start + self.tokens))
        state, upload = self.state, self._queue.upload
        upload(state.token.storage, 0, ids)
        upload(state.position.storage, 0, positions)
        upload(state.finished.storage, 0, array("I", finished or bytes(4 * len(ids))))
        upload(self._start.storage, 0, array("I", starts))

    async def run(self) -> None:
        """Run the step once."""
        if self._recording is not None:
            self._recording.replay()
        else:
            await self._step.run()

    async def result(self) -> tuple[list[int], list[int]]:
        """Wait for the step; return the sampled tokens and flags, ``tokens`` per row."""
        token, finished = await self._readback.finish()
        return token.cast("I").tolist(), finished.cast("I").tolist()

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._open.close()
