"""Times of inspecting a model: odds after an edit, attention, logit lens, details of a stream."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gpt2_wgpu.errors import BenchmarkError
from gpt2_wgpu.models import GPT2CausalLM, TextStream, TokenDetails
from gpt2_wgpu.tensors import tidy
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer

LENS_TOKENS = 12
TOP = 20  # alternatives of each token
TOLERANCE = 1e-3  # of probabilities that two paths compute

Report = dict[str, Any]


async def measure_inspection(
    lm: GPT2CausalLM, ids: Sequence[int], new_tokens: int, repeats: int
) -> Report:
    """Measure one text of two tokens or more, which ``new_tokens`` continue.

    The lens is of its first `LENS_TOKENS` tokens. Sampler, rules and limits of ``lm`` have no
    effect.

    Raises:
        BenchmarkError: the lens differs from the odds, weights of attention do not sum to 1, or
            details change the tokens.
    """
    vocabulary = lm.backbone.config.vocab_size
    middle = len(ids) // 2

    async def odds(turn: int) -> list[TokenDetails]:
        edited = [*ids[:middle], (ids[middle] + turn) % vocabulary, *ids[middle + 1 :]]
        details = await lm.logprobs_async(edited, return_details=True, top_logprobs=TOP)
        return list(details)

    async def attention(_: int) -> memoryview:
        return await attention_of(lm, ids, lm.backbone.config.n_layer // 2)

    async def lens(_: int) -> list[float]:
        return await lens_of(lm, ids[:LENS_TOKENS])

    _check(await odds(0), await attention(0), await lens(0), len(ids))
    plain, detailed = await _continued(with_texts(lm), ids, new_tokens, repeats)
    return {
        "odds_after_edit_seconds": await _timed(odds, repeats),
        "attention_of_layer_seconds": await _timed(attention, repeats),
        "lens_seconds": await _timed(lens, repeats),
        "plain_seconds": plain,
        "details_seconds": detailed,
        "details_ratio": min(detailed) / min(plain),
    }


async def attention_of(lm: GPT2CausalLM, ids: Sequence[int], layer: int) -> memoryview:
    """Return the weights of attention of one layer: [1, head, query, key]."""
    name = f"blocks.{layer}.attn.hook_pattern"
    with tidy("attention"):
        _, cache = await lm.run_with_cache_async([list(ids)], name)
        return (await cache.data())[name]


async def lens_of(lm: GPT2CausalLM, ids: Sequence[int]) -> list[float]:
    """Return the final layer's largest probability at each position, from the logit lens."""
    names = ["*.hook_resid_pre", f"blocks.{lm.backbone.config.n_layer - 1}.hook_resid_post"]
    with tidy("lens"):
        _, cache = await lm.run_with_cache_async([list(ids)], names)
        found: Any = (await cache.logit_lens(top=10).data())["probabilities"]
    return [most[0] for most in found.tolist()[-1][0]]


def _check(odds: list[TokenDetails], attention: Any, lens: list[float], length: int) -> None:
    for place, (token, probability) in enumerate(zip(odds, lens, strict=False)):
        expected = math.exp(max(token.top_logprobs.values()))
        if not abs(expected - probability) <= TOLERANCE:
            raise BenchmarkError(
                f"the logit lens gives the best token of position {place} a probability of "
                f"{probability:.4f}, the odds {expected:.4f}: no time is shown"
            )
    for row in (row for head in attention.tolist()[0] for row in head):
        if len(row) != length or not abs(sum(row) - 1) <= TOLERANCE:
            raise BenchmarkError(
                f"{len(row)} weights of attention sum to {sum(row):.4f}, not {length} to 1: no "
                "time is shown"
            )


async def _timed(work: Callable[[int], Awaitable[object]], repeats: int) -> list[float]:
    """Return the seconds of ``work(1)``, ``work(2)`` ...; ``work(0)`` ran before."""
    seconds = []
    for turn in range(1, repeats + 1):
        begun = time.perf_counter()
        await work(turn)
        seconds.append(time.perf_counter() - begun)
    return seconds


async def _continued(
    lm: GPT2CausalLM, ids: Sequence[int], new_tokens: int, repeats: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of streams without and with details of their tokens, which take turns."""
    expected: list[int] | None = None
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(repeats + 1):
        for details in (False, True):
            begun = time.perf_counter()
            found = await streamed(lm, ids, new_tokens, TOP if details else None)
            if turn:  # the first compiles
                seconds[details].append(time.perf_counter() - begun)
            expected = expected or found
            if found != expected:
                raise BenchmarkError(
                    f"tokens with details differ from those without: {found} and {expected}; no "
                    "time is shown"
                )
    return seconds[False], seconds[True]


async def streamed(
    lm: GPT2CausalLM, ids: Sequence[int], new_tokens: int, top: int | None
) -> list[int]:
    """Return the new ids of a stream, with details those of which each has ``top`` alternatives."""
    found: list[int] = []
    with lm.session(list(ids)) as session:
        stream = session.stream(new_tokens, stop_token_ids=None, sampler="greedy", top_logprobs=top)
        async with stream:
            async for _ in stream:
                found += _ids_of(stream, top)
        found += _ids_of(stream, top)  # without text
    return found


def with_texts(lm: GPT2CausalLM) -> GPT2CausalLM:
    """Return ``lm`` with a tokenizer of as many tokens, since a stream has texts."""
    count = lm.backbone.config.vocab_size
    vocabulary = {f"t{token}": token for token in range(count)}
    tokenizer = GPT2Tokenizer(vocabulary, [], start_token=None, end_token=None)
    return GPT2CausalLM(lm.backbone, GPT2CausalLMPreprocessor(tokenizer))


def _ids_of(stream: TextStream, top: int | None) -> list[int]:
    """Return the ids of the last piece."""
    if top is None:
        return stream.last_token_ids
    return [each.token_id for each in stream.last_details if len(each.top_logprobs) == top]
