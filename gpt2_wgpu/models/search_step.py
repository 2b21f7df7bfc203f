"""Step of a search: several rows per prompt, whose results Python reads to choose the next tokens.

The KV cache has a row for each of these texts. Between two steps rows may be replaced by others of
the same prompt. A step is recorded once and replayed; the host uploads tokens, positions and
parents, and reads the scores.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from gpt2_wgpu import nn
from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import NotRecordableError, OutOfGPUMemoryError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.control import CallEndedError, Control
from gpt2_wgpu.models.decode_run import filled_cache
from gpt2_wgpu.models.decode_step import dispose_unkept, logits_and_hidden
from gpt2_wgpu.models.kept_runs import DecodeInputs
from gpt2_wgpu.models.live_rows import has_own_steps, is_time, moved_to_front
from gpt2_wgpu.models.overrides import chosen, settled
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import History, KVCache, SamplingOptions
from gpt2_wgpu.tensors import Tensor, dispose, empty, keep, tidy
from gpt2_wgpu.webgpu import Readback, Recording

T = TypeVar("T")
Score = Callable[[Tensor], Sequence[Tensor]]
"""Results to read, of the logits [R, V] of the newest tokens."""


async def started(start: Coroutine[Any, Any, T], control: Control) -> T | None:
    """Return the result of ``start``; None if ``control`` ended it."""
    try:
        with control.applied():
            return await start
    except CallEndedError:
        return None


class SearchStep(NotCopyable):
    """Step of ``count`` rows for each prompt; close it at the end.

    The rows of finished prompts leave it: ``prompts`` are the indices of those that it computes.
    """

    needs_hidden = False  # hidden states of the prompts

    def __init__(self, model: CachedModel, cache: KVCache, count: int, score: Score) -> None:
        device = cache.device
        self.device = device
        self._model = model
        self._weights_version = model.backbone.weights_version
        self._whole = self._cache = cache
        self._count = count
        self._score = score
        self._lengths: list[int] = []  # of each prompt, without its last token
        self._steps = 0
        self.prompts = tuple(range(cache.batch_size // count))  # index of that at each place
        self._open = ExitStack()  # for all steps
        self._open.callback(dispose, keep(cache))
        self._of_rows = ExitStack()  # for a number of rows
        self._recording: Recording | None = None
        self._readback: Readback | None = None

    @classmethod
    async def start(
        cls,
        model: CachedModel,
        prompts: Sequence[Sequence[int]],
        length: int,
        count: int,
        score: Score,
    ) -> SearchStep:
        """Compute all tokens of ``prompts`` except the last of each, and record the step.

        ``length``: positions of the cache.
        """
        with ExitStack() as undo, tidy("search"):
            inputs = DecodeInputs(
                rows=[History(prompt, len(prompt)) for prompt in prompts],
                limits=[length] * len(prompts),
                options=SamplingOptions(),
                stop_token_ids=(),
                candidates=Candidates(model.backbone.config.vocab_size),
                seeds=None,
                length=length,
            )
            hidden: list[Tensor] | None = [] if cls.needs_hidden else None
            prefill = await filled_cache(model, inputs, None, hidden)
            undo.callback(prefill.close)
            which = [index for index in range(len(prompts)) for _ in range(count)]
            step = cls(model, nn.select_rows(prefill.cache, which), count, score)
            undo.callback(step.close)
            dispose_unkept(prefill.cache)
            prefill.close()
            step._lengths = [len(prompt) - 1 for prompt in prompts]
            step._prepare(hidden or [])
            await step._begin()
            undo.pop_all()
            return step

    async def compact(self, ended: Sequence[bool]) -> None:
        """Drop the rows of prompts that have ``ended``, if it is time; see live_rows.py.

        They stay as long as there is no memory for the moves.
        """
        stay = [index for index in self.prompts if not ended[index]]
        if not (is_time(self._steps, len(self.prompts), len(stay)) and has_own_steps(self._model)):
            return
        prompts, moves = moved_to_front(self.prompts, stay)
        try:
            self._move(moves)
        except OutOfGPUMemoryError:
            return
        self._of_rows.close()
        self.prompts = prompts
        await self._begin()

    def _move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy what belongs to a prompt to another place: (from, to)."""
        count = self._count
        rows = [(a * count + row, b * count + row) for a, b in moves for row in range(count)]
        nn.move_rows(self._whole, rows)

    async def _begin(self) -> None:
        """Create and record the step of the present ``prompts``."""
        places, count = len(self.prompts), self._count
        with tidy("search step"):
            self._cache = self._whole.first_rows(places * count)
            self._token = empty(self.device, (places * count, 1), "uint32")
            self._first, self._position, self._parents = (
                empty(self.device, (places, count), "uint32") for _ in range(3)
            )
            owned = [self._cache, self._token, self._first, self._position, self._parents]
            self._of_rows.callback(dispose, keep([*owned, *self._views()]))
        lengths = [self._lengths[index] for index in self.prompts for _ in range(count)]
        self.device.queue.upload(self._first.storage, 0, array("I", lengths))
        await self._record()

    def _views(self) -> Sequence[Tensor]:
        """Return views of the first places of other tensors, for the present ``prompts``."""
        return ()

    async def _record(self) -> None:
        """Record the step, unless it reads values and must run eagerly."""
        try:
            with Recording(self.device) as recording:
                results = await self._compute()
        except NotRecordableError:
            return
        if recording.was_read:  # and the error was caught
            recording.close()
            return
        self._recording = recording
        self._of_rows.callback(recording.close)
        self._readback = Readback(
            self.device, [(result.storage, 0, result.nbytes) for result in results]
        )
        self._of_rows.callback(self._readback.close)
        self._of_rows.callback(dispose, keep(results))

    async def run(
        self, tokens: Sequence[int], positions: Sequence[int], parents: Sequence[int]
    ) -> list[memoryview]:
        """Compute ``tokens`` [R] at ``positions`` [R]; returns the bytes of each result.

        The rows are those of ``prompts``. ``parents`` [R]: the row, of those of its prompt, that
        each row continues.
        DisposedTensorError if the weights were replaced.
        """
        self._model.backbone.check_weights(self._weights_version)
        self._steps += 1
        for storage, values in (
            (self._token.storage, tokens),
            (self._position.storage, positions),
            (self._parents.storage, parents),
        ):
            self.device.queue.upload(storage, 0, array("I", values))
        if self._recording is None or self._readback is None:
            async with tidy("search step"):
                return [(await each.data()).cast("B") for each in await self._compute()]
        self._recording.replay()
        self._readback.begin()
        return await self._readback.finish()

    async def _compute(self) -> list[Tensor]:
        nn.reorder_rows(self._cache, self._parents, self._first, self._position)
        with tidy("search step") as scope:
            call: Any = chosen(self._model, "call_with_cache")
            positions = self._position.view((self._token.size,))
            found = await settled(call(self._token, self._cache, positions))
            logits, hidden = logits_and_hidden(found, self._token, self._cache, self._model)
            results = self._results(logits, hidden)
            return scope.escape(list(results))

    def _prepare(self, hidden: Sequence[Tensor]) -> None:
        """Use the hidden states [B, T, D] of the prompts, chunk by chunk."""

    def _results(self, logits: Tensor, hidden: Any) -> Sequence[Tensor]:
        """Return the results of logits [R, V] and hidden states [R, 1, D]."""
        return self._score(logits)

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._of_rows.close()
        self._open.close()
