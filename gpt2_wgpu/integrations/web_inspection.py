"""``lm.inspect`` of a page's worker: odds, attention, logit lens and times, as arrays."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import gpt2_wgpu as gw
from gpt2_wgpu.errors import ContextLengthError, InvalidArgumentError
from gpt2_wgpu.integrations.web_texts import pieces
from gpt2_wgpu.models.inspect import step_times_async
from gpt2_wgpu.shown import shown
from gpt2_wgpu.text import GPT2CausalLMPreprocessor, GPT2Tokenizer
from gpt2_wgpu.validation import integer

MAX_ATTENTION_BYTES = 128 << 20  # of one result; Python and JavaScript hold a copy each
MAX_STEPS = 512  # of a measurement
MAX_REPEATS = 100  # of `bench`
BENCH_TEXT = 256  # tokens of its text
BENCH_TOKENS = 32  # new tokens of its streams
_OPTIONS = ("odds", "attention", "lens", "at", "time", "peak", "bench")


async def inspection(
    lm: gw.GPT2CausalLM,
    preprocessor: GPT2CausalLMPreprocessor,
    inputs: str | list[int],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return ids, texts and offsets of the tokens, and what ``given`` asks for.

    ``odds``: number of alternatives of each token. ``attention``: layers. ``lens``: number of
    tokens for each layer, at the positions ``at`` (default: all). ``time``: number of decode steps
    after the text whose times are averaged; ``peak``: with the peak read bandwidth. ``bench``:
    number of times that odds, attention, lens and streams are timed. Arrays are flat memoryviews.

    Raises:
        InvalidArgumentError: an option is unknown or out of range, or there is no token.
        ContextLengthError: the text is too long.
        BusyError: other work ran on the device during ``time``.
        BenchmarkError: numbers that ``bench`` compares differ.
    """
    unknown = [name for name in given if name not in _OPTIONS]
    if unknown:
        options = ", ".join(_OPTIONS)
        raise InvalidArgumentError(f"inspect has no option {shown(unknown[0])}; it has {options}")
    if isinstance(inputs, str):
        (ids,) = lm.encode_prompts([inputs], preprocessor)
    else:
        if not inputs:
            raise InvalidArgumentError("inspect: no token is given")
        ids = inputs
        preprocessor.tokenizer.decode(ids)  # checks them
    if len(ids) > (context := lm.backbone.config.n_positions):
        raise ContextLengthError(
            f"inspect: {len(ids)} tokens exceed the model's context of {context}: shorten the text"
        )
    texts = pieces(preprocessor.tokenizer, ids)
    if isinstance(inputs, str) and "".join(texts) != inputs:
        texts[0] = ""  # of the start token
    found: dict[str, Any] = {"ids": _numbers("I", ids), "texts": texts, "offsets": _offsets(texts)}
    if given.get("odds") is not None:
        found["odds"] = await _odds(lm, ids, integer("odds", given["odds"], 0, 20))
    if given.get("attention") is not None:
        found["attention"] = await _attention(lm, ids, given["attention"])
    if given.get("lens") is not None:
        found["lens"] = await _lens(lm, ids, given["lens"], given.get("at"))
    if given.get("time") is not None:
        steps = integer("time", given["time"], 1, MAX_STEPS)
        found["time"] = await _time(lm, ids, steps, bool(given.get("peak")))
    if given.get("bench") is not None:
        found["bench"] = await _bench(lm, ids, integer("bench", given["bench"], 1, MAX_REPEATS))
    tops = [found["odds"]["top"]["ids"]] if "odds" in found else []
    tops += [found["lens"]["ids"]] if "lens" in found else []
    found["pieces"] = _pieces(preprocessor.tokenizer, {token for top in tops for token in top})
    return found


def _pieces(tokenizer: GPT2Tokenizer, ids: set[int]) -> dict[str, str]:
    """Return the text of each id on its own, in which a part of a character is U+FFFD."""
    return {str(token): tokenizer.decode([token]) for token in ids if tokenizer.has_id(token)}


async def _odds(lm: gw.GPT2CausalLM, ids: list[int], top: int) -> dict[str, Any]:
    """Return how each token was predicted: NaN and -1 for the first, which nothing precedes."""
    details = await lm.logprobs_async(ids, return_details=True, top_logprobs=top)
    tops = [each.top_logprobs for each in details]
    return {
        "logprobs": _numbers("f", [math.nan, *(each.logprob for each in details)]),
        "ranks": _numbers("i", [-1, *(each.rank for each in details)]),
        "entropies": _numbers("f", [math.nan, *(each.entropy for each in details)]),
        "top": {
            "count": top,
            "ids": _numbers("i", [-1] * top + [token for row in tops for token in row]),
            "logprobs": _numbers(
                "f", [math.nan] * top + [value for row in tops for value in row.values()]
            ),
        },
    }


