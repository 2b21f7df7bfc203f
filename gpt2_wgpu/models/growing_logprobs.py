"""``GrowingLogprobs``: log-probabilities of a text that grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpt2_wgpu.copying import NotCopyable
from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.models.decode_run import settled_cache
from gpt2_wgpu.models.evaluation import (
    TokenLogprobs,
    Window,
    batch_values,
    logprobs_of_row,
    top_score,
)
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.hooks import not_finite
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.nn import NO_TARGET, KVCache
from gpt2_wgpu.tensors import dispose, keep, tidy


class GrowingLogprobs(NotCopyable):
    """Log-probabilities of tokens that are appended to a text; each is computed once.

    Args:
        backbone: the model.
        context: ids before the text, at least one.
        length: limit of the ids in all, which the KV cache has room for.
        top: number of the most likely ids for each token.
    """

    def __init__(
        self, backbone: GPT2Backbone, context: Sequence[int], length: int, top: int
    ) -> None:
        self._backbone, self._length, self._top = backbone, length, top
        self._ids = list(context)
        self._cache: KVCache | None = None
        self._cached = 0  # positions

    async def append(self, new: Sequence[int]) -> TokenLogprobs:
        """Append ids → their results; after an error the text is as before."""
        if not new:
            return TokenLogprobs([], [], [], [])
        backbone = self._backbone
        device = backbone.device
        try:
            return await self._append(new)
        except DeviceLostError:
            await recover(backbone, device)
            return await self._append(new)

    async def _append(self, new: Sequence[int]) -> TokenLogprobs:
        backbone, ids = self._backbone, [*self._ids, *new]
        if self._cache is not None and self._cache.device is not backbone.device:
            self.close()
        if self._cache is None:
            with tidy("logprobs"):
                self._cache = keep(await settled_cache(backbone, 1, self._length))
        first = self._cached
        targets = [NO_TARGET] * (len(self._ids) - 1 - first) + list(new)
        window = Window(ids[first:-1], targets)
        (columns,) = await batch_values(
            [backbone], [window], top_score(self._top), [self._cache], first
        )
        found = logprobs_of_row([column[-len(new) :] for column in columns], self._top)
        if not math.isfinite(sum(found.logprobs)):
            raise not_finite("a log-probability of the text is not finite")
        self._ids, self._cached = ids, len(ids) - 1
        return found

    def close(self) -> None:
        """Free the keys and values; they are computed again if needed. Idempotent."""
        cache, self._cache, self._cached = self._cache, None, 0
        if cache is not None:
            dispose([cache])
