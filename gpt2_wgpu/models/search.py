"""Searches: samplers whose decoding loop is part of this package, on the model's KV cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeGuard, TypeVar

from gpt2_wgpu.errors import DeviceLostError
from gpt2_wgpu.models.beam_search import beam_search
from gpt2_wgpu.models.cached_model import CachedModel
from gpt2_wgpu.models.contrastive_search import contrastive_search
from gpt2_wgpu.models.control import Control
from gpt2_wgpu.models.gpt2_backbone import GPT2Backbone
from gpt2_wgpu.models.packed_ids import packed, prompts_of, rows_of
from gpt2_wgpu.models.recovery import recover
from gpt2_wgpu.models.self_test import require_right_results
from gpt2_wgpu.models.token_ids import Candidates
from gpt2_wgpu.nn import SamplingOptions
from gpt2_wgpu.samplers import BeamSampler, ContrastiveSampler, Sampler, runs_in_python
from gpt2_wgpu.text.token_arrays import as_array, is_one_row

T = TypeVar("T")


def is_search(sampler: Sampler) -> TypeGuard[BeamSampler | ContrastiveSampler]:
    """Return whether ``sampler`` has its loop here; a subclass that replaces a method has not."""
    kind = type(sampler)
    return (
        kind.call_async in (BeamSampler.call_async, ContrastiveSampler.call_async)
        and kind.__call__ is Sampler.__call__
        and not runs_in_python(sampler)
    )


async def generate_by_search(
    model: CachedModel,
    sampler: BeamSampler | ContrastiveSampler,
    inputs: dict[str, Any],
    limits: Sequence[int],
    stop_token_ids: Sequence[int],
    candidates: Candidates | None,
    control: Control | None = None,
    best_beams: int = 1,
    options: SamplingOptions | None = None,
) -> dict[str, Any]:
    """Generate from packed ids by ``sampler``, up to total lengths of ``limits``.

    See ``CausalLM.generate_step``. The result has ``best_beams`` rows for each prompt, best first;
    with ``return_all_beams`` it has all, and their ``scores``. ``options``: see ``beam_search``.
    """
    vocabulary = model.backbone.config.vocab_size
    ids, mask = rows_of(inputs, vocabulary)
    prompts, starts = prompts_of(ids, mask)

    returns_all = isinstance(sampler, BeamSampler) and sampler.return_all_beams

    async def search() -> list[tuple[list[int], float]]:
        backbone = model.backbone
        await require_right_results(backbone.device, backbone.dtype, backbone.cache_dtype)
        found = candidates or Candidates(vocabulary)
        where = model, prompts, limits, stop_token_ids, found, control or Control()
        if isinstance(sampler, ContrastiveSampler):
            new = await contrastive_search(sampler, *where, options)
            return [([*row[0], *row[1]], 0.0) for row in zip(prompts, new, strict=True)]
        beams = await beam_search(sampler, *where, options)
        kept = None if returns_all else best_beams
        return [
            ([*prompt, *beam.tokens], beam.score)
            for prompt, found in zip(prompts, beams, strict=True)
            for beam in found[:kept]
        ]

    rows = await with_new_device(model.backbone, search)
    beams = len(rows) // len(ids)
    padding = [row for row in ids for _ in range(beams)]
    starts = [start for start in starts for _ in range(beams)]
    scalar = is_one_row(inputs["token_ids"]) and not returns_all and best_beams == 1
    result = packed([row for row, _ in rows], padding, scalar, starts)
    if returns_all:
        result["scores"] = as_array([score for _, score in rows], "float32")
    return result


async def with_new_device(backbone: GPT2Backbone, compute: Callable[[], Awaitable[T]]) -> T:
    """Return ``compute()``; after a device loss it begins anew, with the same result."""
    while True:
        device = backbone.device
        try:
            return await compute()
        except DeviceLostError:
            await recover(backbone, device)
