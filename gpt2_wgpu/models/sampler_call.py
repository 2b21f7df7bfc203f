"""``generate_step`` by a sampler with its own loop, called as in KerasHub."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from gpt2_wgpu.errors import ShapeError
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.control import CallEndedError, Control, check_control
from gpt2_wgpu.models.decode_step import checked_pair, checked_result, dispose_unkept
from gpt2_wgpu.models.overrides import chosen, settled
from gpt2_wgpu.models.packed_ids import packed, prompts_of, rows_of
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.samplers import Sampler
from gpt2_wgpu.tensors import Tensor, ops, tensor, tidy
from gpt2_wgpu.text.token_arrays import as_array, is_one_row, rows_of_ids

LOWEST = -1e30  # added to the logit of a token that is never chosen


async def generate_by_call(
    model: CachedModel,
    sampler: Sampler,
    inputs: dict[str, Any],
    stop_token_ids: Sequence[int],
    candidates: Candidates | None,
    control: Control | None = None,
) -> dict[str, Any]:
    """Generate from packed ids by one eager call of ``sampler``.

    Starts at the end of the shortest prompt; longer prompts keep their tokens, which the mask
    marks. ``control`` ends it at a call of ``next``, with the prompts alone: the sampler's
    text so far is not known. ShapeError for a result without the prompt's shape.
    """
    vocabulary = model.backbone.config.vocab_size
    ids, mask = rows_of(inputs, vocabulary)
    prompts, starts = prompts_of(ids, mask)
    padding = [row[:start] for row, start in zip(ids, starts, strict=True)]
    ids, mask = _moved(ids, starts), _moved(mask, starts)
    control = control or Control()
    try:
        with control.applied():
            output = await _called(model, sampler, prompts, ids, mask, stop_token_ids, candidates)
    except CallEndedError:
        return inputs
    rows = rows_of_ids(output, vocabulary, f"the result of {type(sampler).__name__}")
    if [len(row) for row in rows] != [len(row) for row in ids]:
        raise ShapeError(
            f"{type(sampler).__name__} must return token ids of the prompt's shape "
            f"[{len(ids)}, {len(ids[0])}]"
        )
    ended = [
        row[: _end(row, len(prompt), stop_token_ids)][: len(row) - start]
        for row, prompt, start in zip(rows, prompts, starts, strict=True)
    ]
    around = [
        before + row[: len(row) - len(before)] for before, row in zip(padding, rows, strict=True)
    ]
    return packed(ended, around, is_one_row(inputs["token_ids"]), starts)


async def _called(
    model: CachedModel,
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    ids: list[list[int]],
    mask: list[list[bool]],
    stop_token_ids: Sequence[int],
    candidates: Candidates | None,
) -> Any:
    """Return the result of ``sampler`` for ``ids`` [B, T] that begin with ``prompts``."""
    check_control()
    async with tidy("sampler"):
        prompt = as_array(ids, "int32")
        hidden, cache = checked_pair(await settled(chosen(model, "build_cache")(prompt)))
        output = await settled(
            sampler(
                next=_next(model, candidates),
                prompt=prompt,
                cache=cache,
                index=min(map(len, prompts)),
                mask=as_array(mask, "bool"),
                stop_token_ids=list(stop_token_ids) or None,
                hidden_states=hidden,
                model=model,
            )
        )
        if isinstance(output, Tensor):
            output = (await output.data()).tolist()
        dispose_unkept([hidden, cache])
        return output


def _moved(rows: list[list[Any]], starts: Sequence[int]) -> list[list[Any]]:
    """Return ``rows`` with the padding before each prompt moved to the end."""
    return [row[start:] + row[:start] for row, start in zip(rows, starts, strict=True)]


def _next(model: CachedModel, candidates: Candidates | None) -> Any:
    """KerasHub's ``next(prompt, cache, index)``: logits [B, V], hidden states [B, D], cache.

    It is a coroutine function where ``call_with_cache`` is one.
    """
    call = chosen(model, "call_with_cache")

    def next(prompt: Any, cache: Any, index: int) -> Any:
        check_control()
        column = [[row[index - 1]] for row in rows_of_ids(prompt, name="prompt")]
        found = call(column, cache, index - 1)
        return later(found) if inspect.isawaitable(found) else squeezed(found)

    async def later(found: Any) -> tuple[Tensor, Tensor, Any]:
        return squeezed(await found)

    def squeezed(found: Any) -> tuple[Tensor, Tensor, Any]:
        logits, hidden, updated = checked_result(found)
        rows = logits.shape[0]
        logits = logits.view((rows, logits.shape[-1]))
        return only(logits, candidates), hidden.view((rows, hidden.shape[-1])), updated

    return next


def only(logits: Tensor, candidates: Candidates | None) -> Tensor:
    """Return the logits of tokens that can be chosen: the first ids, without excluded ones."""
    if candidates is None:
        return logits
    if candidates.end < logits.shape[1]:
        logits = ops.slice(logits, (0, 0), (logits.shape[0], candidates.end))
    if candidates.excluded:
        lowered = [0.0] * candidates.end
        for token in candidates.excluded:
            lowered[token] = LOWEST
        logits = ops.add(logits, tensor([lowered], device=logits.device))
    return logits


def _end(row: Sequence[int], start: int, stops: Sequence[int]) -> int:
    """Return the length of ``row`` up to and including its first new stop token."""
    return next((i + 1 for i in range(start, len(row)) if row[i] in stops), len(row))