async def _attention(lm: gw.GPT2CausalLM, ids: list[int], layers: Any) -> dict[str, Any]:
    """Return the attention patterns [layer, head, query, key] of some layers."""
    most = lm.backbone.num_layers - 1
    wanted = [
        integer("attention", layer, 0, most)
        for layer in (layers if isinstance(layers, list) else [layers])
    ]
    if not wanted:
        raise InvalidArgumentError("attention: no layer is asked for")
    nbytes = 4 * len(wanted) * lm.backbone.num_heads * len(ids) ** 2
    if nbytes > MAX_ATTENTION_BYTES:
        raise InvalidArgumentError(
            f"attention of {len(wanted)} layers takes {nbytes / 1e6:,.0f} MB of memory: ask for "
            "fewer layers at a time"
        )
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in wanted]
    async with gw.tidy("inspect"):
        _, cache = await lm.run_with_cache_async([ids], names, None)
        patterns = array("f")
        for name in names:
            patterns.frombytes((await cache[name].data()).cast("B"))
    return {
        "layers": _numbers("I", wanted),
        "heads": lm.backbone.num_heads,
        "length": len(ids),
        "patterns": memoryview(patterns),
    }


async def _lens(lm: gw.GPT2CausalLM, ids: list[int], top: Any, at: Any) -> dict[str, Any]:
    """Return the most likely tokens [layer, position, count] by the residual stream of each layer.

    And the rank [layer, position] of the token that follows, -1 after the last.
    """
    top = integer("lens", top, 1, lm.backbone.config.vocab_size)
    places = list(range(len(ids))) if at is None else at
    if not isinstance(places, list) or not places:
        raise InvalidArgumentError(f"at must be a list of positions, not {shown(at)}")
    places = [integer("at", place, -len(ids), len(ids) - 1) % len(ids) for place in places]
    following = [ids[place + 1] if place + 1 < len(ids) else ids[place] for place in places]
    async with gw.tidy("inspect"):
        names = ["*.hook_resid_pre", f"blocks.{lm.backbone.num_layers - 1}.hook_resid_post"]
        _, cache = await lm.run_with_cache_async([ids], names, None)
        lens = cache.logit_lens(top, [following], places)
        data = {name: view.cast("B") for name, view in (await lens.data()).items()}
    ranks = data["ranks"].cast("i").tolist()
    known = [place + 1 < len(ids) for place in places] * len(lens.labels)
    return {
        "layers": lens.labels,
        "positions": _numbers("I", places),
        "count": top,
        "ids": data["ids"].cast("i"),
        "probabilities": data["probabilities"].cast("f"),
        "divergences": data["divergences"].cast("f"),
        "ranks": _numbers("i", [r if k else -1 for r, k in zip(ranks, known, strict=True)]),
    }


async def _time(lm: gw.GPT2CausalLM, ids: list[int], steps: int, peak: bool) -> dict[str, Any]:
    """Return the dispatches of a decode step: kernel, shape of the weights, seconds and bytes."""
    steps = min(steps, lm.backbone.config.n_positions - 2)
    found = await step_times_async(lm, ids, steps, peak=peak)
    seconds = [each.seconds for each in found.dispatches]
    return {
        "steps": found.steps,
        "position": found.position,
        "kernels": [each.kernel for each in found.dispatches],
        "weights": [list(each.shapes.get("weights", ())) for each in found.dispatches],
        "seconds": None if None in seconds else _numbers("f", seconds),
        "bytes": _numbers("f", [each.nbytes for each in found.dispatches]),
        "peakReadBandwidth": found.peak_read_bandwidth,
        "peakError": found.peak_error,
    }


async def _bench(lm: gw.GPT2CausalLM, ids: list[int], repeats: int) -> dict[str, Any]:
    """Return the seconds of each repeat, as the command ``bench --inspection`` measures them.

    Of a longer text the last tokens are measured, as many as leave room for the streams.
    """
    from gpt2_wgpu.bench import inspection as bench  # late: few visitors measure

    context = lm.backbone.config.n_positions
    if len(ids) < 2:
        raise InvalidArgumentError(f"bench needs a text of two tokens or more, not of {len(ids)}")
    if context < 3:
        raise InvalidArgumentError(
            "bench needs a model with a context of three tokens or more (two of the text, and one "
            f"that follows), not of {context}"
        )
    new_tokens = min(BENCH_TOKENS, context // 2)
    ids = ids[-min(BENCH_TEXT, context - new_tokens) :]
    found = await bench.measure_inspection(lm, ids, new_tokens, repeats)
    return {
        "tokens": len(ids),
        "newTokens": new_tokens,
        "lensTokens": min(bench.LENS_TOKENS, len(ids)),
        "topLogprobs": bench.TOP,
        "odds": _numbers("f", found["odds_after_edit_seconds"]),
        "attention": _numbers("f", found["attention_of_layer_seconds"]),
        "lens": _numbers("f", found["lens_seconds"]),
        "stream": _numbers("f", found["plain_seconds"]),
        "detailedStream": _numbers("f", found["details_seconds"]),
    }


def _numbers(kind: str, values: Sequence[Any]) -> memoryview:
    return memoryview(array(kind, values))


def _offsets(texts: Sequence[str]) -> memoryview:
    """Return where each text begins in all of them, in UTF-16 code units, as JavaScript counts."""
    found, end = [], 0
    for text in texts:
        found.append(end)
        end += len(text.encode("utf-16-le", "surrogatepass")) // 2
    return _numbers("I", found)
