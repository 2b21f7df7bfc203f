"""Decode step: newest token of each row → logits → next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpt2_wgpu import nn
from gpt2_wgpu.errors import NotRecordableError, ShapeError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.config import GPT2Config
from gpt2_wgpu.models.overrides import chosen, is_default, settled
from gpt2_wgpu.models.token_choice import TokenChoice, UnreadableIds
from gpt2_wgpu.nn import KVCache, SamplingState
from gpt2_wgpu.samplers.python_sampling import next_tokens
from gpt2_wgpu.shown import shown
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.tensors.scopes import tensors_in
from gpt2_wgpu.webgpu import Recording
from gpt2_wgpu.webgpu.storage import Storage


class DecodeStep:
    """Decode step of all rows: writes to ``cache`` and advances ``state``.

    The default ``call_with_cache`` returns logits for sampling: the head's kernel applies penalties
    and stores maxima. A replaced one, or one with logits processors, returns plain logits, and a
    separate kernel does the same. ``token_ids`` returns each row's token history, for ``choice``.
    ``borrowed``: the workspace of another step's recording, for this one's.
    ``tokens``: of each row, from ``start`` [B] on; the state has a row for each of them.
    """

    def __init__(
        self,
        model: CachedModel,
        cache: KVCache,
        state: SamplingState,
        choice: TokenChoice,
        token_ids: Callable[[], list[list[int]]],
        borrowed: Sequence[Storage] = (),
        tokens: int = 1,
        start: Tensor | None = None,
    ) -> None:
        self._model = model
        self._cache = cache
        self._state = state
        self._choice = choice
        self._token_ids = token_ids
        self._borrowed = borrowed
        self._tokens = tokens
        self._start = state.position if start is None else start
        self._call = chosen(model, "call_with_cache")

    async def recorded(self) -> Recording | None:
        """Record the step; None if it reads values and must run eagerly."""
        if self._choice.sampler is not None:
            return None
        ids = UnreadableIds()
        try:
            with Recording(self._model.backbone.device, borrowed=self._borrowed) as recording:
                await self._run(ids)
        except NotRecordableError:
            return None
        if ids.were_read or recording.was_read:  # and the error was caught
            recording.close()
            return None
        return recording

    async def run(self) -> None:
        """Run the step eagerly."""
        await self._run(self._token_ids())

    async def _run(self, token_ids: Any) -> None:
        state, choice = self._state, self._choice
        with tidy("step"):
            nn.exclude_tokens(state)
            nn.bias_sequences(state)
            if is_default(self._call) and not choice.processors and state.bias is None:
                plain, logits = self._logits()
            else:
                plain = await self._plain_logits()
                logits = nn.penalize(await choice.processed(token_ids, plain), state)
            if choice.sampler is None:
                nn.sample(logits, state)
            else:
                rows, candidates = state.position.size, state.candidates
                if candidates < logits.shape[1]:
                    logits = ops.slice(logits, (0, 0), (rows, candidates))
                nn.advance(await next_tokens(choice.sampler, logits, rows), state)
            if state.odds is not None:
                nn.record_odds(plain, state)

    def _logits(self) -> tuple[Tensor, Tensor]:
        """Return the logits before penalties, where the state has odds, and those to sample from.

        Both are rounded alike: with penalties in the head's kernel, and in one of their own.
        """
        state = self._state
        if state.odds is None or not state.counted:
            logits = self._logits_of_head(state)
            return logits, logits
        plain = self._logits_of_head(nn.without_penalties(state))
        return plain, nn.penalize(plain, state)

    def _logits_of_head(self, state: SamplingState) -> Tensor:
        ids = state.token.view((self._start.size, self._tokens))
        logits, _, _ = self._call(ids, self._cache, self._start, sampling=state)
        found: Tensor = logits.view((state.position.size, logits.shape[-1]))
        return found

    async def _plain_logits(self) -> Tensor:
        """Return logits of ``call_with_cache``, a row for each of the state, without penalties."""
        ids = self._state.token.view((self._start.size, self._tokens))
        found = await settled(self._call(ids, self._cache, self._start))
        return logits_and_hidden(found, ids, self._cache, self._model)[0]


def logits_and_hidden(
    found: Any, ids: Tensor, given: KVCache, model: CachedModel
) -> tuple[Tensor, Any]:
    """Return logits [B * T, V] and hidden states of a ``call_with_cache`` of ``ids`` [B, T].

    Logits may be an array. ShapeError unless it returned logits [B, T, V] and the ``given`` cache.
    """
    logits, hidden, cache = checked_result(found)
    shape = (*ids.shape, model.backbone.config.vocab_size)
    if not isinstance(logits, Tensor) and hasattr(logits, "tolist"):  # an array
        logits = tensor(logits, "float32", device=model.backbone.device)
    if not isinstance(logits, Tensor) or logits.shape != shape:
        raise ShapeError(
            f"call_with_cache must return logits as a Tensor of shape {shape}, not {shown(logits)}"
        )
    if cache is not given:
        raise ShapeError("call_with_cache must return the cache that it was given, updated")
    return logits.view((ids.size, shape[2])), hidden


def checked_result(found: Any) -> Any:
    """Return the result of a replaced ``call_with_cache``; ShapeError unless it has 3 items."""
    if not isinstance(found, tuple | list) or len(found) != 3:
        raise ShapeError(
            f"call_with_cache must return (logits, hidden_states, cache), not {shown(found)}"
        )
    return found


def dispose_unkept(value: Any) -> None:
    """Dispose the tensors in ``value``, a replaced method's result, except those that are kept."""
    for each in tensors_in(value):
        if not each.kept:
            each.dispose()


def checked_pair(found: Any) -> Any:
    """Return the result of a replaced ``build_cache``; ShapeError unless it has 2 items."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ShapeError(f"build_cache must return (hidden_states, cache), not {shown(found)}")
    return found


def check_cache(cache: Any, config: GPT2Config) -> KVCache:
    """Return ``cache``; ShapeError unless it matches a model of ``config``."""
    if not isinstance(cache, KVCache):
        raise ShapeError(
            f"the cache must be one that build_cache returned, not {type(cache).__name__}"
        )
    ours = (config.n_layer, config.n_head, config.head_dim)
    if (cache.shape[1], cache.num_heads, cache.head_dim) != ours:
        raise ShapeError(
            f"the cache [B, L, 2, S, H, D] = {cache.shape} is not of this model, which has "
            f"L, H, D = {ours}"
        )
    return cache
